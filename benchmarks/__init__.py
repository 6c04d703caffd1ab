"""Measurements: each prints a table and writes JSON under results/, with the machine named."""
