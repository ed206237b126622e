"""Datasets: where they lie, how they are laid out, and which frames count."""
