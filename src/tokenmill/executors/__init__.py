"""Who maps a function over blocks, in order and bounded; and who watches over it."""
