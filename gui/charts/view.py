"""What part of a run the charts show: pure state, changed by zoom, pan and new data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Place = Literal["step", "seconds", "epoch"]


@dataclass(frozen=True, kw_only=True)
class ChartView:
    """Settings all charts share.

    Attributes:
        place: What the x axis counts.
        window: The shown part of the x axis; None for all of it.
        follow: Whether the window moves along with the newest data.
        smoothing: Weight of the exponential mean of the loss.
        is_log: Whether the loss has a logarithmic axis.
        is_clipped: Whether outliers may lie outside the loss chart.
    """

    place: Place = "step"
    window: tuple[float, float] | None = None
    follow: bool = True
    smoothing: float = 0.98
    is_log: bool = False
    is_clipped: bool = False

    def zoomed(self, start: float, end: float) -> ChartView:
        """Return the view of a chosen part; it stays where it is."""
        if not start < end:
            return self
        return replace(self, window=(start, end), follow=False)

    def whole(self) -> ChartView:
        """Return the view of everything, which follows by itself."""
        return replace(self, window=None, follow=True)

    def following(self, follow: bool) -> ChartView:
        """Return the view that moves along, or stays."""
        return replace(self, follow=follow)

    def along(self, place: Place) -> ChartView:
        """Return the view over another measure; a window has no meaning there."""
        return self if place == self.place else replace(self, place=place, window=None, follow=True)

    def span(self, first: float, last: float) -> tuple[float, float]:
        """Return what to show when the data reaches from ``first`` to ``last``."""
        if last <= first:
            last = first + 1.0
        if self.window is None:
            return first, last
        start, end = self.window
        if self.follow:
            width = end - start
            return max(first, last - width), last
        return start, end
