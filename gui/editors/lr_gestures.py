"""What a running drag on the learning-rate chart comes to; free of Qt, one class a gesture.

Each gesture remembers how everything was at the press, so that every move is computed anew from
there and Escape only has to forget it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from aozora.config.lr_schedule import LrSchedule
from gui.editors.lr_axes import LrAxes
from gui.editors.lr_edit import Run, deleted, movable, moved_together, scaled
from gui.editors.lr_snap import Snapped, snapped

OFF_PLOT_PX = 60.0


@dataclass(frozen=True)
class Modifiers:
    """The keys held while the mouse moves."""

    shift: bool = False
    alt: bool = False
    ctrl: bool = False


@dataclass(frozen=True)
class Shown:
    """What the chart shows in the middle of a gesture.

    Attributes:
        schedule: The curve as it would be after a release here.
        chosen: The chosen points of that curve.
        snap: What the grabbed point was pulled to, for guide lines.
        factor: Factor of the whole curve, when that is scaled.
        band: Corners of the selecting rectangle in pixels, as (left, top, right, bottom).
        removing: Whether a release removes the chosen points.
    """

    schedule: LrSchedule
    chosen: tuple[int, ...]
    snap: Snapped | None = None
    factor: float | None = None
    band: tuple[float, float, float, float] | None = None
    removing: bool = False


class Gesture(Protocol):
    """A drag that runs."""

    def at(self, px: float, py: float, keys: Modifiers) -> Shown:
        """Return what is shown with the mouse at a place in pixels."""


@dataclass(frozen=True)
class PointDrag:
    """Points follow the mouse.

    Attributes:
        start: The curve at the press.
        chosen: The points that move.
        grabbed: The one under the mouse.
        press: Where the mouse was pressed, in pixels.
        axes: The axes, which stay as they are during a drag.
        run: The run the curve is for.
    """

    start: LrSchedule
    chosen: tuple[int, ...]
    grabbed: int
    press: tuple[float, float]
    axes: LrAxes
    run: Run

    def at(self, px: float, py: float, keys: Modifiers) -> Shown:
        """Return the curve with the points at the mouse."""
        axes, point = self.axes, self.start.points[self.grabbed]
        dx, dy = px - self.press[0], py - self.press[1]
        if keys.shift:
            dx, dy = (dx, 0.0) if abs(dx) >= abs(dy) else (0.0, dy)
        if self._is_off(px, py) and self._removable():
            left = deleted(self.start, self._removable(), self.run)
            return Shown(left, (), removing=True)
        x = point.x if dx == 0.0 else axes.to_x(axes.to_px_x(point.x) + dx)
        lr = point.lr if dy == 0.0 else axes.to_lr(axes.to_px_y(point.lr) + dy)
        snap = Snapped(x, lr)
        if not keys.alt:
            near = snapped(x, lr, axes, self.run, self.start, self.chosen)
            # A direction that does not move does not snap either.
            snap = Snapped(
                near.x if dx else x,
                near.lr if dy else lr,
                near.guide_x if dx else None,
                near.guide_lr if dy else None,
            )
        curve = moved_together(self.start, self.chosen, self.grabbed, snap.x, snap.lr, self.run)
        return Shown(curve, self.chosen, snap)

    def _is_off(self, px: float, py: float) -> bool:
        axes = self.axes
        return (
            px < axes.left - OFF_PLOT_PX
            or px > axes.right + OFF_PLOT_PX
            or py < axes.top - OFF_PLOT_PX
            or py > axes.bottom + OFF_PLOT_PX
        )

    def _removable(self) -> tuple[int, ...]:
        last = len(self.start.points) - 1
        return tuple(i for i in movable(self.start, self.chosen, self.run) if 0 < i < last)


@dataclass(frozen=True)
class CurveScale:
    """The whole curve goes up or down by one factor."""

    start: LrSchedule
    chosen: tuple[int, ...]
    press: tuple[float, float]
    axes: LrAxes
    run: Run

    def at(self, px: float, py: float, keys: Modifiers) -> Shown:
        """Return the curve times the factor the mouse has gone up by."""
        axes = self.axes
        decades = (axes.decades.high - axes.decades.low) / (axes.lane_top - axes.top)
        factor = 10.0 ** ((self.press[1] - py) * decades)
        factor = float(f"{factor:.2g}") if not keys.alt else factor
        return Shown(scaled(self.start, factor, self.run), self.chosen, factor=factor)


@dataclass(frozen=True)
class RubberBand:
    """A rectangle chooses points.

    Attributes:
        start: The curve.
        before: Points that stay chosen, with Shift.
        press: Where the mouse was pressed, in pixels.
        axes: The axes.
    """

    start: LrSchedule
    before: tuple[int, ...]
    press: tuple[float, float]
    axes: LrAxes

    def at(self, px: float, py: float, keys: Modifiers) -> Shown:
        """Return the points within the rectangle chosen."""
        left, right = sorted((self.press[0], px))
        top, bottom = sorted((self.press[1], py))
        inside = {
            index
            for index, point in enumerate(self.start.points)
            if left <= self.axes.to_px_x(point.x) <= right
            and top <= self.axes.to_px_y(point.lr) <= bottom
        }
        chosen = tuple(sorted(inside | set(self.before)))
        return Shown(self.start, chosen, band=(left, top, right, bottom))
