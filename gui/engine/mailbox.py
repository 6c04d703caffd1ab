"""Where what the engine says waits until the window has a moment for it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Literal

from aozora.events import Event, Progressed

Level = Literal["info", "warning", "error", "output"]

_MOST_LINES = 5_000


@dataclass(frozen=True)
class LogLine:
    """One line for the console.

    Attributes:
        time: Seconds since the epoch.
        level: ``output`` is whatever a library printed.
        text: Without line end.
    """

    time: float
    level: Level
    text: str


@dataclass(frozen=True)
class Arrived:
    """An event and when the window's process got it, in seconds since the epoch."""

    time: float
    event: Event


Item = Arrived | LogLine


class Mailbox:
    """A thread-safe box that any thread fills and the window empties about ten times a second.

    Events are kept, but for progress, of which only the newest in a row counts. Lines beyond a
    limit are counted instead, so that a flood of output cannot fill the memory.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: list[Item] = []
        self._lines = 0
        self._lost_lines = 0
        self._heard_at = time.monotonic()

    def put(self, item: Event | LogLine) -> bool:
        """Add ``item``; return whether the box was empty, so that somebody must be told."""
        now = time.time()
        with self._lock:
            self._heard_at = time.monotonic()
            was_empty = not self._items
            if isinstance(item, LogLine):
                self._lines += 1
                if self._lines > _MOST_LINES:
                    self._lost_lines += 1
                    return False
                self._items.append(item)
                return was_empty
            if isinstance(item, Progressed) and self._items:
                last = self._items[-1]
                if isinstance(last, Arrived) and isinstance(last.event, Progressed):
                    self._items.pop()
            self._items.append(Arrived(now, item))
            return was_empty

    def take(self) -> list[Item]:
        """Return everything in order and leave the box empty."""
        with self._lock:
            items, self._items = self._items, []
            lost, self._lost_lines, self._lines = self._lost_lines, 0, 0
        if lost:
            items.append(LogLine(time.time(), "warning", f"{lost:,} lines of output left out"))
        return items

    def silent_seconds(self) -> float:
        """Return how long ago the last item came."""
        with self._lock:
            return time.monotonic() - self._heard_at
