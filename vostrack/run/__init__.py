"""One clip, from files to files."""
