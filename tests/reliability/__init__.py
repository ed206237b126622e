"""Programs that prove what docs/reliability.md promises: for seconds as a test, for an hour on request."""
