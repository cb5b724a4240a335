"""What the command ``check`` looks at."""
