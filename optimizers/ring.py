"""Device memory that is lent out in order: what is given back first is the first to be lent again.

A ring holds everything that passes through the device: records of the optimizer pass, gradients on
their way out. It is allocated once, so nothing that passes through can fragment the memory, and
events alone say when a part of it may be written again.
"""

from __future__ import annotations

from collections import deque
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
        before: Events of whoever had this memory before; to be waited for before it is written.
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
        self._lent: deque[Lease] = deque()

    @property
    def num_bytes(self) -> int:
        """Its size."""
        return self._size

    def take(self, num_bytes: int) -> Lease | None:
        """Lend ``num_bytes``, or return None while the part that would be next is still lent.

        Raises:
            ValueError: if the ring is smaller than that.
        """
        size = aligned(num_bytes)
        if size > self._size:
            raise ValueError(f"{size} bytes do not fit a ring of {self._size}")
        start = self._head if self._head + size <= self._size else 0
        if not self._can_reuse(start, size):
            return None
        before: list[Event] = []
        skipped_tail = start == 0 and self._head != 0
        while self._lent and self._is_overrun(self._lent[0], start, start + size, skipped_tail):
            old = self._lent.popleft()
            assert old.released is not None
            before.append(old.released)
        memory = self._buffer[start : start + num_bytes]
        lease = Lease(memory=memory, start=start, end=start + size, before=before)
        self._lent.append(lease)
        self._head = start + size
        return lease

    def _is_overrun(self, lease: Lease, start: int, end: int, skipped_tail: bool) -> bool:
        if skipped_tail and lease.start >= self._head:
            return True  # the tail that was too short to be used
        return lease.start < end and start < lease.end

    def _can_reuse(self, start: int, size: int) -> bool:
        skipped_tail = start == 0 and self._head != 0
        for lease in self._lent:
            if not self._is_overrun(lease, start, start + size, skipped_tail):
                return True
            if lease.released is None:
                return False
        return True


def aligned(num_bytes: int) -> int:
    """Return ``num_bytes`` rounded up to what every part of a ring begins at."""
    return -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
