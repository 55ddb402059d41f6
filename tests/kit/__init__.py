"""The harness: what writes corpora, stands for servers, runs, watches and compares."""
