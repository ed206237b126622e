"""The training objectives, one a method."""
