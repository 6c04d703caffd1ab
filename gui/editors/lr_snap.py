"""Where a dragged point likes to rest: round rates, percents, epochs, the rates of others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aozora.config.lr_schedule import LrSchedule
from gui.editors.lr_axes import LrAxes
from gui.editors.lr_edit import Run
from gui.editors.numbers import significant

_PULL_PX = 6.0


@dataclass(frozen=True)
class Snapped:
    """A place and a rate, and what they were pulled to.

    Attributes:
        x: Place in the run.
        lr: Learning rate.
        guide_x: Place of the guide line to draw, or None.
        guide_lr: Rate of the guide line to draw, or None.
    """

    x: float
    lr: float
    guide_x: float | None = None
    guide_lr: float | None = None


def snapped(
    x: float, lr: float, axes: LrAxes, run: Run, schedule: LrSchedule, moving: Iterable[int]
) -> Snapped:
    """Return where a point dragged to ``x`` and ``lr`` comes to rest."""
    place, guide_x = _snapped_place(x, axes, run)
    fixed = set(moving)
    others = [p.lr for i, p in enumerate(schedule.points) if i not in fixed and p.lr > 0.0]
    py = axes.to_px_y(lr)
    near = [rate for rate in others if abs(axes.to_px_y(rate) - py) <= _PULL_PX]
    if near and lr > 0.0:
        rate = min(near, key=lambda r: abs(axes.to_px_y(r) - py))
        return Snapped(place, rate, guide_x, rate)
    return Snapped(place, significant(lr), guide_x)


def _snapped_place(x: float, axes: LrAxes, run: Run) -> tuple[float, float | None]:
    epochs = [e for e in run.epoch_places() if abs(e - x) * axes.width <= _PULL_PX]
    if epochs:
        nearest = min(epochs, key=lambda e: abs(e - x))
        return nearest, nearest
    percent = round(x, 2)
    # On a wide plot a percent is far apart; between percents the point moves freely.
    if abs(percent - x) * axes.width <= _PULL_PX:
        return percent, None
    return round(x, 4), None
