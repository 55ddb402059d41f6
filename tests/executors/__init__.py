"""Threads, and the processes that watch over them."""
