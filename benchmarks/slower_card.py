"""A slower card with a slower link, emulated: few of the card's processors, copies made twice.

The ratio of computing to copying is what decides how much of the copies hides. Eight processors of
an H200 and half of its link stand for an RTX 3060 on PCIe 3.0 x16, and its whole link for PCIe 4.0
x16 (about 25 TFLOPS beside 12 or 24 GB/s).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from optimizers import engine
from optimizers.backend import CudaBackend, Event, Queue


class _Repeating:
    """A queue on which everything is done several times; for copies, which may be repeated."""

    def __init__(self, queue: Queue, times: int) -> None:
        self._queue = queue
        self._times = times

    def run(self, work: Callable[[], object]) -> None:
        for _ in range(self._times):
            self._queue.run(work)

    def wait(self, event: Event) -> None:
        self._queue.wait(event)

    def record(self) -> Event:
        return self._queue.record()


@contextmanager
def slower_card(processors: int, copies: int) -> Iterator[None]:
    """Let what is made inside use so many multiprocessors, and make every copy so many times.

    Raises:
        RuntimeError: where this torch or driver cannot do so.
    """
    from torch.cuda.green_contexts import GreenContext

    torch.zeros(1, device="cuda")
    context = GreenContext.create(num_sms=processors, device_id=torch.cuda.current_device())

    def slowed(device: torch.device) -> CudaBackend:
        backend = CudaBackend(device)
        for name in ("copy_in", "copy_out", "weights_in"):
            setattr(backend, name, _Repeating(getattr(backend, name), copies))
        return backend

    usual, engine.backend_for = engine.backend_for, slowed
    context.set_context()
    try:
        yield
    finally:
        context.pop_context()
        engine.backend_for = usual
