"""The learning-rate curve: the one evaluator that the chart draws and the trainer applies.

A curve is a row of points. The place ``x`` of optimizer step ``k`` (0-based) in a run of ``N``
steps is ``k / (N - 1)``, so the first step has the first point's rate and the last step the last
point's.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from aozora.config.issue import Issue
from aozora.registry import did_you_mean

Shape = Literal["log", "linear", "cosine", "hold"]
SHAPES: tuple[Shape, ...] = get_args(Shape)

_HIGHEST_USUAL_RATE = 1e-4
_MANY_POINTS = 64
_SAMPLES = 1001


@dataclass(frozen=True)
class LrPoint:
    """A point of the curve.

    Attributes:
        x: Place in the run, 0 (first step) to 1 (last step).
        lr: Learning rate there.
        shape: Shape of the segment to the next point; without meaning for the last point.
    """

    x: float
    lr: float
    shape: Shape = "log"


DEFAULT_POINTS = (
    LrPoint(0.0, 1e-7, "log"),
    LrPoint(0.05, 1e-6, "hold"),
    LrPoint(0.9, 1e-6, "cosine"),
    LrPoint(1.0, 1e-7),
)


@dataclass(frozen=True)
class LrSchedule:
    """A learning-rate curve over a run of any length.

    The editor may hold a curve with faults, so construction does not refuse any; see `validate`.
    """

    points: tuple[LrPoint, ...] = DEFAULT_POINTS

    def at(self, x: float) -> float:
        """Return the rate at place ``x``; before the first and after the last point it is flat.

        Raises:
            ValueError: if the curve has no points.
        """
        if not self.points:
            raise ValueError("the curve has no points")
        after = bisect_right(self.points, x, key=lambda point: point.x)
        if after == 0:
            return self.points[0].lr
        if after == len(self.points):
            return self.points[-1].lr
        return _on_segment(self.points[after - 1], self.points[after], x)

    def at_step(self, step: int, total_steps: int) -> float:
        """Return the rate of optimizer step ``step`` (0-based) in a run of ``total_steps``.

        Raises:
            ValueError: if ``step`` is not in the run.
        """
        if not 0 <= step < total_steps:
            raise ValueError(f"step {step} is outside a run of {total_steps} steps")
        return self.at(step / (total_steps - 1) if total_steps > 1 else 0.0)

    def sample(self, count: int) -> tuple[float, ...]:
        """Return the rates of a run of ``count`` steps."""
        return tuple(self.at_step(step, count) for step in range(count))

    def with_point(
        self, x: float, lr: float | None = None, shape: Shape | None = None
    ) -> LrSchedule:
        """Return the curve with a point at ``x``, replacing one that is there.

        Args:
            x: Place of the point.
            lr: Its rate; None puts it on the line, which keeps log, linear and hold segments as
                they are.
            shape: Shape to the next point; None takes over that of the segment it lands on.
        """
        for index, point in enumerate(self.points):
            if point.x == x:
                rate = point.lr if lr is None else lr
                changed = LrPoint(x, rate, shape or point.shape)
                return LrSchedule((*self.points[:index], changed, *self.points[index + 1 :]))
        others = list(self.points)
        before = bisect_right(others, x, key=lambda point: point.x)
        inherited: Shape = "log"
        if 0 < before < len(others):
            inherited = _applied_shape(others[before - 1], others[before])
            # A log segment with a zero end is applied as linear; its two halves must stay so.
            others[before - 1] = dataclasses.replace(others[before - 1], shape=inherited)
        point = LrPoint(x, self.at(x) if lr is None else lr, shape or inherited)
        return LrSchedule((*others[:before], point, *others[before:]))

    def without(self, index: int) -> LrSchedule:
        """Return the curve without point ``index``.

        Raises:
            ValueError: for the first and the last point, which every curve needs.
        """
        if not 0 < index < len(self.points) - 1:
            raise ValueError("the first and the last point of the curve cannot be removed")
        return LrSchedule(self.points[:index] + self.points[index + 1 :])

    def moved(self, index: int, x: float, lr: float, gap: float = 1e-6) -> LrSchedule:
        """Return the curve with point ``index`` moved as far as it may.

        Args:
            index: The point; the first and the last keep their place.
            x: Place wanted; kept ``gap`` away from both neighbours.
            lr: Rate wanted; kept at or above 0.
            gap: Least distance to a neighbour, such as one step of the run.
        """
        point = self.points[index]
        if 0 < index < len(self.points) - 1:
            low = self.points[index - 1].x + gap
            high = self.points[index + 1].x - gap
            # Neighbours too close to leave a gap on both sides: the point stays where it is.
            x = min(max(x, low), high) if low <= high else point.x
        else:
            x = point.x
        changed = dataclasses.replace(point, x=x, lr=max(lr, 0.0))
        return LrSchedule((*self.points[:index], changed, *self.points[index + 1 :]))

    def validate(
        self,
        total_steps: int | None = None,
        *,
        adam: bool = True,
        exact_weights: bool = True,
        resumed_at: tuple[int, float] | None = None,
    ) -> list[Issue]:
        """Return what is wrong with the curve, doubtful about it or worth knowing.

        Args:
            total_steps: Length of the run, or None when it is not known yet.
            adam: Whether the optimizer divides by a running mean of squared gradients, which is
                unreliable in the first steps.
            exact_weights: Whether weights learn in float32 (masters or split), as they do here.
            resumed_at: The step a run resumes at and the rate it had there before.
        """
        errors = list(self._errors())
        if errors:
            return errors
        rates = self.sample(min(total_steps or _SAMPLES, _SAMPLES))
        return [
            *self._cautions(rates, adam, exact_weights),
            *self._step_cautions(total_steps, resumed_at),
            *self._figures(rates, total_steps),
        ]

    def _errors(self) -> Iterator[Issue]:
        points = self.points
        if len(points) < 2:
            yield Issue("error", "the curve has fewer than two points", None, "add a point")
            return
        for index, point in enumerate(points):
            if not math.isfinite(point.x):
                yield Issue("error", f"point {index + 1} has no place", index, "give 0 to 1")
            if not (math.isfinite(point.lr) and 0.0 <= point.lr <= 1.0):
                text = f"point {index + 1} has the learning rate {point.lr:g}"
                yield Issue("error", text, index, "give a rate from 0 to 1, such as 1e-6")
        if points[0].x != 0.0:
            text = f"the curve starts at {points[0].x:g} instead of 0"
            yield Issue("error", text, 0, "move the first point to 0")
        if points[-1].x != 1.0:
            text = f"the curve ends at {points[-1].x:g} instead of 1"
            yield Issue("error", text, len(points) - 1, "move the last point to 1")
        for index, (point, following) in enumerate(itertools.pairwise(points), start=1):
            if following.x <= point.x:
                text = f"point {index + 1} does not lie after point {index}"
                yield Issue("error", text, index, "move it to the right, or remove one of them")
        if all(point.lr == 0.0 for point in points):
            yield Issue("error", "the learning rate is 0 everywhere", None, "raise a point")

    def _cautions(
        self, rates: tuple[float, ...], adam: bool, exact_weights: bool
    ) -> Iterator[Issue]:
        peak = max(rates)
        highest = max(range(len(self.points)), key=lambda index: self.points[index].lr)
        if peak > _HIGHEST_USUAL_RATE:
            text = f"the peak of {peak:.2e} is high for training the whole UNet"
            yield Issue("warning", text, highest, "1e-6 to 1e-5 is usual")
        if adam and len(rates) > 1 and rates[0] > 0.5 * peak:
            text = "the run starts near its highest rate, before the optimizer knows the gradients"
            yield Issue("warning", text, 0, "start lower and rise over the first 5 %")
        idle = sum(rate == 0.0 for rate in rates) / len(rates)
        if idle > 0.1:
            text = f"nothing is learned in {idle:.0%} of the steps, where the rate is 0"
            yield Issue("warning", text, None, "shorten the run or raise the rate")
        if len(self.points) > _MANY_POINTS:
            text = f"the curve has {len(self.points)} points"
            yield Issue("warning", text, None, f"{_MANY_POINTS} are enough for any shape")
        if not exact_weights and peak < 1e-6:
            text = f"updates at {peak:.2e} are lost when weights are rounded to bfloat16"
            yield Issue("warning", text, highest, "keep float32 masters or raise the rate")

    def _step_cautions(
        self, total_steps: int | None, resumed_at: tuple[int, float] | None
    ) -> Iterator[Issue]:
        if total_steps is None:
            return
        # A short run of a curve made for a long one is fine, only coarser, so this is no error.
        for index, (point, following) in enumerate(itertools.pairwise(self.points), start=1):
            if total_steps > 1 and (following.x - point.x) * (total_steps - 1) < 1.0 - 1e-9:
                text = f"points {index} and {index + 1} are less than one step apart"
                yield Issue("warning", text, index, "move them apart or train for more steps")
        if resumed_at is not None and resumed_at[0] < total_steps:
            now, before = self.at_step(resumed_at[0], total_steps), resumed_at[1]
            if max(now, before) > 2.0 * min(now, before):
                text = f"the rate jumps from {before:.2e} to {now:.2e} where the run resumes"
                yield Issue("warning", text, None, "bring the curve closer to the old one there")

    def _figures(self, rates: tuple[float, ...], total_steps: int | None) -> Iterator[Issue]:
        peak, mean = max(rates), math.fsum(rates) / len(rates)
        yield Issue("info", f"mean learning rate {mean:.2e}")
        if peak > 0.0:
            yield Issue("info", f"learns {mean / peak:.0%} of what a constant peak would")
            yield Issue("info", f"ends at {rates[-1] / peak:.0%} of the peak")
        rise = rates.index(peak) / max(len(rates) - 1, 1)
        in_steps = ""
        if total_steps is not None:
            # Steps are counted from 1 wherever a person reads them.
            in_steps = f" (to step {round(rise * (total_steps - 1)) + 1})"
        yield Issue("info", f"rises over the first {rise:.0%} of the run{in_steps}")

    def to_json(self) -> list[list[Any]]:
        """Return the points as ``[x, lr, shape]``."""
        return [[point.x, point.lr, point.shape] for point in self.points]

    @classmethod
    def from_json(cls, data: Any) -> LrSchedule:
        """Return the curve written by `to_json`; a shape left out is ``"log"``.

        Raises:
            TypeError: if the form is not a list of ``[x, lr]`` or ``[x, lr, shape]``.
            ValueError: if a shape is not known or a number is too large.
        """
        if not isinstance(data, list | tuple):
            raise TypeError("a learning-rate curve is a list of points")
        return cls(tuple(_point(entry, number) for number, entry in enumerate(data, start=1)))


def _applied_shape(start: LrPoint, end: LrPoint) -> Shape:
    """Return the shape of a segment as it is applied: there is no log of 0."""
    return "linear" if start.shape == "log" and 0.0 in (start.lr, end.lr) else start.shape


def _on_segment(start: LrPoint, end: LrPoint, x: float) -> float:
    if start.shape == "hold" or start.lr == end.lr or x == start.x:
        return start.lr
    part = (x - start.x) / (end.x - start.x)
    if start.shape == "cosine":
        rate = end.lr + (start.lr - end.lr) * 0.5 * (1.0 + math.cos(math.pi * part))
    elif _applied_shape(start, end) == "log":
        rate = math.exp(math.log(start.lr) + (math.log(end.lr) - math.log(start.lr)) * part)
    else:
        rate = start.lr + (end.lr - start.lr) * part
    # Rounding may step over an end by one bit.
    return min(max(rate, min(start.lr, end.lr)), max(start.lr, end.lr))


def _point(entry: Any, number: int) -> LrPoint:
    if not isinstance(entry, list | tuple) or len(entry) not in (2, 3):
        raise TypeError(f"point {number} of the curve is not [x, lr] or [x, lr, shape]")
    for value in entry[:2]:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"point {number} of the curve: {value!r} is not a number")
    shape = entry[2] if len(entry) == 3 else "log"
    if shape not in SHAPES:
        guess = did_you_mean(shape, SHAPES) if isinstance(shape, str) else ""
        known = guess or "known are " + ", ".join(SHAPES)
        raise ValueError(f"point {number} of the curve: there is no shape {shape!r}; {known}")
    try:
        return LrPoint(float(entry[0]), float(entry[1]), shape)
    except OverflowError:
        raise ValueError(f"point {number} of the curve: the number is too large") from None
