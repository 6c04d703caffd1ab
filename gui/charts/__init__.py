"""Live charts: bounded history and decimation without Qt, and the widgets that draw them."""
