"""The editors one draws in: learning-rate curve, timestep tickets, trained layers."""
