"""Copies between host memory and the device that no one waits for."""

from __future__ import annotations

from collections import deque

from torch import Tensor

from optimizers.backend import Backend, Event
from optimizers.host_memory import HostMemory

BUFFERS_EACH_WAY = 3
"""How many pinned buffers ordinary memory passes through, in each direction."""


class Transfers:
    """Copies both ways; ordinary memory passes through a few pinned buffers.

    Copies of ordinary memory keep the host busy. Whoever makes them does so in a thread of its own.

    Args:
        backend: The queues.
        host: Where the pinned buffers come from.
        bounce_bytes: Size of one of them: the largest copy of ordinary memory; 0 for none.
    """

    def __init__(self, backend: Backend, host: HostMemory, bounce_bytes: int) -> None:
        self._backend = backend
        count = BUFFERS_EACH_WAY if bounce_bytes else 0
        self._inward = deque(_Bounce(host, bounce_bytes) for _ in range(count))
        self._outward = deque(_Bounce(host, bounce_bytes) for _ in range(count))
        self.bytes_in = 0
        self.bytes_out = 0

    @property
    def bounces(self) -> bool:
        """Whether some copies keep the host busy."""
        return bool(self._inward)

    def to_device(self, source: Tensor, target: Tensor, *, pinned: bool) -> None:
        """Copy ``source`` on the host to ``target``, both flat and of one dtype, on ``copy_in``."""
        self.bytes_in += target.nbytes
        queue = self._backend.copy_in
        if pinned or not self._inward:
            queue.run(lambda: target.copy_(source, non_blocking=True))
            return
        bounce = self._inward[0]
        self._inward.rotate(-1)
        bounce.await_free()
        staged = bounce.memory[: source.nbytes].view(source.dtype)
        staged.copy_(source)
        queue.run(lambda: target.copy_(staged, non_blocking=True))
        bounce.busy = queue.record()

    def to_host(self, source: Tensor, target: Tensor, *, pinned: bool) -> None:
        """Copy ``source`` on the device to ``target``, both flat, on ``copy_out``.

        What passes through a buffer has arrived after `finish` only.
        """
        self.bytes_out += source.nbytes
        queue = self._backend.copy_out
        if pinned or not self._outward:
            queue.run(lambda: target.copy_(source, non_blocking=True))
            return
        bounce = self._outward[0]
        self._outward.rotate(-1)
        bounce.unload()
        staged = bounce.memory[: source.nbytes].view(source.dtype)
        queue.run(lambda: staged.copy_(source, non_blocking=True))
        bounce.busy = queue.record()
        bounce.bound_for = (staged, target)

    def finish(self) -> None:
        """Bring what still is in the buffers to where it belongs."""
        for bounce in self._outward:
            bounce.unload()


class _Bounce:
    def __init__(self, host: HostMemory, num_bytes: int) -> None:
        self.memory = host.allocate(num_bytes).memory
        self.busy: Event | None = None
        self.bound_for: tuple[Tensor, Tensor] | None = None

    def await_free(self) -> None:
        if self.busy is not None:
            self.busy.synchronize()
            self.busy = None

    def unload(self) -> None:
        self.await_free()
        if self.bound_for is not None:
            staged, target = self.bound_for
            target.copy_(staged)
            self.bound_for = None
