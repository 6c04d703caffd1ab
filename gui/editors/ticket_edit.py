"""What can be done to the bars of a ticket pool by hand, as functions from bars to bars.

Only the bars that are touched change: weights are relative, and how many tickets each bar gets
follows from all of them. So nothing has to be lowered before something can be raised.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

Weights = tuple[float, ...]

HIGHEST_PAINTED = 8.0
_PULL = 0.03


def tidy(value: float) -> float:
    """Return a painted weight: two decimals, within 0 to 8, resting at 0 and at 1."""
    if not math.isfinite(value):
        return 0.0
    value = min(max(value, 0.0), HIGHEST_PAINTED)
    for rest in (0.0, 1.0):
        if abs(value - rest) <= _PULL:
            return rest
    return round(value, 2)


def with_values(
    weights: Sequence[float], values: dict[int, float], locked: Collection[int] = ()
) -> Weights:
    """Return the bars with ``values`` at their places, locked ones excepted."""
    return tuple(
        values[i] if i in values and i not in locked else weight for i, weight in enumerate(weights)
    )


def stroked(
    weights: Sequence[float],
    start: tuple[int, float],
    stop: tuple[int, float],
    locked: Collection[int] = (),
) -> Weights:
    """Return the bars after a stroke from one bar and height to another, none skipped."""
    (first, low), (last, high) = start, stop
    count = abs(last - first)
    values = {}
    for number in range(count + 1):
        part = number / count if count else 1.0
        bar = first + (number if last >= first else -number)
        # Exact at both ends, so that a stroke ends at the height of the mouse.
        values[bar] = tidy(low * (1.0 - part) + high * part)
    return with_values(weights, values, locked)


def smoothed(
    weights: Sequence[float], bars: Collection[int], locked: Collection[int] = ()
) -> Weights:
    """Return the bars with each of ``bars`` replaced by the mean of it and its neighbours."""
    values = {}
    for index in bars:
        near = weights[max(index - 1, 0) : index + 2]
        values[index] = round(math.fsum(near) / len(near), 4)
    return with_values(weights, values, locked)


def scaled(
    weights: Sequence[float], factor: float, bars: Collection[int], locked: Collection[int] = ()
) -> Weights:
    """Return the bars with ``bars`` times ``factor``."""
    values = {i: round(min(weights[i] * factor, _ceiling(weights)), 4) for i in bars}
    return with_values(weights, values, locked)


def nudged(
    weights: Sequence[float], change: float, bars: Collection[int], locked: Collection[int] = ()
) -> Weights:
    """Return the bars with ``change`` added to each of ``bars``."""
    top = _ceiling(weights)
    values = {i: round(min(max(weights[i] + change, 0.0), top), 4) for i in bars}
    return with_values(weights, values, locked)


def _ceiling(weights: Sequence[float]) -> float:
    """Return how high bars go: what was loaded higher than can be painted may stay there."""
    return max(HIGHEST_PAINTED, *weights)


def mirrored(weights: Sequence[float], locked: Collection[int] = ()) -> Weights:
    """Return the bars with fine detail and composition exchanged."""
    turned = tuple(reversed(weights))
    return with_values(weights, dict(enumerate(turned)), locked)


def normalised(weights: Sequence[float]) -> Weights:
    """Return the bars with a mean of 1, which gives the same tickets."""
    mean = math.fsum(weights) / len(weights)
    return tuple(round(w / mean, 9) for w in weights) if mean > 0.0 else tuple(weights)


def axis_top(weights: Sequence[float]) -> float:
    """Return the upper end of the axis: 4, 8, or enough for bars from elsewhere."""
    finite = [w for w in weights if math.isfinite(w)]
    highest = max(finite, default=0.0)
    if highest <= 4.0:
        return 4.0
    return 8.0 if highest <= 8.0 else 2.0 ** math.ceil(math.log2(highest))
