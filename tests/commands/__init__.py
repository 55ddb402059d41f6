"""The commands, each as a person meets it."""
