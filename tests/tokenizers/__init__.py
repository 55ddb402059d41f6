"""Tokenizers of every kind, and the engines."""
