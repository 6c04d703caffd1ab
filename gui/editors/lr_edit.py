"""What can be done to a learning-rate curve by hand, as functions from curve to curve."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from aozora.config.lr_schedule import LrPoint, LrSchedule, Shape
from gui.editors.numbers import significant

HIGHEST_RATE = 1.0
MOST_PASTED = 64


@dataclass(frozen=True)
class Run:
    """What the editor knows of the run the curve is for.

    Attributes:
        steps: Optimizer steps of the run, or 0 when it is not known yet.
        steps_per_epoch: Optimizer steps of one pass over the pictures, or 0 when not known.
        checkpoint_steps: Steps between saves, or 0.
        trained: Place up to which the run was trained already and the curve is locked, or None.
    """

    steps: int = 0
    steps_per_epoch: float = 0.0
    checkpoint_steps: int = 0
    trained: float | None = None

    @property
    def gap(self) -> float:
        """The least distance of two points: one step."""
        return 1.0 / (self.steps - 1) if self.steps > 2 else 1e-6

    def step_of(self, x: float) -> float:
        """Return the 0-based step at place ``x``, between steps as a fraction."""
        return x * max(self.steps - 1, 0)

    def x_of(self, step: float) -> float:
        """Return the place of 0-based ``step``."""
        return min(max(step / (self.steps - 1), 0.0), 1.0) if self.steps > 1 else 0.0

    def epoch_places(self) -> list[float]:
        """Return where epochs end."""
        if self.steps_per_epoch <= 0.0 or self.steps < 2:
            return []
        count = int(self.steps / self.steps_per_epoch)
        return [self.x_of(number * self.steps_per_epoch) for number in range(1, count + 1)]

    def checkpoint_places(self) -> list[float]:
        """Return where the run is saved; few enough to be drawn."""
        if self.checkpoint_steps <= 0 or self.steps // self.checkpoint_steps > 400:
            return []
        count = self.steps // self.checkpoint_steps
        return [self.x_of(number * self.checkpoint_steps - 1) for number in range(1, count + 1)]

    def is_locked(self, x: float) -> bool:
        """Return whether place ``x`` was trained already."""
        return self.trained is not None and x <= self.trained


def movable(schedule: LrSchedule, chosen: Collection[int], run: Run) -> tuple[int, ...]:
    """Return those of ``chosen`` that exist and were not trained yet, in order."""
    points = schedule.points
    return tuple(
        i for i in sorted(chosen) if 0 <= i < len(points) and not run.is_locked(points[i].x)
    )


def moved_together(
    schedule: LrSchedule, chosen: Collection[int], grabbed: int, x: float, lr: float, run: Run
) -> LrSchedule:
    """Return the curve with ``chosen`` moved so that ``grabbed`` comes to ``x`` and ``lr``.

    All move by the same distance, as far as the points between them allow, and their rates keep
    their ratio. Rates of 0 have no ratio: they follow only when the grabbed one is 0 too.
    """
    chosen = movable(schedule, chosen, run)
    points = list(schedule.points)
    if grabbed not in chosen:
        return schedule
    shift = _possible_shift(points, chosen, x - points[grabbed].x, run)
    old = points[grabbed].lr
    lr = min(max(lr, 0.0), HIGHEST_RATE)
    for index in chosen:
        point = points[index]
        place = point.x if index in (0, len(points) - 1) else point.x + shift
        rate = _carried_rate(point.lr, old, lr) if index != grabbed else lr
        points[index] = dataclasses.replace(point, x=place, lr=rate)
    return LrSchedule(tuple(points))


def _carried_rate(rate: float, old: float, new: float) -> float:
    if old > 0.0:
        return min(rate * (new / old), HIGHEST_RATE)
    return new if rate == 0.0 else rate


def _possible_shift(
    points: Sequence[LrPoint], chosen: Sequence[int], wanted: float, run: Run
) -> float:
    """Return the part of ``wanted`` that keeps every point a step away from its neighbours."""
    low, high = -math.inf, math.inf
    moving = set(chosen) - {0, len(points) - 1}
    for index in moving:
        if index - 1 not in moving:
            edge = points[index - 1].x
            if run.trained is not None:
                edge = max(edge, run.trained)
            low = max(low, edge + run.gap - points[index].x)
        if index + 1 not in moving:
            high = min(high, points[index + 1].x - run.gap - points[index].x)
    if not moving or low > high:
        return 0.0
    return min(max(wanted, low), high)


def nudged(
    schedule: LrSchedule, chosen: Collection[int], shift: float, factor: float, run: Run
) -> LrSchedule:
    """Return the curve with ``chosen`` moved by ``shift`` and their rates times ``factor``."""
    chosen = movable(schedule, chosen, run)
    if not chosen:
        return schedule
    # The set is led by a point that can go sideways, where there is one.
    inner = [i for i in chosen if 0 < i < len(schedule.points) - 1]
    lead = (inner or list(chosen))[0]
    point = schedule.points[lead]
    lr = point.lr * factor
    if point.lr > 0.0 and factor != 1.0:
        lr = significant(lr, 4)
    return moved_together(schedule, chosen, lead, point.x + shift, lr, run)


def scaled(schedule: LrSchedule, factor: float, run: Run) -> LrSchedule:
    """Return the curve with every rate that is not trained yet times ``factor``."""
    points = tuple(
        p
        if run.is_locked(p.x)
        else dataclasses.replace(p, lr=min(significant(p.lr * factor, 4), HIGHEST_RATE))
        for p in schedule.points
    )
    return LrSchedule(points)


def deleted(schedule: LrSchedule, chosen: Collection[int], run: Run) -> LrSchedule:
    """Return the curve without ``chosen``; the first and the last point stay."""
    last = len(schedule.points) - 1
    gone = {i for i in movable(schedule, chosen, run) if 0 < i < last}
    return LrSchedule(tuple(p for i, p in enumerate(schedule.points) if i not in gone))


def inserted(
    schedule: LrSchedule, x: float, lr: float | None, run: Run
) -> tuple[LrSchedule, int] | None:
    """Return the curve with a point at ``x`` and its number; None where there is no room for one.

    Without ``lr`` the point lies on the line.
    """
    if run.is_locked(x) or any(abs(p.x - x) < run.gap * (1 - 1e-9) for p in schedule.points):
        return None
    if lr is not None:
        lr = min(max(lr, 0.0), HIGHEST_RATE)
    changed = schedule.with_point(x, lr)
    return changed, next(i for i, p in enumerate(changed.points) if p.x == x)


def inserted_in_widest_gap(schedule: LrSchedule, run: Run) -> tuple[LrSchedule, int] | None:
    """Return the curve with a point in the middle of its widest gap, and the point's number."""
    starts = [
        (max(a.x, run.trained or 0.0), b.x)
        for a, b in itertools.pairwise(schedule.points)
        if not run.is_locked(b.x)
    ]
    if not starts:
        return None
    low, high = max(starts, key=lambda gap: gap[1] - gap[0])
    return inserted(schedule, round((low + high) / 2, 6), None, run)


def with_shape(schedule: LrSchedule, chosen: Collection[int], shape: Shape, run: Run) -> LrSchedule:
    """Return the curve with the segments after ``chosen`` of another shape."""
    wanted = set(movable(schedule, chosen, run))
    return LrSchedule(
        tuple(
            dataclasses.replace(p, shape=shape) if i in wanted else p
            for i, p in enumerate(schedule.points)
        )
    )


def to_text(schedule: LrSchedule) -> str:
    """Return the curve as text for the clipboard."""
    return json.dumps({"learning_rate": schedule.to_json()})


def from_text(text: str) -> tuple[LrSchedule, int]:
    """Return the curve in ``text`` and how many points it had before it was thinned out.

    Raises:
        ValueError: if the text holds no curve, or one with faults.
    """
    try:
        data = json.loads(text)
        if isinstance(data, dict):
            data = data.get("learning_rate", data.get("points"))
        schedule = LrSchedule.from_json(data)
    except (json.JSONDecodeError, TypeError, RecursionError):
        raise ValueError("the clipboard holds no learning-rate curve") from None
    for issue in schedule.validate():
        if issue.severity == "error":
            raise ValueError(f"the curve in the clipboard cannot be used: {issue.text}")
    count = len(schedule.points)
    return (thinned(schedule, MOST_PASTED) if count > MOST_PASTED else schedule), count


def thinned(schedule: LrSchedule, most: int) -> LrSchedule:
    """Return a curve of at most ``most`` points that stays as close to ``schedule`` as it can.

    Points are taken over one by one, always the one the curve so far misses by most, in decades.
    """
    points = schedule.points
    smallest = min((p.lr for p in points if p.lr > 0.0), default=1.0)

    def height(lr: float) -> float:
        return math.log10(max(lr, smallest / 10.0))

    kept = [0, len(points) - 1]
    misses = {(0, len(points) - 1): _worst(schedule, 0, len(points) - 1, height)}
    while len(kept) < most:
        span = max(misses, key=lambda key: misses[key][0])
        worst, index = misses.pop(span)
        if worst <= 1e-12:
            break
        kept.append(index)
        for part in ((span[0], index), (index, span[1])):
            misses[part] = _worst(schedule, *part, height)
    return LrSchedule(tuple(points[i] for i in sorted(kept)))


def _worst(schedule: LrSchedule, start: int, stop: int, height: object) -> tuple[float, int]:
    assert callable(height)
    shortened = LrSchedule((schedule.points[start], schedule.points[stop]))
    found = (0.0, start)
    for index in range(start + 1, stop):
        point = schedule.points[index]
        miss = abs(height(point.lr) - height(shortened.at(point.x)))
        # Shapes other than the log line bend between points, so each kept point counts.
        found = max(found, (miss, index))
    return found
