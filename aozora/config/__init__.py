"""Settings: declared once, checked once, and free of torch so that the window needs none to start."""
