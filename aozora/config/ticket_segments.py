"""The tickets of a run that was resumed with another length or other shares, stretch by stretch."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from aozora.config.ticket_pool import TicketPool


@dataclass(frozen=True)
class TicketSegment:
    """A stretch of a run that draws from one pool.

    Attributes:
        first_sample: Number of the first sample it gives a ticket to.
        total: Samples the pool was made for; a later segment may take over before its end.
        pool: Where the tickets come from.
    """

    first_sample: int
    total: int
    pool: TicketPool


@dataclass(frozen=True)
class SegmentedPool:
    """The tickets of a run whose length or shares were changed when it was resumed.

    Attributes:
        segments: In order of their first samples, the first of which is 0.
    """

    segments: tuple[TicketSegment, ...]

    def __post_init__(self) -> None:
        starts = [segment.first_sample for segment in self.segments]
        if starts[:1] != [0] or any(b <= a for a, b in itertools.pairwise(starts)):
            raise ValueError("ticket segments must start at sample 0 and follow one another")

    @classmethod
    def of(cls, pool: TicketPool, total: int) -> SegmentedPool:
        """Return the tickets of a new run of ``total`` samples."""
        return cls((TicketSegment(0, total, pool),))

    @property
    def total(self) -> int:
        """Samples of the whole run."""
        return self.segments[-1].first_sample + self.segments[-1].total

    def timestep(self, sample: int) -> int:
        """Return the ticket of sample number ``sample``, 0-based over the whole run.

        Raises:
            ValueError: if there is no such sample.
        """
        if not 0 <= sample < self.total:
            raise ValueError(f"sample {sample} is outside a run of {self.total} samples")
        number = bisect_right(self.segments, sample, key=lambda s: s.first_sample) - 1
        segment = self.segments[number]
        place = sample - segment.first_sample
        if place >= segment.total:
            raise ValueError(f"sample {sample} lies in a gap between ticket segments")
        return int(segment.pool.draw_all(segment.total, segment.first_sample)[place])

    def rebuilt(self, drawn: int, total: int, pool: TicketPool) -> SegmentedPool:
        """Return the tickets of the run after it was resumed with other settings.

        What was drawn stays as it was; the rest comes from a pool made for the samples left.
        Nothing changes when the settings are those the run has already.

        Args:
            drawn: Samples drawn so far.
            total: Samples of the whole run as it is now planned.
            pool: The pool as it is now set.

        Raises:
            ValueError: if more was drawn than the run now has.
        """
        if not 0 <= drawn <= total:
            raise ValueError(f"{drawn} samples were drawn of a run that now has {total}")
        if drawn == total or (self.total == total and self.segments[-1].pool == pool):
            return self
        kept = tuple(s for s in self.segments if s.first_sample < drawn)
        return SegmentedPool((*kept, TicketSegment(drawn, total - drawn, pool)))

    def to_json(self) -> list[dict[str, Any]]:
        """Return the segments as plain values."""
        return [
            {"first_sample": s.first_sample, "total": s.total, "pool": s.pool.to_json()}
            for s in self.segments
        ]

    @classmethod
    def from_json(cls, data: list[dict[str, Any]]) -> SegmentedPool:
        """Return the tickets written by `to_json`.

        Raises:
            KeyError: if a part is missing.
            ValueError: if the segments do not follow one another.
        """
        return cls(
            tuple(
                TicketSegment(s["first_sample"], s["total"], TicketPool.from_json(s["pool"]))
                for s in data
            )
        )
