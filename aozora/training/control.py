"""Requests to a running engine: thread-safe flags, asked between micro-steps."""

from __future__ import annotations

import threading

COMMANDS = ("stop", "stop_and_save", "pause", "unpause", "save_now")


class RunControl:
    """What the person in front of the run wants. Any thread may call any method."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._stop_and_save = threading.Event()
        self._save_now = threading.Event()
        self._running = threading.Event()
        self._running.set()

    def stop(self) -> None:
        """End the run at the next micro-step without saving."""
        self._stop.set()
        self._running.set()

    def stop_and_save(self) -> None:
        """End the run at the next micro-step and save the last finished step."""
        self._stop_and_save.set()
        self._running.set()

    def pause(self) -> None:
        """Hold the run at the next micro-step."""
        self._running.clear()

    def unpause(self) -> None:
        """Let a held run go on."""
        self._running.set()

    def save_now(self) -> None:
        """Save at the end of the current step and go on."""
        self._save_now.set()

    def send(self, command: str) -> None:
        """Carry out a command by its name.

        Raises:
            ValueError: if there is no such command.
        """
        if command not in COMMANDS:
            raise ValueError(f"unknown command {command!r}; there are: {', '.join(COMMANDS)}")
        getattr(self, command)()

    @property
    def should_stop(self) -> bool:
        """Whether the run should end now."""
        return self._stop.is_set() or self._stop_and_save.is_set()

    @property
    def should_save_at_stop(self) -> bool:
        """Whether to save when ending."""
        return not self._stop.is_set()

    def take_save_request(self) -> bool:
        """Return whether a save was asked for, and forget the request."""
        asked = self._save_now.is_set()
        self._save_now.clear()
        return asked

    def wait_while_paused(self) -> None:
        """Return at once, or when the run may go on."""
        self._running.wait()
