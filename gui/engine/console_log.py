"""The console's lines: bounded, numbered, each with its level."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from gui.engine.mailbox import Arrived, Item, Level
from gui.engine.wording import line_of

_MOST_LINES = 5_000


@dataclass(frozen=True)
class ConsoleLine:
    """A line and its running number, which tells a reader what is new."""

    number: int
    time: float
    level: Level
    text: str


class ConsoleLog:
    """The newest lines of this and earlier runs since the window opened."""

    def __init__(self, most_lines: int = _MOST_LINES) -> None:
        self._lines: deque[ConsoleLine] = deque(maxlen=most_lines)
        self._next = 0
        self.most_lines = most_lines

    @property
    def next_number(self) -> int:
        """The number the next line will have."""
        return self._next

    def add(self, time: float, level: Level, text: str) -> None:
        """Add ``text``, of one or more lines."""
        for part in text.splitlines() or [""]:
            self._lines.append(ConsoleLine(self._next, time, level, part))
            self._next += 1

    def feed(self, item: Item) -> None:
        """Add what there is to say about ``item``."""
        if isinstance(item, Arrived):
            line = line_of(item.event)
            if line is not None:
                self.add(item.time, *line)
        else:
            self.add(item.time, item.level, item.text)

    def since(self, number: int) -> list[ConsoleLine]:
        """Return the lines from ``number`` on that are still there."""
        new = self._next - number
        if new <= 0:
            return []
        if new >= len(self._lines):
            return list(self._lines)
        newest = [self._lines[-place] for place in range(1, new + 1)]
        return newest[::-1]

    def clear(self) -> None:
        """Forget the lines; numbers go on."""
        self._lines.clear()
