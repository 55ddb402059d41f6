"""What a finished dataset is, and what can be wrong with it."""
