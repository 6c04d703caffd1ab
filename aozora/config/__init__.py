"""Settings: declared once, checked once, and free of torch so that the window starts quickly."""
