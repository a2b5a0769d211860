"""Single files: open them safely, tell their versions apart, write them atomically."""
