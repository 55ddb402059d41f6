"""What each command does, with the packages below."""
