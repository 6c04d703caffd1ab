"""The learning rates that were drawn for a run, part by part when it was resumed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aozora.config.lr_schedule import LrSchedule
from gui.charts.decimate import Numbers


@dataclass(frozen=True)
class PlannedPart:
    """A curve and the stretch of the run it was in force for.

    Attributes:
        start_step: Steps done before it began.
        total_steps: Steps of the whole run as it was planned then, which the curve spans.
        schedule: The curve; None when it is not known any more.
    """

    start_step: int
    total_steps: int
    schedule: LrSchedule | None


@dataclass(frozen=True)
class PlannedRates:
    """The curve of each part of a run, in force until the next part begins.

    Attributes:
        parts: At least one, in order of their first steps.
    """

    parts: tuple[PlannedPart, ...]

    @property
    def end(self) -> int:
        """The last step that is planned."""
        return self.parts[-1].total_steps

    def at(self, steps: Numbers) -> Numbers:
        """Return the rate of each of ``steps``, counted from 1; NaN where it is not known."""
        return np.array([self._rate(int(step)) for step in steps], dtype=np.float64)

    def steps(self, first: int, last: int, most: int) -> Numbers:
        """Return about ``most`` steps from ``first`` to ``last`` to draw the curves at.

        The last step of a part and the first of the next are among them, so that a change shows
        where it is.
        """
        even = np.round(np.linspace(first, last, min(most, last - first + 1)))
        edges = [step for part in self.parts for step in (part.start_step, part.start_step + 1)]
        inside = [step for step in edges if first <= step <= last]
        return np.unique(np.concatenate([even, np.array(inside, dtype=np.float64)]))

    def _rate(self, step: int) -> float:
        begun = [part for part in self.parts if part.start_step < step]
        part = begun[-1] if begun else self.parts[0]
        if part.schedule is None or not 1 <= step <= part.total_steps:
            return float("nan")
        return part.schedule.at_step(step - 1, part.total_steps)
