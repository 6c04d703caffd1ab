"""The tickets of a run that was resumed with another length or other shares, stretch by stretch."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from aozora.config.ticket_pool import TIMESTEPS, TicketPool, Tickets

OnResume = Literal["rebuild", "finish"]


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
        """Samples there are tickets for; a run that was cut short draws fewer."""
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

    def counts(self, bins: int, samples: int) -> tuple[int, ...]:
        """Return how many of the run's first ``samples`` tickets fall into each of ``bins``.

        Raises:
            ValueError: if there are not as many tickets.
        """
        if not 0 <= samples <= self.total:
            raise ValueError(f"{samples} samples are more than the {self.total} there are")
        ends = [segment.first_sample for segment in self.segments[1:]] + [samples]
        parts: list[Tickets] = [
            s.pool.draw_all(s.total, s.first_sample)[: max(0, min(end, samples) - s.first_sample)]
            for s, end in zip(self.segments, ends, strict=True)
        ]
        bars = np.concatenate(parts).astype(np.int64) * bins // TIMESTEPS
        return tuple(np.bincount(bars, minlength=bins).tolist())

    def resumed(
        self, drawn: int, total: int, pool: TicketPool, on_resume: OnResume
    ) -> SegmentedPool:
        """Return the tickets of the run after it was resumed, maybe with other settings.

        What was drawn stays as it was, and nothing changes when the settings are those the run has
        already. So it does not matter how often, or from which of its states, a run is resumed.

        Args:
            drawn: Samples drawn so far.
            total: Samples of the whole run as it is now planned.
            pool: The pool as it is now set.
            on_resume: Where the tickets of the samples left come from when pool or length are
                others: ``rebuild`` makes a pool for just these samples, ``finish`` first draws the
                pool that was begun to its end and makes one for what is left then.

        Raises:
            ValueError: if more was drawn than the run now has.
        """
        if not 0 <= drawn <= total:
            raise ValueError(f"{drawn} samples were drawn of a run that now has {total}")
        if drawn == total:
            return self
        # A pool that was planned to come later, but has not begun, binds nobody.
        begun = tuple(s for s in self.segments if s.first_sample < drawn)
        if not begun:
            return SegmentedPool.of(pool, total)
        end = begun[-1].first_sample + begun[-1].total
        if on_resume == "rebuild":
            is_same = end == total and begun[-1].pool == pool
            start = total if is_same else drawn
        else:
            start = min(end, total)
        rest = (TicketSegment(start, total - start, pool),) if start < total else ()
        return SegmentedPool((*begun, *rest))

    def left_of_begun(self, drawn: int, total: int) -> int:
        """Return how many tickets after ``drawn`` ones come from a pool that was begun before."""
        later = [s.first_sample for s in self.segments if s.first_sample >= drawn]
        return min([total, *later]) - drawn

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
