"""A growing table of numbers whose memory is bounded, whatever the length of the run.

Up to its capacity a table keeps every row. Then neighbouring rows are joined two by two, each row
keeping minimum, maximum and mean of what it stands for, and so on: peaks never vanish.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

_PENDING_ROWS = 256


class Table:
    """Rows of places (such as step and time, never falling) and values.

    Args:
        places: Names of the columns that say where a row is.
        values: Names of the columns with what was measured there; NaN is a gap.
        capacity: Rows kept; even.
    """

    def __init__(
        self, places: Sequence[str], values: Sequence[str], *, capacity: int = 65_536
    ) -> None:
        if capacity < 2 or capacity % 2:
            raise ValueError("the capacity of a table is an even number of rows")
        self._places = {name: number for number, name in enumerate(places)}
        self._values = {name: number for number, name in enumerate(values)}
        self._capacity = capacity
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        first = 64
        self._where: Numbers = np.empty((first, len(self._places)))
        self._low = np.empty((first, len(self._values)), dtype=np.float32)
        self._high = np.empty_like(self._low)
        self._mean = np.empty_like(self._low)
        self._count = 0
        self._stride = 1
        # Appended rows the last kept row stands for; 0 when it has as many as the stride.
        self._partial = 0
        self._pending: list[tuple[float, ...]] = []
        self._version = 0

    @property
    def stride(self) -> int:
        """How many appended rows a kept row stands for."""
        self._settle(all_of_it=True)
        return self._stride

    @property
    def version(self) -> int:
        """A number that changes with the content."""
        return self._version

    def __len__(self) -> int:
        """Return the number of kept rows."""
        self._settle(all_of_it=True)
        return self._count

    def append(self, places: Sequence[float], values: Sequence[float]) -> None:
        """Add one row."""
        self._pending.append((*places, *values))
        self._version += 1
        if len(self._pending) >= max(_PENDING_ROWS, 2 * self._stride):
            self._settle(all_of_it=False)

    def place(self, name: str) -> Numbers:
        """Return where each kept row begins, in the measure called ``name``."""
        self._settle(all_of_it=True)
        return self._where[: self._count, self._places[name]]

    def low(self, name: str) -> Numbers:
        """Return the smallest value of each kept row."""
        return self._column(self._low, name)

    def high(self, name: str) -> Numbers:
        """Return the largest value of each kept row."""
        return self._column(self._high, name)

    def mean(self, name: str) -> Numbers:
        """Return the mean value of each kept row."""
        return self._column(self._mean, name)

    def cut(self, name: str, end: float) -> None:
        """Forget the rows at ``end`` and beyond, as when a run goes back to an earlier state."""
        self._settle(all_of_it=True)
        # The last row may stand for fewer rows than the others; what comes now begins a new one.
        self._partial = 0
        kept = np.searchsorted(self._where[: self._count, self._places[name]], end, side="left")
        self._count = int(kept)
        self._version += 1

    def num_bytes(self) -> int:
        """Return the memory it takes."""
        return sum(a.nbytes for a in (self._where, self._low, self._high, self._mean))

    def _column(self, array: NDArray[np.float32], name: str) -> Numbers:
        self._settle(all_of_it=True)
        column: Numbers = array[: self._count, self._values[name]].astype(np.float64)
        return column

    def _settle(self, *, all_of_it: bool) -> None:
        """Move pending rows into the arrays; with ``all_of_it`` the odd ones too, for reading."""
        if not self._pending or (not all_of_it and len(self._pending) < self._stride):
            return
        rows = np.asarray(self._pending, dtype=np.float64)
        self._pending.clear()
        where, values = rows[:, : len(self._places)], rows[:, len(self._places) :]
        start = 0
        if self._partial:
            start = min(self._stride - self._partial, len(rows))
            self._join_last(values[:start])
        while start < len(rows):
            full = (len(rows) - start) // self._stride
            if full == 0:
                self._add(where[start : start + 1], values[start:], 1, len(rows) - start)
                self._partial = len(rows) - start
                break
            room = self._capacity - self._count
            if room == 0:
                self._halve()
                continue
            taken = min(full, room)
            end = start + taken * self._stride
            self._add(where[start : end : self._stride], values[start:end], taken, self._stride)
            start = end

    def _join_last(self, values: Numbers) -> None:
        if not len(values):
            return
        last, before = self._count - 1, self._partial
        low, high, mean = _reduced(values, 1, len(values))
        self._low[last] = np.fmin(self._low[last], low[0])
        self._high[last] = np.fmax(self._high[last], high[0])
        self._mean[last] = _weighted(self._mean[last], before, mean[0], len(values))
        self._partial = (self._partial + len(values)) % self._stride

    def _add(self, where: Numbers, values: Numbers, count: int, stride: int) -> None:
        self._grow(self._count + count)
        low, high, mean = _reduced(values, count, stride)
        place = slice(self._count, self._count + count)
        self._where[place], self._low[place] = where, low
        self._high[place], self._mean[place] = high, mean
        self._count += count

    def _grow(self, count: int) -> None:
        if count > self._capacity:
            self._halve()
            count = self._count + 1
        size = len(self._where)
        if count <= size:
            return
        new = min(self._capacity, max(count, 2 * size))
        self._where, self._low, self._high, self._mean = (
            np.concatenate([array, np.empty((new - size, array.shape[1]), array.dtype)])
            for array in (self._where, self._low, self._high, self._mean)
        )

    def _halve(self) -> None:
        """Join rows two by two; called when the table is full, and its capacity is even."""
        half, end = self._count // 2, self._count
        self._where[:half] = self._where[:end:2]
        self._mean[:half] = _weighted(self._mean[:end:2], 1, self._mean[1:end:2], 1)
        self._low[:half] = np.fmin(self._low[:end:2], self._low[1:end:2])
        self._high[:half] = np.fmax(self._high[:end:2], self._high[1:end:2])
        self._count = half
        self._stride *= 2


def _reduced(values: Numbers, count: int, stride: int) -> tuple[Numbers, Numbers, Numbers]:
    """Return minimum, maximum and mean of each ``stride`` rows; NaN where all are."""
    groups = values.reshape(count, stride, values.shape[1])
    if stride == 1:
        return groups[:, 0], groups[:, 0], groups[:, 0]
    known = np.isfinite(groups)
    number = known.sum(axis=1)
    total = np.where(known, groups, 0.0).sum(axis=1)
    mean = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    return np.fmin.reduce(groups, axis=1), np.fmax.reduce(groups, axis=1), mean


def _weighted(
    first: NDArray[np.floating], first_count: int, second: NDArray[np.floating], second_count: int
) -> NDArray[np.float64]:
    """Return the mean of two means; where one is NaN, the other."""
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    both = (one * first_count + two * second_count) / (first_count + second_count)
    return np.where(np.isnan(one), two, np.where(np.isnan(two), one, both))
