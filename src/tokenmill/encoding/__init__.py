"""One block to a batch of tokens: a pure function of the spec and the block."""
