"""Online adaptation: a network learns from the masks of one clip what its objects look like."""
