"""A page on one's own machine: masks are drawn on frames, followed, looked at and corrected."""
