"""How often to draw: ten times a second, less where drawing is slow."""

from __future__ import annotations

from dataclasses import dataclass

_FASTEST_MS, _SLOWEST_MS = 100, 500
_SLOW_DRAW_MS = 30.0
_FAST_DRAWS = 10


@dataclass
class DrawPace:
    """Chooses the interval between draws from the processor time they take.

    Not from the time that passes: a busy computer would make the charts crawl for no gain.
    """

    interval_ms: int = _FASTEST_MS
    _fast_draws: int = 0

    def drew(self, milliseconds: float) -> None:
        """Take note of a draw; a slow one halves the rate, ten fast ones double it again."""
        if milliseconds > _SLOW_DRAW_MS:
            self._fast_draws = 0
            self.interval_ms = min(_SLOWEST_MS, 2 * self.interval_ms)
            return
        self._fast_draws += 1
        if self._fast_draws >= _FAST_DRAWS and self.interval_ms > _FASTEST_MS:
            self._fast_draws = 0
            self.interval_ms = max(_FASTEST_MS, self.interval_ms // 2)
