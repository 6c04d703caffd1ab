"""How often each timestep was drawn, and what the loss was there.

Timesteps are counted as they were drawn, before rectified flow shifts them, so that they compare
with the tickets of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

NUM_TIMESTEPS = 1000


class TimestepTally:
    """Counts and losses by timestep; any number of bars can be made of them exactly."""

    def __init__(self) -> None:
        self._counts = np.zeros(NUM_TIMESTEPS, dtype=np.int64)
        self._losses = np.zeros(NUM_TIMESTEPS)
        self._known = np.zeros(NUM_TIMESTEPS, dtype=np.int64)

    @property
    def total(self) -> int:
        """Samples counted."""
        return int(self._counts.sum())

    def add(
        self, tickets: Sequence[int], losses: Sequence[float], *, times: Literal[1, -1] = 1
    ) -> None:
        """Count samples, or take them back; a loss that is no number counts the sample only."""
        for ticket, loss in zip(tickets, losses, strict=False):
            place = min(NUM_TIMESTEPS - 1, max(0, int(ticket)))
            self._counts[place] += times
            if loss == loss and loss not in (float("inf"), float("-inf")):
                self._losses[place] += times * loss
                self._known[place] += times

    def counts(self, bins: int) -> NDArray[np.int64]:
        """Return how many samples fell into each of ``bins`` equal ranges."""
        return np.add.reduceat(self._counts, _starts(bins))

    def mean_losses(self, bins: int) -> NDArray[np.float64]:
        """Return the mean loss in each of ``bins`` equal ranges; NaN where nothing was drawn."""
        sums = np.add.reduceat(self._losses, _starts(bins))
        known = np.add.reduceat(self._known, _starts(bins))
        means: NDArray[np.float64] = np.full(bins, np.nan)
        np.divide(sums, known, out=means, where=known > 0)
        return means


def _starts(bins: int) -> NDArray[np.int64]:
    return (np.arange(bins, dtype=np.int64) * NUM_TIMESTEPS) // bins
