"""A public suite a seam: whatever is behind it must pass."""
