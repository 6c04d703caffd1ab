"""The frame of the window: rail, bars, search, help, files, recovery."""
