"""Image files, a module per format: opened once, read frame by frame."""
