"""The window of Aozora. This version has none yet: only its start-up check exists."""
