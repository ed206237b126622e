"""What methods share: features, memory and the soft matcher."""
