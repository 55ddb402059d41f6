"""What you type: parsed, called, printed; and the exit code."""
