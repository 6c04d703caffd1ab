"""A slower card with a slower link, emulated by the ratio of computing to copying.

That ratio decides how much of the copies hides. What moves for a micro-step does not depend on the
batch: with sums in main memory 10.3 GB each way. A batch of 8 keeps an H200 busy for 0.58 s and its
link for 0.20 s, a ratio of 2.9; an RTX 3060 computes a batch of 1 for 1.55 s and copies for 0.51 s
on PCIe 4.0 x16, a ratio of 3.0. With each copy made twice the ratio is 1.4, for PCIe 3.0 x16 or
4.0 x8 (1.5 at 10 GB/s).

Fewer of the card's processors would leave the batch at 1, but are not to be had: CUDA's green
contexts limit the thread that enters one, and PyTorch computes gradients in threads of its own.
With a kernel that kept all but eight busy, products of matrices fell from 680 to 52 TFLOPS as they
should, but the model's forward stood still until that kernel ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from optimizers import engine
from optimizers.backend import Backend, Event, Queue, backend_for


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
def slower_link(copies: int) -> Iterator[None]:
    """Let engines that are made inside make every copy so many times."""

    def slowed(device: torch.device) -> Backend:
        backend = backend_for(device)
        for name in ("copy_in", "copy_out", "weights_in"):
            setattr(backend, name, _Repeating(getattr(backend, name), copies))
        return backend

    usual, engine.backend_for = engine.backend_for, slowed
    try:
        yield
    finally:
        engine.backend_for = usual
