"""Optimizers for large models on one card; they know torch and nothing else of the program."""
