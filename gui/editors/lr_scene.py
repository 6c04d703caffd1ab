"""Everything there is to see on the learning-rate chart, and its words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from aozora.config.lr_schedule import LrSchedule
from gui.editors.lr_axes import LrAxes, nice_step
from gui.editors.lr_edit import Run
from gui.editors.lr_gestures import Shown
from gui.editors.numbers import format_count, format_rate

Units = Literal["steps", "epochs", "percent"]


@dataclass(frozen=True)
class LrScene:
    """A picture of the chart before it is painted.

    Attributes:
        axes: Where everything lies.
        schedule: The curve.
        chosen: The chosen points.
        run: The run it is for.
        units: What the horizontal axis counts.
        hovered: The point under the mouse, or None.
        faulty: Points that something is wrong with.
        ghost: A curve to compare with, dashed.
        applied: Places and rates of steps a run has made.
        gesture: What a running drag shows.
        focused: Whether the chart has the keyboard.
        enabled: Whether it can be edited.
        compact: Whether there is no room for labels.
    """

    axes: LrAxes
    schedule: LrSchedule
    chosen: tuple[int, ...] = ()
    run: Run = field(default_factory=Run)
    units: Units = "steps"
    hovered: int | None = None
    faulty: frozenset[int] = frozenset()
    ghost: LrSchedule | None = None
    applied: tuple[tuple[float, float], ...] = ()
    gesture: Shown | None = None
    focused: bool = False
    enabled: bool = True
    compact: bool = False


def place_labels(run: Run, units: Units, width: float) -> list[tuple[float, str]]:
    """Return the places on the horizontal axis that have a label, and the labels."""
    most = max(int(width // 90), 1)
    if units == "steps" and run.steps > 1:
        every = max(round(nice_step(run.steps, most)), 1)
        # Steps are counted from 1, here as everywhere users read them.
        counted = [1, *range(every if every > 1 else 2, run.steps + 1, every)]
        return [(run.x_of(n - 1), format_count(n)) for n in counted]
    if units == "epochs" and run.steps > 1 and run.steps_per_epoch > 0.0:
        epochs = run.steps / run.steps_per_epoch
        step = nice_step(epochs, most)
        numbers = [number * step for number in range(int(epochs / step + 1e-9) + 1)]
        return [(run.x_of(n * run.steps_per_epoch), f"{n:g}") for n in numbers]
    step = nice_step(100.0, most)
    return [(n * step / 100.0, f"{n * step:g} %") for n in range(int(100.0 / step + 1e-9) + 1)]


def place_text(x: float, run: Run) -> str:
    """Return where ``x`` is: ``2,250 / 10,000 steps``, or a share of the run."""
    if run.steps > 1:
        return f"{format_count(run.step_of(x) + 1)} / {format_count(run.steps)}"
    return f"{x:.1%}"


def spoken_point(schedule: LrSchedule, index: int, run: Run) -> str:
    """Return a point in words, for those who hear the chart."""
    point = schedule.points[index]
    parts = [f"point {index + 1} of {len(schedule.points)}", f"{point.x * 100:.1f} % of run"]
    if run.steps > 1:
        parts.append(f"step {format_count(run.step_of(point.x) + 1)}")
    parts.append(f"learning rate {format_rate(point.lr)}")
    return ", ".join(parts)
