"""Queues of work on a device, and the events that order them.

The memory engine never waits for the device: it puts work on five queues and orders it with events
alone. The same loop then runs on a GPU (five streams), on a CPU (work is done at once) and, in the
tests, on queues that do their work in any order the events allow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch


class Event(Protocol):
    """A point in a queue that others can wait for."""

    def synchronize(self) -> None:
        """Let the host wait until the queue has come to this point."""
        ...


class Queue(Protocol):
    """Work that is done in the order in which it was put here."""

    def run(self, work: Callable[[], object]) -> None:
        """Do ``work`` after everything that was put here before."""
        ...

    def wait(self, event: Event) -> None:
        """Let everything put here from now on wait for ``event``."""
        ...

    def record(self) -> Event:
        """Return an event for everything that was put here so far."""
        ...


class Backend(Protocol):
    """The queues of one device.

    Attributes:
        compute: Where the model's forward and backward run.
        update: Where weights are updated; may overlap ``compute``.
        copy_in: Copies from host memory to the device.
        copy_out: Copies from the device to host memory.
        weights_in: Copies of streamed weights to the device, which must not wait for ``copy_in``.
        device: The device.
    """

    compute: Queue
    update: Queue
    copy_in: Queue
    copy_out: Queue
    weights_in: Queue
    device: torch.device

    def synchronize(self) -> None:
        """Let the host wait until all queues are empty."""
        ...


class _Done:
    def synchronize(self) -> None:
        pass


class _ImmediateQueue:
    def run(self, work: Callable[[], object]) -> None:
        work()

    def wait(self, event: Event) -> None:
        pass

    def record(self) -> Event:
        return _Done()


class ImmediateBackend:
    """Does all work at once, in the caller's thread: for the CPU."""

    def __init__(self, device: torch.device) -> None:
        queue = _ImmediateQueue()
        self.compute: Queue = queue
        self.update: Queue = queue
        self.copy_in: Queue = queue
        self.copy_out: Queue = queue
        self.weights_in: Queue = queue
        self.device = device

    def synchronize(self) -> None:
        """Return at once: nothing is ever left to do."""


class _CudaEvent:
    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.raw = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.raw.record(stream)

    def synchronize(self) -> None:
        self.raw.synchronize()


class _CudaQueue:
    def __init__(self, stream: torch.cuda.Stream, index: int) -> None:
        self._stream = stream
        self._index = index

    def run(self, work: Callable[[], object]) -> None:
        # What torch.cuda.stream() does, without its checks: this is done hundreds of times a step.
        before = torch.cuda.current_stream(self._index)
        torch.cuda.set_stream(self._stream)
        try:
            work()
        finally:
            torch.cuda.set_stream(before)

    def wait(self, event: Event) -> None:
        assert isinstance(event, _CudaEvent)
        event.raw.wait(self._stream)

    def record(self) -> Event:
        return _CudaEvent(self._stream)


class _CurrentStreamQueue:
    """The stream the model runs on: whichever is current in the calling thread."""

    def __init__(self, index: int) -> None:
        self._index = index

    def run(self, work: Callable[[], object]) -> None:
        work()

    def wait(self, event: Event) -> None:
        assert isinstance(event, _CudaEvent)
        event.raw.wait(torch.cuda.current_stream(self._index))

    def record(self) -> Event:
        return _CudaEvent(torch.cuda.current_stream(self._index))


class CudaBackend:
    """Four streams beside the one the model runs on."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        index = torch.cuda.current_device() if device.index is None else device.index

        def queue() -> Queue:
            return _CudaQueue(torch.cuda.Stream(index), index)  # type: ignore[no-untyped-call]

        self.compute: Queue = _CurrentStreamQueue(index)
        self.update: Queue = queue()
        self.copy_in: Queue = queue()
        self.copy_out: Queue = queue()
        self.weights_in: Queue = queue()

    def synchronize(self) -> None:
        """Let the host wait until all queues are empty."""
        torch.cuda.synchronize(self.device)


def backend_for(device: torch.device) -> Backend:
    """Return the queues of ``device``."""
    return CudaBackend(device) if device.type == "cuda" else ImmediateBackend(device)
