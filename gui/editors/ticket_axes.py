"""Between places on the ticket chart and bars and weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TicketAxes:
    """Where the plot lies and what it spans.

    Attributes:
        left: Left edge in pixels.
        top: Upper edge.
        width: Width of the plot.
        height: Height of the plot.
        bins: Number of bars.
        highest: Weight at the upper edge.
    """

    left: float
    top: float
    width: float
    height: float
    bins: int
    highest: float

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.top + self.height

    @property
    def right(self) -> float:
        """The right edge."""
        return self.left + self.width

    @property
    def bar_width(self) -> float:
        """The distance of two bars."""
        return self.width / self.bins

    def bar_at(self, px: float) -> int:
        """Return the bar at ``px``, the nearest one outside the plot."""
        return min(max(int((px - self.left) / self.bar_width), 0), self.bins - 1)

    def bar_left(self, index: int) -> float:
        """Return where bar ``index`` begins."""
        return self.left + index * self.bar_width

    def to_py(self, weight: float) -> float:
        """Return where ``weight`` is drawn, at most at the upper edge."""
        return self.bottom - min(max(weight / self.highest, 0.0), 1.0) * self.height

    def to_weight(self, py: float) -> float:
        """Return the weight at ``py``, within the axis."""
        return min(max((self.bottom - py) / self.height, 0.0), 1.0) * self.highest

    def timestep_px(self, timestep: float) -> float:
        """Return where ``timestep`` (0 to 1000) is drawn."""
        return self.left + timestep / 1000.0 * self.width
