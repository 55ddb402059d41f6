"""What a dataset is: what was asked, what was written, and whether it still is that."""
