"""The report of a benchmark: one page with plots and pictures."""
