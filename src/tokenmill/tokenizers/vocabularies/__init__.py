"""Tokenizer files of every kind, and what follows from each."""
