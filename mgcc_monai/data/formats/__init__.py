"""Image files, one module per format: opened once, read frame by frame."""
