"""The long tests (`make torture`): whole corpora, long runs of one letter, every combination."""
