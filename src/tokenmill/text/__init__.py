"""What holds for any text: faults of UTF-8, encodings told, where a text may be cut."""
