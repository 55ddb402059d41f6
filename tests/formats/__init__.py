"""What the shards are, and the trainers' own loaders."""
