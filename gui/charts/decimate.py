"""Fewer points without losing a peak, and smoothing; pure functions on arrays."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def in_view(x: Numbers, start: float, end: float) -> slice:
    """Return which points of the rising ``x`` lie in a view, with one beyond each edge."""
    first = int(np.searchsorted(x, start, side="left")) - 1
    last = int(np.searchsorted(x, end, side="right")) + 1
    return slice(max(0, first), min(len(x), last))


def peaks(x: Numbers, low: Numbers, high: Numbers, columns: int) -> tuple[Numbers, Numbers]:
    """Return a line of at most two points for each of ``columns`` that touches every extreme.

    Args:
        x: Places, never falling.
        low: Smallest value at each place; NaN is a gap.
        high: Largest value at each place.
        columns: Width of the chart in pixels.
    """
    count = len(x)
    if count == 0 or columns < 1:
        return np.empty(0), np.empty(0)
    if count <= columns:
        if np.array_equal(low, high, equal_nan=True):
            return x, low
        return np.repeat(x, 2), np.stack([low, high], axis=1).ravel()
    edges = np.linspace(x[0], x[-1], columns + 1)[:-1]
    starts = np.unique(np.searchsorted(x, edges, side="left"))
    least = np.fmin.reduceat(low, starts)
    most = np.fmax.reduceat(high, starts)
    return np.repeat(x[starts], 2), np.stack([least, most], axis=1).ravel()


def band(x: Numbers, low: Numbers, high: Numbers, columns: int) -> tuple[Numbers, Numbers] | None:
    """Return the outline of the area between the extremes; None where a line is better.

    A line that goes up and down in every pixel costs ten times what the area it fills does. Few
    points, and those with gaps, are a line.
    """
    if len(x) <= 2 * columns or not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None
    edges = np.linspace(x[0], x[-1], max(2, columns // 2) + 1)[:-1]
    starts = np.unique(np.searchsorted(x, edges, side="left"))
    least, most = np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)
    places = np.append(x[starts], x[-1])
    upper, lower = np.append(most, most[-1]), np.append(least, least[-1])
    return np.concatenate([places, places[::-1]]), np.concatenate([upper, lower[::-1]])


def thinned(x: Numbers, y: Numbers, columns: int) -> tuple[Numbers, Numbers]:
    """Return at most about ``columns`` of the points, evenly chosen, with the last one."""
    step = max(1, math.ceil(len(x) / max(1, columns)))
    if step == 1:
        return x, y
    chosen = np.arange(len(x) - 1, -1, -step)[::-1]
    return x[chosen], y[chosen]


def smoothed(values: Numbers, weight: float, stride: int = 1) -> Numbers:
    """Return the exponential mean of ``values``, free of its start's bias; NaN is passed over.

    Args:
        values: What was measured, in order.
        weight: How much of the past stays at each step, in [0, 1).
        stride: How many steps each value stands for.
    """
    if not 0.0 <= weight < 1.0:
        raise ValueError(f"a smoothing weight is in [0, 1), not {weight}")
    if weight == 0.0 or len(values) == 0:
        return values.copy()
    keep = weight**stride
    known = np.isfinite(values)
    top = _faded_sum(np.where(known, values, 0.0), keep)
    bottom = _faded_sum(known.astype(np.float64), keep)
    means: Numbers = np.full(len(values), np.nan)
    np.divide(top, bottom, out=means, where=bottom > 0)
    return means


def _faded_sum(values: Numbers, keep: float) -> Numbers:
    """Return ``s[i] = keep * s[i - 1] + values[i]``, in blocks whose powers stay representable."""
    if keep < 1e-12:
        return values.copy()
    block = max(1, min(len(values), int(500.0 / -math.log(keep))))
    powers = keep ** np.arange(block, dtype=np.float64)
    result = np.empty(len(values))
    carried = 0.0
    for start in range(0, len(values), block):
        part = values[start : start + block]
        scale = powers[: len(part)]
        sums = np.cumsum(part / scale) * scale + carried * keep * scale
        result[start : start + len(part)] = sums
        carried = float(sums[-1])
    return result


def clipped_range(values: Numbers, share: float = 0.01) -> tuple[float, float] | None:
    """Return the range that leaves out ``share`` of the values at each end; None without any."""
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, [share, 1.0 - share])
    return float(low), float(high)


def nearest(x: Numbers, place: float) -> int | None:
    """Return the number of the point of the rising ``x`` that is closest to ``place``."""
    if not len(x):
        return None
    after = int(np.searchsorted(x, place))
    if after == 0:
        return 0
    if after == len(x):
        return after - 1
    return after if x[after] - place < place - x[after - 1] else after - 1
