"""What of a learning-rate chart lies under the mouse; free of Qt."""

from __future__ import annotations

from collections.abc import Collection

from aozora.config.lr_schedule import LrSchedule
from gui.editors.lr_axes import LrAxes

_HANDLE_PX = 14.0
_LINE_PX = 7.0


def point_at(
    axes: LrAxes, schedule: LrSchedule, chosen: Collection[int], px: float, py: float
) -> int | None:
    """Return the point whose handle is at a place in pixels; of several the nearest."""
    best, nearest = _HANDLE_PX, None
    for index, point in enumerate(schedule.points):
        distance = max(abs(axes.to_px_x(point.x) - px), abs(axes.to_px_y(point.lr) - py))
        # Of two handles at the same distance the chosen one stays within reach.
        if distance < best or (distance == best and index in chosen):
            best, nearest = distance, index
    return nearest


def is_in_plot(axes: LrAxes, px: float, py: float) -> bool:
    """Return whether a place in pixels is in the plot."""
    return axes.left <= px <= axes.right and axes.top <= py <= axes.bottom


def is_on_line(axes: LrAxes, schedule: LrSchedule, px: float, py: float) -> bool:
    """Return whether a place in pixels is on the curve, steep parts included."""
    if not is_in_plot(axes, px, py) or not schedule.points:
        return False
    heights = [axes.to_px_y(schedule.at(axes.to_x(px + dx))) for dx in (-3.0, 0.0, 3.0)]
    return min(heights) - _LINE_PX <= py <= max(heights) + _LINE_PX
