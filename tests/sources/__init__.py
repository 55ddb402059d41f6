"""How bytes divide into documents, and what of them cannot become tokens."""
