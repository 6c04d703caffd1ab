"""Running the engine from the window: its states, its thread, its child process."""
