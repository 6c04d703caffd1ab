"""What a run holds at one moment, written to a file while training goes on.

Nothing is copied beforehand. The optimizer asks before it changes weights or a record: what the
writer has passed may change. The writer goes in the order of the optimizer's pass, so asking is
mostly all. When the pass comes too early, what the writer will come to last is copied, as much as
there is free memory for, and the memory given back as it is written; copying is many times faster
than writing a file. What has no room waits for the writer.

First come all weights, and records that stay on the device.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from aozora.training.state_writer import Slot, StateWriter
from optimizers.engine import Engine
from optimizers.records import Record
from optimizers.ring import aligned
from optimizers.streamed import StreamedOptimizer

log = logging.getLogger(__name__)

_Tensors = deque[tuple[Slot, Tensor]]
_Key = str | int  # a unit by its name; a record by the index of its chunk
Stage = Callable[[list[Tensor]], list[Tensor]]
"""Brings tensors to the host, where they stay until it is called twice more."""

# So much at once keeps all threads of the writer busy, and needs this much memory for what is on
# the device.
_GROUP_BYTES = 64 * 2**20


class AbandonedError(BaseException):
    """The snapshot is no longer wanted; like a KeyboardInterrupt no fault of anything."""


@dataclass(eq=False)
class _Part:
    """What the optimizer asks for at once, until it has been written.

    Attributes:
        tensors: What is still to be written of it.
        num_bytes: Memory that a copy of all of it takes.
        is_taken: Whether the writer is at it.
        is_copied: Whether the tensors are copies, so that the optimizer may go on.
    """

    tensors: _Tensors = field(default_factory=deque)
    num_bytes: int = 0
    is_taken: bool = False
    is_copied: bool = False

    def add(self, slot: Slot, values: Tensor) -> None:
        """Add a tensor that is to be written at ``slot``."""
        self.tensors.append((slot, values))
        self.num_bytes += aligned(values.nbytes)


class Snapshot:
    """The weights and records of one moment; made by `Snapshots.take`.

    Attributes:
        weights: A slot for the weights of every parameter, of its own dtype.
        optimizer: What `StreamedOptimizer.state_dict` returns, with a slot for every piece.
        waited_seconds: How long the optimizer has waited so far, for the writer and for copies.
        copied_bytes: How much was copied so that it need not wait longer.
    """

    def __init__(
        self, engine: Engine, optimizer: StreamedOptimizer, stage: Stage, room: Callable[[], int]
    ) -> None:
        self._stage = stage
        self._room = room
        self._wait_for_last_step = optimizer.last_step()
        self._to_copy: deque[_Key] | None = None  # until the optimizer has had to wait
        self._changed = threading.Condition()
        self._is_abandoned = False
        self.waited_seconds = 0.0
        self.copied_bytes = 0
        self.weights: dict[str, Slot] = {}
        units: dict[_Key, _Part] = {unit.name: _Part() for unit in engine.units}
        values = optimizer.weights()
        for unit in engine.units:
            for place in unit.tensors:
                slot = self.weights[place.name] = Slot.like(values[place.name])
                units[unit.name].add(slot, values[place.name])
        records = optimizer.records
        on_host: dict[_Key, _Part] = {
            chunk.index: _Part() for chunk in engine.chunks() if not records[chunk.index].on_device
        }
        state: dict[str, dict[str, list[Slot]]] = {}
        for piece in optimizer.pieces():
            slot = Slot.like(piece.values)
            state.setdefault(piece.parameter, {}).setdefault(piece.plane, []).append(slot)
            part = on_host.get(piece.record) or units[records[piece.record].chunk.unit]
            part.add(slot, piece.values)
        self.optimizer: dict[str, Any] = {**optimizer.facts(), "state": state}
        # What the optimizer comes to first, first.
        in_order = reversed if engine.placement.gradients == "nowhere" else iter
        self._parts = {key: some[key] for some in (units, on_host) for key in in_order(list(some))}

    def write(self, writer: StateWriter) -> None:
        """Write all tensors, once; what has been written may change from then on.

        However it ends, the optimizer waits for nothing any more.

        Raises:
            AbandonedError: if `abandon` was called.
            OSError: if it cannot be written.
            Exception: whatever went wrong in the last step.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="state-copy") as threads:
            try:
                self._wait_for_last_step()
                copying = threads.submit(self._copy)
                self._write_all(writer)
            finally:
                self.close()
        copying.result()

    def _write_all(self, writer: StateWriter) -> None:
        under_way: list[_Key] = []
        for key in list(self._parts):
            with self._changed:
                part = self._parts[key]
                part.is_taken = True
            for group in _groups(part.tensors):
                self.refuse_abandoned()
                staged = self._stage([values.detach() for _, values in group])
                slots = (slot for slot, _ in group)
                writer.write(list(zip(slots, staged, strict=True)))
                self._let_go(under_way)
            under_way.append(key)
        writer.flush()
        self._let_go(under_way)

    def _let_go(self, written: list[_Key]) -> None:
        """Let the optimizer have these parts; leaves the list empty."""
        if not written:
            return
        with self._changed:
            for key in written:
                del self._parts[key]
            self._changed.notify_all()
        written.clear()

    def _copy(self) -> None:
        """Copy what is wanted, part after part; in a thread of its own."""
        while (found := self._next_to_copy()) is not None:
            part, tensors = found
            try:
                memory = torch.empty(part.num_bytes, dtype=torch.uint8)
            except RuntimeError as error:  # what torch raises when the system gives no memory
                log.warning("Training may wait for the save, no memory to copy to: %s", error)
                return
            copies = _copies([values for _, values in tensors], memory)
            with self._changed:
                if not part.is_taken:
                    slots = (slot for slot, _ in tensors)
                    part.tensors = deque(zip(slots, copies, strict=True))
                    part.is_copied = True
                    self.copied_bytes += part.num_bytes
                    self._changed.notify_all()
            # They may be all that keeps memory of the device.
            del found, tensors

    def _next_to_copy(self) -> tuple[_Part, list[tuple[Slot, Tensor]]] | None:
        """Return what is to be copied next, when something is; None when there is no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._to_copy is not None or not self._parts)
            while self._to_copy:
                part = self._parts.get(self._to_copy.popleft())
                if part is not None and not part.is_taken:
                    return part, list(part.tensors)
        return None

    def _choose_what_to_copy(self) -> deque[_Key]:
        """Return as much of the end as there is room for; the writer will come to it last."""
        room = self._room()
        chosen: deque[_Key] = deque()
        for key, part in reversed(self._parts.items()):
            if part.is_taken or (room := room - part.num_bytes) < 0:
                break
            chosen.appendleft(key)
        return chosen

    def abandon(self) -> None:
        """Let the writer end soon; may be called by any thread."""
        self._is_abandoned = True

    def refuse_abandoned(self) -> None:
        """Raise AbandonedError after `abandon`."""
        if self._is_abandoned:
            raise AbandonedError

    def close(self) -> None:
        """Keep nothing any more."""
        with self._changed:
            self._parts.clear()
            self._changed.notify_all()

    def before_weights(self, unit: str) -> None:
        """Return when the weights of ``unit`` may change."""
        self._wait_for(unit)

    def before_record(self, record: Record) -> None:
        """Return when ``record.memory`` may be written."""
        self._wait_for(record.chunk.index)

    def _wait_for(self, key: _Key) -> None:
        def is_free() -> bool:
            part = self._parts.get(key)
            return part is None or part.is_copied

        with self._changed:
            if is_free():
                return
            started = time.monotonic()
            if self._to_copy is None:
                self._to_copy = self._choose_what_to_copy()
                self._changed.notify_all()
            self._changed.wait_for(is_free)
            self.waited_seconds += time.monotonic() - started


class Snapshots:
    """Takes snapshots of an optimizer, one at a time, and lets it ask before it changes anything.

    Args:
        engine: The run's memory.
        optimizer: Works in it.
        room: Says how much main memory copies may take now, in bytes; asked once a snapshot, when
            training would have to wait.
    """

    def __init__(
        self, engine: Engine, optimizer: StreamedOptimizer, *, room: Callable[[], int]
    ) -> None:
        self._engine = engine
        self._optimizer = optimizer
        self._room = room
        self._stage = _stage_for(engine.device)

    def take(self) -> Snapshot:
        """Return a snapshot of now, which is when the last step is done; waits for nothing.

        `Snapshot.write` of the one before must have returned.
        """
        snapshot = Snapshot(self._engine, self._optimizer, self._stage, self._room)
        self._optimizer.saving = snapshot
        return snapshot


def _groups(tensors: _Tensors) -> Iterator[list[tuple[Slot, Tensor]]]:
    """Take all tensors out, some at a time: they may be all that keeps memory of a device."""
    while tensors:
        group = [tensors.popleft()]
        num_bytes = aligned(group[0][0].num_bytes)
        while tensors:
            num_bytes += aligned(tensors[0][0].num_bytes)
            if num_bytes > _GROUP_BYTES:
                break
            group.append(tensors.popleft())
        yield group


def _stage_for(device: torch.device) -> Stage:
    return _CudaStage(device) if device.type == "cuda" else _as_they_are


def _as_they_are(tensors: list[Tensor]) -> list[Tensor]:
    return tensors


class _CudaStage:
    """Brings tensors to the host on a stream of its own, into two memories in turn."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._memories = deque(torch.empty(0, dtype=torch.uint8) for _ in range(2))

    def __call__(self, tensors: list[Tensor]) -> list[Tensor]:
        on_device = [values for values in tensors if values.is_cuda]
        needed = sum(aligned(values.nbytes) for values in on_device)
        self._memories.rotate(1)
        if needed and self._memories[0].numel() < needed:
            size = max(needed, _GROUP_BYTES)
            self._memories[0] = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        places = iter(_places(self._memories[0], on_device))
        with torch.cuda.stream(self._stream):
            staged = [
                next(places).copy_(values, non_blocking=True) if values.is_cuda else values
                for values in tensors
            ]
        self._stream.synchronize()
        return staged


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    # One for all: torch has few, and a new one may be another's.
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _copies(tensors: Sequence[Tensor], memory: Tensor) -> list[Tensor]:
    """Return copies on the host, in ``memory``."""
    places = _places(memory, tensors)
    for place, values in zip(places, tensors, strict=True):
        if values.is_cuda:
            # Not behind the work of training: what is copied does not change before this returns.
            with torch.cuda.stream(_copy_stream(values.device)):
                place.copy_(values.detach())
        else:
            place.copy_(values.detach())
    return places


def _places(memory: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return a place in ``memory`` (uint8, 1-D) for each of ``tensors``, of its dtype and shape."""
    places, start = [], 0
    for values in tensors:
        place = memory[start : start + values.nbytes]
        places.append(place.view(values.dtype).view(values.shape))
        start += aligned(values.nbytes)
    return places
