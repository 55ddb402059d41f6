"""What a file is: its kind and its compression, by its name and by its first bytes."""
