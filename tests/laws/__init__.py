"""The five laws, and what the first release wrote."""
