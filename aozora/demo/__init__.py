"""A small base model and pictures, so that everything can be tried with nothing downloaded."""
