"""From a block to tokens, and the check by the reference."""
