"""Gradients between backward passes and the optimizer: taken as they appear, summed, measured.

On the device they are summed in place. On the host, each bucket's sum comes to the device shortly
before backward reaches it, is added to there, and leaves again; both copies run beside backward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from optimizers.arrivals import Arrivals
from optimizers.backend import Event
from optimizers.chunk import QUANT_BLOCK
from optimizers.engine import Engine
from optimizers.layout import Bucket, ChunkPlace
from optimizers.ring import Lease

FinishedBucket = Callable[[Bucket, Tensor], None]

_MOST_WAITING_BYTES = 48 * 2**20


@dataclass(frozen=True)
class GradientPart:
    """The summed gradient of a chunk.

    Attributes:
        values: (n,), float32 or bfloat16.
        on_device: Whether ``values`` is on the device.
        pinned: Whether the device can copy it by itself.
        written: After it, the values are there; None if they are there.
    """

    values: Tensor
    on_device: bool
    pinned: bool
    written: Event | None


@dataclass
class _Parked:
    """The sum of one bucket on the host."""

    memory: Tensor
    pinned: bool
    dtype: torch.dtype
    written: Event | None = None
    read: Event | None = None

    def values(self, numel: int) -> Tensor:
        return self.memory[: numel * self.dtype.itemsize].view(self.dtype)


@dataclass
class _Passing:
    """A bucket whose gradients are being added to its sum.

    Attributes:
        total: The sum.
        lease: Whose memory it is; None if it stays where it is.
        narrow: Room for the bucket in the parameters' format, where that is another.
        arrived: After it, the sum so far is there.
        comes_narrow: Whether it comes in ``narrow``.
        is_narrow: Whether the finished sum is in ``narrow``: it is a single gradient.
    """

    total: Tensor
    lease: Lease | None = None
    narrow: Tensor | None = None
    arrived: Event | None = None
    comes_narrow: bool = False
    is_narrow: bool = False


class GradientSums:
    """Takes gradients off the parameters during backward and sums them.

    Several gradients are summed in float32 (or in bfloat16 on the host, when the placement says
    so). A single gradient is kept as it is. With 16-bit or 8-bit moments, the finished float32 sum
    is rounded once to bfloat16, wherever it waits: less than such moments keep of it.

    Args:
        engine: The run's memory.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._backend = engine.backend
        self._dtype = engine.sum_dtype
        self._order = [b.index for b in reversed(engine.buckets())]
        nothing = torch.zeros(QUANT_BLOCK, dtype=engine.dtype, device=engine.device)
        self._arrivals = {
            b.index: Arrivals(b, nothing, engine.dtype.itemsize) for b in engine.buckets()
        }
        self._resident: dict[int, Tensor] = {}
        self._resident_read: dict[int, Event] = {}
        self._parked: dict[int, _Parked] = {}
        self._passing: dict[int, _Passing] = {}
        self._sizes = {b.index: engine.passing_bytes(b) for b in engine.buckets()}
        self._allocate()
        self._norms = torch.zeros(len(engine.parameters), dtype=torch.float32, device=engine.device)
        position = {name: i for i, name in enumerate(engine.parameters)}
        self._norm_places = {
            b.index: torch.tensor([position[p.name] for p in b.tensors], device=engine.device)
            for b in engine.buckets()
        }
        self._strays: list[Lease] = []
        self.num_strays = 0
        """How often there was no room in the ring, which a good plan does not let happen."""
        self._micro_step = 0
        self._is_last = False
        self._seen: list[int] = []
        self._ahead: list[int] = []
        self.on_finished: FinishedBucket | None = None
        """When set, it receives the finished sums of each bucket of the last backward at once, and
        they are kept nowhere."""
        self._handles: list[RemovableHandle] = []
        self.attach()

    def attach(self) -> None:
        """Take the gradients of all parameters from now on, as they appear."""
        for arrivals in self._arrivals.values():
            for name, slot in arrivals.slots.items():
                hook = partial(self._take, arrivals, slot)
                parameter = self._engine.parameters[name]
                self._handles.append(
                    parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
                )

    def detach(self) -> None:
        """Leave gradients where they appear from now on."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _allocate(self) -> None:
        engine = self._engine
        for bucket in engine.buckets():
            size = engine.sum_bytes(bucket)
            if self._engine.is_parked(bucket):
                block = engine.host.allocate(size)
                self._parked[bucket.index] = _Parked(block.memory, block.pinned, engine.sum_dtype)
            elif self._engine.is_resident(bucket):
                self._resident[bucket.index] = torch.zeros(
                    bucket.numel, dtype=engine.sum_dtype, device=engine.device
                )

    def begin(self, micro_step: int, *, is_last: bool) -> None:
        """Get ready for the gradients of backward number ``micro_step`` of a step, from 0."""
        self._micro_step = micro_step
        self._is_last = is_last
        if len(self._seen) == len(self._arrivals):
            self._order = self._seen  # what backward did once, it does again
        self._seen = []
        for arrivals in self._arrivals.values():
            arrivals.begin()
        self._ahead = []
        if micro_step > 0:
            self._ahead = [index for index in self._order if index in self._parked]
            self._fetch_ahead()

    def end(self) -> None:
        """Finish the backward that `begin` began; parameters without a gradient count as zero."""
        for index in sorted(set(self._arrivals) - set(self._seen)):
            arrivals = self._arrivals[index]
            passing = self._add_waiting(arrivals.bucket)
            if self._micro_step == 0:
                parts = arrivals.split(passing.total)
                for slot in arrivals.missing:
                    self._backend.compute.run(parts[slot].zero_)
            self._finish(arrivals.bucket, passing)
        self._drop_strays()

    def _drop_strays(self) -> None:
        """Free extra room; only after the copies from it, which another queue makes."""
        for lease in self._strays:
            if lease.released is not None:
                self._backend.compute.wait(lease.released)
        self._strays.clear()

    def discard(self) -> None:
        """Forget everything since the first `begin` of the step."""
        for passing in self._passing.values():
            self._await_arrival(passing)
            if passing.lease is not None:
                passing.lease.give_back(self._backend.compute.record())
        self._passing.clear()
        for arrivals in self._arrivals.values():
            arrivals.begin()
        self._drop_strays()
        self._seen, self._ahead = [], []

    def put(self, gradients: Mapping[str, Tensor]) -> None:
        """Take gradients from a mapping, as the only ones of a step.

        Raises:
            ValueError: if a name or shape is not that of a parameter.
        """
        parameters = self._engine.parameters
        for name, gradient in gradients.items():
            if name not in parameters or parameters[name].shape != gradient.shape:
                raise ValueError(f"{name}: there is no parameter of that name and shape")
        self.begin(0, is_last=True)
        for arrivals in self._arrivals.values():
            for name, slot in arrivals.slots.items():
                if name in gradients:
                    self._add_gradient(arrivals, slot, gradients[name])
        self.end()

    def norm(self) -> Tensor:
        """Return the L2 norm of the finished sums, as a 0-dim tensor on the device.

        As torch.nn.utils.get_total_norm takes it: the norm of the norms of all tensors.
        """
        out = torch.empty((), dtype=torch.float32, device=self._engine.device)
        self._backend.compute.run(lambda: torch.linalg.vector_norm(self._norms, out=out))
        return out

    def of(self, chunk: ChunkPlace, bucket: Bucket) -> GradientPart:
        """Return the sum of a chunk, wherever it is."""
        part = slice(chunk.start - bucket.start, chunk.end - bucket.start)
        resident = self._resident.get(bucket.index)
        if resident is not None:
            return GradientPart(resident[part], on_device=True, pinned=True, written=None)
        parked = self._parked[bucket.index]
        values = parked.values(bucket.numel)[part]
        return GradientPart(values, False, parked.pinned, parked.written)

    def note_read(self, bucket: Bucket, event: Event) -> None:
        """Keep a bucket's sum from being written before ``event``."""
        if bucket.index in self._parked:
            self._parked[bucket.index].read = event
        else:
            self._resident_read[bucket.index] = event

    def bytes_on_host(self) -> int:
        """Return the size of the sums in host memory."""
        return sum(parked.memory.nbytes for parked in self._parked.values())

    def bytes_on_device(self) -> int:
        """Return the size of the sums on the device."""
        return sum(resident.nbytes for resident in self._resident.values())

    def close(self) -> None:
        """Detach from the parameters and let go of the sums."""
        self.detach()
        self._resident.clear()
        self._parked.clear()

    def _take(self, arrivals: Arrivals, slot: int, parameter: nn.Parameter) -> None:
        gradient = parameter.grad
        assert gradient is not None
        parameter.grad = None
        self._add_gradient(arrivals, slot, gradient)

    def _add_gradient(self, arrivals: Arrivals, slot: int, gradient: Tensor) -> None:
        # Many small additions cost more than a few large ones; what is large is not kept waiting.
        arrivals.take(slot, gradient)
        if not arrivals.missing:
            self._finish(arrivals.bucket, self._add_waiting(arrivals.bucket))
        elif arrivals.num_bytes > _MOST_WAITING_BYTES:
            self._add_waiting(arrivals.bucket)

    def _add_waiting(self, bucket: Bucket) -> _Passing:
        """Add what has appeared of a bucket to its sum."""
        passing = self._passing.get(bucket.index) or self._start(bucket)
        self._await_arrival(passing)
        arrivals = self._arrivals[bucket.index]
        is_small = self._engine.unit_of[bucket.unit].is_small
        if arrivals.is_whole and (passing.narrow is not None or is_small):
            parts = arrivals.give_whole()
            self._backend.compute.run(partial(self._add_at_once, passing, parts))
        elif arrivals.num_bytes:
            gradients = arrivals.give()
            views = arrivals.split(passing.total)
            targets = [views[slot] for slot in gradients]
            self._backend.compute.run(partial(self._add_singly, targets, [*gradients.values()]))
        return passing

    def _add_at_once(self, passing: _Passing, parts: list[Tensor]) -> None:
        """Add all gradients of a bucket with two kernels, however many there are."""
        narrow, is_first = passing.narrow, self._micro_step == 0
        if is_first and narrow is not None and self._parked_dtype() == narrow.dtype:
            torch.cat(parts, out=narrow)
            passing.is_narrow = True
            return
        single = parts[0] if len(parts) == 1 else torch.cat(parts, out=narrow)
        if is_first:
            passing.total.copy_(single)
        else:
            passing.total.add_(single)

    def _add_singly(self, targets: list[Tensor], gradients: list[Tensor]) -> None:
        if self._micro_step > 0:
            torch._foreach_add_(targets, gradients)
        else:
            torch._foreach_copy_(targets, gradients)

    def _await_arrival(self, passing: _Passing) -> None:
        """Let the model's queue wait for a sum that comes from the host, once."""
        if passing.arrived is None:
            return
        self._backend.compute.wait(passing.arrived)
        passing.arrived = None
        narrow, total = passing.narrow, passing.total
        if passing.comes_narrow and narrow is not None:
            self._backend.compute.run(lambda: total.copy_(narrow))

    def _start(self, bucket: Bucket) -> _Passing:
        """Make room for a bucket, and fetch the sum so far if there is one."""
        resident = self._resident.get(bucket.index)
        if resident is not None:
            if bucket.index in self._resident_read:
                self._backend.compute.wait(self._resident_read.pop(bucket.index))
            passing = _Passing(resident)
        else:
            passing = self._passing_through(bucket)
            if bucket.index in self._ahead:
                self._ahead.remove(bucket.index)
        self._passing[bucket.index] = passing
        return passing

    def _passing_through(self, bucket: Bucket, lease: Lease | None = None) -> _Passing:
        engine, queues = self._engine, self._backend
        fetches = self._micro_step > 0
        dtype = self._dtype
        size = self._sizes[bucket.index]
        lease = lease or engine.ring.take(size)
        if lease is None:
            # Gradients of so many buckets at once were not foreseen; they get room of their own.
            memory = torch.empty(size, dtype=torch.uint8, device=engine.device)
            lease = Lease(memory=memory, start=0, end=size)
            self._strays.append(lease)
            self.num_strays += 1
        lease.wait_on(queues.copy_in if fetches else queues.compute)
        wide = bucket.numel * dtype.itemsize
        total = lease.memory[:wide].view(dtype)
        narrow = None
        if engine.dtype != dtype:
            narrow = lease.memory[wide:size].view(engine.dtype)
        if not fetches:
            # What stands between tensors is never written by a gradient, and must not be a NaN.
            if self._arrivals[bucket.index].has_gaps:
                for part in self._arrivals[bucket.index].split_gaps(total):
                    self._backend.compute.run(part.zero_)
            return _Passing(total, lease, narrow)
        parked = self._parked[bucket.index]
        source = parked.values(bucket.numel)
        comes_narrow = source.dtype != dtype
        target = total
        if comes_narrow:
            assert narrow is not None
            target = narrow
        if parked.written is not None:
            queues.copy_in.wait(parked.written)
        engine.transfers.to_device(source, target, pinned=True)
        arrived = queues.copy_in.record()
        parked.read = arrived
        return _Passing(total, lease, narrow, arrived, comes_narrow)

    def _fetch_ahead(self) -> None:
        """Fetch sums in the order in which backward will need them, as far as there is room."""
        while self._ahead:
            bucket = self._arrivals[self._ahead[0]].bucket
            lease = self._engine.ring.take(self._sizes[bucket.index])
            if lease is None:
                return
            self._ahead.pop(0)
            self._passing[bucket.index] = self._passing_through(bucket, lease)

    def _finish(self, bucket: Bucket, passing: _Passing) -> None:
        """Send a bucket on its way: all its gradients of this backward are in."""
        self._await_arrival(passing)
        if self._is_last:
            self._measure(bucket, passing.total)
            if self._is_rounded(bucket):
                self._backend.compute.run(partial(_round_to_bfloat16, passing.total))
        if self.on_finished is not None and self._is_last:
            self.on_finished(bucket, passing.total)
            if passing.lease is not None:
                passing.lease.give_back(self._backend.update.record())
        elif passing.lease is not None:
            self._park(bucket, passing, passing.lease)
        del self._passing[bucket.index]
        self._seen.append(bucket.index)
        self._fetch_ahead()

    def _park(self, bucket: Bucket, passing: _Passing, lease: Lease) -> None:
        queues, parked = self._backend, self._parked[bucket.index]
        total, narrow = passing.total, passing.narrow
        parked.dtype = self._parked_dtype()
        leaving = total
        if parked.dtype != total.dtype:
            assert narrow is not None
            leaving = narrow
            if not passing.is_narrow:
                queues.compute.run(lambda: narrow.copy_(total))
        queues.copy_out.wait(queues.compute.record())
        if parked.read is not None:
            queues.copy_out.wait(parked.read)
        target = parked.values(bucket.numel)
        self._engine.transfers.to_host(leaving, target, pinned=True)
        parked.written = queues.copy_out.record()
        lease.give_back(parked.written)

    def _is_rounded(self, bucket: Bucket) -> bool:
        """Return whether a finished sum that stays is rounded, as it would be if it left."""
        engine = self._engine
        if engine.unit_of[bucket.unit].is_small or bucket.index not in self._resident:
            return False
        is_narrowed = engine.moments != "float32" and engine.dtype == torch.bfloat16
        return is_narrowed and self._dtype == torch.float32

    def _parked_dtype(self) -> torch.dtype:
        """Return what a sum is parked in, now: no wider than it needs to be."""
        engine = self._engine
        if self._micro_step == 0 and engine.dtype == torch.bfloat16:
            return engine.dtype  # a single gradient is one of these
        if self._is_last and engine.moments != "float32" and engine.dtype == torch.bfloat16:
            return torch.bfloat16
        return self._dtype

    def _measure(self, bucket: Bucket, total: Tensor) -> None:
        arrivals = self._arrivals[bucket.index]
        views = arrivals.split(total)
        parts = [views[slot] for slot in arrivals.slots.values()]
        places = self._norm_places[bucket.index]

        def measure() -> None:
            norms = torch._foreach_norm(parts, 2.0, dtype=torch.float32)
            self._norms.index_copy_(0, places, torch.stack(list(norms)))

        self._backend.compute.run(measure)


def _round_to_bfloat16(values: Tensor) -> None:
    """Round float32 values in place, with no memory beside them."""
    # A bfloat16 is the first half of a float32. Each element is read before its half is written.
    values.view(torch.bfloat16)[1::2].copy_(values)
    values.view(torch.int16)[0::2].zero_()
