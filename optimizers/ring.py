"""Device memory that is lent out in turn: given back first, lent again first.

A ring holds everything that passes through the device: records of the optimizer pass, gradients on
their way out. It is allocated once, so nothing that passes through can fragment the memory, and
events alone say when a part of it may be written again.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field

import torch
from torch import Tensor

from optimizers.backend import Event, Queue

_ALIGNMENT = 512


@dataclass
class Lease:
    """A part of a ring.

    Attributes:
        memory: uint8, 1-D.
        start: Its first byte in the ring.
        end: The first byte after it.
        before: Events of whoever had this memory before; to be waited for before it is written.
        released: After it, the memory may be written by others; None while it is lent.
    """

    memory: Tensor
    start: int
    end: int
    before: list[Event] = field(default_factory=list)
    released: Event | None = None

    def wait_on(self, queue: Queue) -> None:
        """Let ``queue`` wait until the memory may be written."""
        for event in self.before:
            queue.wait(event)
        self.before = []

    def give_back(self, released: Event) -> None:
        """Give the memory back; it may be written again after ``released``."""
        self.released = released


@dataclass(frozen=True)
class _Used:
    """Memory that was given back and not lent again since."""

    start: int
    end: int
    released: Event


class Ring:
    """A buffer lent out in parts.

    Args:
        num_bytes: Its size.
        device: Where it is.
    """

    def __init__(self, num_bytes: int, device: torch.device) -> None:
        size = aligned(num_bytes)
        self._buffer = torch.empty(size, dtype=torch.uint8, device=device)
        self._size = size
        self._head = 0
        self._lent: list[Lease] = []
        self._used: list[_Used] = []

    @property
    def num_bytes(self) -> int:
        """Its size."""
        return self._size

    def take(self, num_bytes: int) -> Lease | None:
        """Lend ``num_bytes``, or return None if what is still lent leaves no room.

        Raises:
            ValueError: if the ring is smaller than that.
        """
        size = aligned(num_bytes)
        if size > self._size:
            raise ValueError(f"{size} bytes do not fit a ring of {self._size}")
        self._collect()
        if sum(lease.end - lease.start for lease in self._lent) + size > self._size:
            return None
        start = self._free_place(size)
        if start is None:
            return None
        end = start + size
        lease = Lease(memory=self._buffer[start : start + num_bytes], start=start, end=end)
        lease.before = self._overrun(start, end)
        insort(self._lent, lease, key=lambda other: other.start)
        self._head = end
        return lease

    def _free_place(self, size: int) -> int | None:
        """Return where nothing is lent, at the head or as soon after it as can be."""
        # What is lent for long is passed over: it must not hold up everything behind it.
        first: int | None = None
        previous = 0
        for begin, end in [*((lease.start, lease.end) for lease in self._lent), (self._size,) * 2]:
            if previous <= self._head and self._head + size <= begin:
                return self._head
            if begin - previous >= size:
                if previous >= self._head:
                    return previous
                first = previous if first is None else first
            previous = max(previous, end)
        return first

    def _collect(self) -> None:
        for lease in self._lent:
            if lease.released is not None:
                self._used.append(_Used(lease.start, lease.end, lease.released))
        self._lent = [lease for lease in self._lent if lease.released is None]

    def _overrun(self, start: int, end: int) -> list[Event]:
        """Return who used that part last; what they used beside it stays known."""
        events, kept = [], []
        for used in self._used:
            if used.start >= end or start >= used.end:
                kept.append(used)
                continue
            events.append(used.released)
            if used.start < start:
                kept.append(_Used(used.start, start, used.released))
            if end < used.end:
                kept.append(_Used(end, used.end, used.released))
        self._used = kept
        return events


def least_ring_bytes(bucket: int, chunk: int, *, at_once: bool) -> int:
    """Return the size of the smallest ring that pieces of these sizes can pass through.

    Args:
        bucket: Most bytes of a bucket's gradients on their way.
        chunk: Most bytes of a chunk's record, gradient and weights together.
        at_once: Whether chunks are updated while their bucket's gradients are still lent.
    """
    bucket, chunk = aligned(bucket), aligned(chunk) + 3 * _ALIGNMENT
    # Wherever in the ring the bucket is, one of the two parts beside it must take the chunk.
    return bucket + 2 * chunk if at_once else max(bucket, chunk)


def aligned(num_bytes: int) -> int:
    """Return ``num_bytes`` rounded up to what every part of a ring begins at."""
    return -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
