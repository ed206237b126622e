"""Footage for training: found, decoded once, and cut into random batches."""
