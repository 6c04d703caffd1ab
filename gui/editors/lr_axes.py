"""Between places on the learning-rate chart and the values they stand for.

The vertical axis is logarithmic. There is no logarithm of 0, so a lane below it, set apart by a
break, is exactly 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from aozora.config.lr_schedule import LrSchedule

ZERO_LANE = 24.0
LOWEST_EXPONENT, HIGHEST_EXPONENT = -13.0, 0.0
_LEAST_DECADES = 1.0


@dataclass(frozen=True)
class Decades:
    """The range of the vertical axis, as powers of ten."""

    low: float
    high: float

    @classmethod
    def around(cls, schedule: LrSchedule) -> Decades:
        """Return a range that leaves about a decade of room around the points."""
        rates = [p.lr for p in schedule.points if p.lr > 0.0 and math.isfinite(p.lr)] or [1e-6]
        low = math.floor(math.log10(min(rates)) - 0.5)
        high = math.ceil(math.log10(max(rates)) + 0.5)
        return cls(low, high).limited()

    def zoomed(self, factor: float, centre: float) -> Decades:
        """Return the range ``factor`` times as high, with ``centre`` staying where it is."""
        factor = max(factor, _LEAST_DECADES / (self.high - self.low))
        low = centre - (centre - self.low) * factor
        return Decades(low, low + (self.high - self.low) * factor).limited()

    def limited(self) -> Decades:
        """Return the range cut to what a learning rate can be."""
        low = max(LOWEST_EXPONENT, min(self.low, HIGHEST_EXPONENT - _LEAST_DECADES))
        return Decades(low, min(HIGHEST_EXPONENT, max(self.high, low + _LEAST_DECADES)))


@dataclass(frozen=True)
class LrAxes:
    """Where the plot lies and what it spans.

    Attributes:
        left: Left edge in pixels.
        top: Upper edge.
        width: Width of the plot.
        height: Height of the plot with its lane of 0.
        decades: Range of the logarithmic part.
    """

    left: float
    top: float
    width: float
    height: float
    decades: Decades

    @property
    def lane_top(self) -> float:
        """Where the logarithmic part ends and the lane of 0 begins."""
        return self.top + self.height - ZERO_LANE

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.top + self.height

    @property
    def right(self) -> float:
        """The right edge."""
        return self.left + self.width

    def to_px_x(self, x: float) -> float:
        """Return where place ``x`` of the run is drawn."""
        return self.left + x * self.width

    def to_x(self, px: float) -> float:
        """Return the place of the run at ``px``, within 0 to 1."""
        return min(max((px - self.left) / self.width, 0.0), 1.0)

    def to_px_y(self, lr: float) -> float:
        """Return where the rate ``lr`` is drawn.

        Above the range it is drawn at the edge. Below the range it is drawn in the upper half of
        the lane of 0, in proportion, so that a curve on its way to 0 has no step.
        """
        lowest = math.pow(10.0, self.decades.low)
        if lr < lowest:
            return self.lane_top + (1.0 - max(lr, 0.0) / lowest) * ZERO_LANE / 2
        exponent = min(math.log10(lr), self.decades.high)
        part = (exponent - self.decades.low) / (self.decades.high - self.decades.low)
        return self.lane_top - part * (self.lane_top - self.top)

    def to_lr(self, py: float) -> float:
        """Return the rate at ``py``: 0 in the lane, at most 1 above the plot."""
        # A few pixels of the lane still belong to the logarithmic part, or its lowest value
        # could hardly be reached.
        if py > self.lane_top + 4.0:
            return 0.0
        return min(math.pow(10.0, self.to_exponent(py)), 1.0)

    def to_exponent(self, py: float) -> float:
        """Return the power of ten at ``py``, not above the range nor below it."""
        part = (self.lane_top - py) / (self.lane_top - self.top)
        span = self.decades.high - self.decades.low
        return self.decades.low + min(max(part, 0.0), 1.0) * span

    def decade_lines(self) -> Iterator[int]:
        """Yield the powers of ten in the range."""
        yield from range(math.ceil(self.decades.low), math.floor(self.decades.high) + 1)

    def minor_lines(self) -> Iterator[float]:
        """Yield 2 to 9 times each power of ten in the range."""
        for exponent in range(math.floor(self.decades.low), math.ceil(self.decades.high)):
            for digit in range(2, 10):
                place = exponent + math.log10(digit)
                if self.decades.low < place < self.decades.high:
                    yield 10.0**place

    def polyline(self, schedule: LrSchedule) -> list[tuple[float, float]]:
        """Return the curve as pixels: `LrSchedule.at` at every second column and every point.

        Nothing is interpolated here, so what is drawn is what is applied.
        """
        columns = max(int(self.width // 2), 1)
        places = {column / columns for column in range(columns + 1)}
        jumps: list[tuple[float, float]] = []
        for point in schedule.points:
            places.add(point.x)
            # A held segment jumps at its end; a place just before shows the jump upright.
            before = math.nextafter(point.x, 0.0)
            if point.x > 0.0:
                jumps.append((point.x, schedule.at(before)))
        line = [(x, schedule.at(x)) for x in places]
        marked = [(x, 1, lr) for x, lr in line] + [(x, 0, lr) for x, lr in jumps]
        marked.sort(key=lambda entry: entry[:2])
        return [(self.to_px_x(x), self.to_px_y(lr)) for x, _, lr in marked]


def nice_step(span: float, most: int) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that divides ``span`` into few parts."""
    if span <= 0.0 or most < 1:
        return 1.0
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * f for f in (1.0, 2.0, 5.0, 10.0) if power * f >= rough * (1 - 1e-9))
