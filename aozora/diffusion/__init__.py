"""The mathematics of diffusion: pure functions from config options to tensors, float64 tables."""
