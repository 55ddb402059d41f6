"""A suite for each seam, run on every entry of its table and on toys that no trainer reads."""
