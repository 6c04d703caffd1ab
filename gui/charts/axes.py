"""Axes of the live charts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyqtgraph as pg

from gui.charts.numbers import short_number, span_text, whole_text


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
        """Return where ticks stand: whole decades where that is enough of them."""
        if not self.is_log or maxVal - minVal < 1.0:
            values: list[Any] = super().tickValues(minVal, maxVal, size)
            return values
        step = max(1, math.ceil((maxVal - minVal) / max(1.0, size / 34.0)))
        decades = range(math.ceil(minVal), math.floor(maxVal) + 1, step)
        minor = [d + math.log10(k) for d in decades for k in range(2, 10)] if step == 1 else []
        return [(1.0, [float(d) for d in decades]), (0.1, minor)]

    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:
        """Return the text of each tick; none at the lines between decades."""
        if not self.is_log:
            return [_tick(value, spacing) for value in values]
        if spacing < 1.0 and any(not float(v).is_integer() for v in values) and len(values) > 7:
            return ["" for _ in values]
        return [short_number(10.0**value) for value in values]


def _tick(value: float, spacing: float) -> str:
    if value == 0 or abs(value) < spacing * 1e-6:
        return "0"
    if abs(value) >= 1e6 or abs(spacing) < 1e-4:
        return f"{value:.1e}"
    digits = max(0, -math.floor(math.log10(spacing) + 1e-9))
    return f"{value:,.{digits}f}"
