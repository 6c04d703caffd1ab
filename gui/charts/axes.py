"""Axes of the live charts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyqtgraph as pg

from gui.charts.numbers import span_text, whole_text


class PlaceAxis(pg.AxisItem):  # type: ignore[misc]
    """The shared x axis: steps, time or epochs."""

    def __init__(self) -> None:
        super().__init__("bottom")
        self.place = "step"
        self.enableAutoSIPrefix(False)

    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:
        """Return the text of each tick."""
        if self.place == "seconds":
            return [span_text(value) for value in values]
        if self.place == "epoch":
            return [f"{value:g}" for value in values]
        return [whole_text(value) if float(value).is_integer() else "" for value in values]


class ValueAxis(pg.AxisItem):  # type: ignore[misc]
    """A y axis; with ``is_log`` the plotted values are base-10 logarithms."""

    def __init__(self) -> None:
        super().__init__("left")
        self.is_log = False
        self.enableAutoSIPrefix(False)
        # One width for all charts, so that those in a column stand in line.
        self.setWidth(62)

    def tickValues(self, minVal: float, maxVal: float, size: float) -> list[Any]:
        """Return where ticks stand: on a logarithmic axis at round numbers."""
        if not self.is_log:
            values: list[Any] = super().tickValues(minVal, maxVal, size)
            return values
        return [(1.0, log_ticks(minVal, maxVal, max(2, int(size / 34))))]

    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:
        """Return the text of each tick."""
        if self.is_log:
            return [log_text(value) for value in values]
        return [_tick(value, spacing) for value in values]


# Hundredths a decade may be divided at, from fine to coarse.
_DIGITS: tuple[Sequence[int], ...] = (
    *(range(100, 1000, step) for step in (1, 2, 5, 10, 20, 50, 100)),
    (100, 200, 500),
    (100, 300),
)


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Return base-10 logarithms of round numbers between ``low`` and ``high``, themselves such.

    As many as ``most``: to three digits where there is little to show, whole decades
    where there is much.
    """
    best: list[float] = []
    for digits in _DIGITS:
        decades = range(math.floor(low) - 1, math.ceil(high) + 1)
        ticks = [d + math.log10(k / 100) for d in decades for k in digits]
        best = [tick for tick in ticks if low <= tick <= high]
        if len(best) <= most:
            return best
    step = max(1, math.ceil((high - low) / most))
    return [float(d) for d in range(math.ceil(low), math.floor(high) + 1, step)] or best[:1]


def log_text(value: float) -> str:
    """Return the number whose base-10 logarithm is ``value``, with the digits it needs."""
    number = 10.0**value
    if number < 1e-3 or number >= 1e5:
        mantissa, _, exponent = f"{number:.2e}".partition("e")
        return f"{mantissa.rstrip('0').removesuffix('.')}e{int(exponent)}"
    return f"{float(f'{number:.3g}'):g}"


def _tick(value: float, spacing: float) -> str:
    if value == 0 or abs(value) < spacing * 1e-6:
        return "0"
    if abs(value) >= 1e6 or abs(spacing) < 1e-4:
        return f"{value:.1e}"
    digits = max(0, -math.floor(math.log10(spacing) + 1e-9))
    return f"{value:,.{digits}f}"
