"""The shape of the code, the documentation, and the harness itself."""
