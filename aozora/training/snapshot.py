"""What a run holds at one moment, written to a file while training goes on.

Nothing is copied beforehand. The optimizer asks before it changes weights or a record: what the
writer has passed may change; a record that it has not passed gets other memory, and the old memory
stays as it is until it has been written; when there is no other memory, the optimizer waits. The
writer goes in the order of the optimizer's pass, so waiting is rare.

First come all weights, and records that stay on the device: these can only be waited for.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from aozora.training.spare_memory import SpareBlock, SpareMemory
from aozora.training.state_writer import Slot, StateWriter
from optimizers.engine import Engine
from optimizers.records import Record
from optimizers.ring import aligned
from optimizers.streamed import StreamedOptimizer

T = TypeVar("T")
_Tensors = deque[tuple[Slot, Tensor]]
Stage = Callable[[list[Tensor]], list[Tensor]]
"""Brings tensors to the host, where they stay until it is called again."""

# So much at once keeps all threads of the writer busy, and needs this much memory for what is on
# the device.
_GROUP_BYTES = 64 * 2**20


class AbandonedError(Exception):
    """The snapshot is no longer wanted."""


@dataclass(frozen=True)
class _Kept:
    """The memory that a record had when the snapshot was taken."""

    block: SpareBlock
    record: Record

    @property
    def is_in_use(self) -> bool:
        """Whether the record still has it."""
        return self.record.memory is self.block.memory


class Snapshot:
    """The weights and records of one moment; made by `Snapshots.take`.

    Attributes:
        weights: A slot for the weights of every parameter, of its own dtype.
        optimizer: What `StreamedOptimizer.state_dict` returns, with a slot for every piece.
        waited_seconds: How long the optimizer has waited for the writer so far.
    """

    def __init__(
        self,
        engine: Engine,
        optimizer: StreamedOptimizer,
        spare: SpareMemory,
        stage: Stage,
    ) -> None:
        self._spare = spare
        self._stage = stage
        self._changed = threading.Condition()
        self._is_abandoned = False
        self.waited_seconds = 0.0
        pieces = optimizer.pieces()
        records = optimizer.records
        state: dict[str, dict[str, list[Slot]]] = {}
        self._units: dict[str, _Tensors] = {unit.name: deque() for unit in engine.units}
        self._records: dict[int, _Tensors] = {
            chunk.index: deque() for chunk in engine.chunks() if not records[chunk.index].on_device
        }
        self._kept = {
            index: _Kept(SpareBlock(records[index].memory, records[index].pinned), records[index])
            for index in self._records
        }
        self._record_sizes = [kept.block.memory.nbytes for kept in self._kept.values()]
        self.weights = self._add_weights(engine, optimizer.weights())
        for piece in pieces:
            slot = Slot.like(piece.values)
            state.setdefault(piece.parameter, {}).setdefault(piece.plane, []).append(slot)
            tensors = self._records.get(piece.record)
            if tensors is None:
                tensors = self._units[records[piece.record].chunk.unit]
            tensors.append((slot, piece.values))
        self.optimizer: dict[str, Any] = {**optimizer.facts(), "state": state}
        self._is_backward = engine.placement.gradients == "nowhere"

    def _add_weights(self, engine: Engine, weights: dict[str, Tensor]) -> dict[str, Slot]:
        slots = {}
        for unit in engine.units:
            for place in unit.tensors:
                slots[place.name] = Slot.like(weights[place.name])
                self._units[unit.name].append((slots[place.name], weights[place.name]))
        return slots

    def write(self, writer: StateWriter) -> None:
        """Write all tensors, once; what has been written may change from then on.

        However it ends, the optimizer waits for nothing any more.

        Raises:
            AbandonedError: if `abandon` was called.
            OSError: if it cannot be written.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="spare-memory") as threads:
            try:
                adding = threads.submit(self._add_spare_memory)
                self._write_all(writer)
            finally:
                self.close()
        adding.result()

    def _write_all(self, writer: StateWriter) -> None:
        for unit in self._in_order(self._units):
            self._write(writer, self._units[unit])
            with self._changed:
                del self._units[unit]
                self._changed.notify_all()
        for index in self._in_order(self._records):
            self._write(writer, self._records[index])
            with self._changed:
                self._let_go(index)
                self._changed.notify_all()

    def _write(self, writer: StateWriter, tensors: _Tensors) -> None:
        # One group after the other is let go of: they may be all that keeps memory of a device.
        while tensors:
            self.refuse_abandoned()
            group = [tensors.popleft()]
            num_bytes = group[0][0].num_bytes
            while tensors and (num_bytes := num_bytes + tensors[0][0].num_bytes) <= _GROUP_BYTES:
                group.append(tensors.popleft())
            staged = self._stage([values.detach() for _, values in group])
            writer.write([(slot, values) for (slot, _), values in zip(group, staged, strict=True)])

    def _in_order(self, parts: dict[T, _Tensors]) -> Iterator[T]:
        """Return what the optimizer comes to first, first."""
        order = list(parts)
        return reversed(order) if self._is_backward else iter(order)

    def _add_spare_memory(self) -> None:
        """Add memory while it may be of use; the next snapshot adds what is missing then."""
        while self._records and (blocks := self._spare.allocate(self._record_sizes)):
            with self._changed:
                for block in blocks:
                    self._spare.give(block)
                self._changed.notify_all()

    def _let_go(self, index: int) -> None:
        self._records.pop(index)
        kept = self._kept.pop(index)
        if not kept.is_in_use:
            self._spare.give(kept.block)

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
            self._units.clear()
            for index in list(self._records):
                self._let_go(index)
            self._changed.notify_all()

    def before_weights(self, unit: str) -> None:
        """Return when the weights of ``unit`` may change."""
        with self._changed:
            self._wait_for(lambda: unit not in self._units)

    def before_record(self, record: Record) -> None:
        """Return when ``record.memory`` may be written; it may be another memory then."""
        index = record.chunk.index

        def is_free() -> bool:
            kept = self._kept.get(index)
            return kept is None or not kept.is_in_use or self._divert(record)

        with self._changed:
            self._wait_for(is_free)

    def _divert(self, record: Record) -> bool:
        """Give the record other memory if there is some."""
        block = self._spare.take(record.memory.nbytes)
        if block is None:
            return False
        record.memory, record.pinned = block.memory, block.pinned
        return True

    def _wait_for(self, holds: Callable[[], bool]) -> None:
        if holds():
            return
        started = time.monotonic()
        self._changed.wait_for(holds)
        self.waited_seconds += time.monotonic() - started


class Snapshots:
    """Takes snapshots of an optimizer, one at a time, and lets it ask before it changes anything.

    Args:
        engine: The run's memory.
        optimizer: Works in it.
        spare_bytes: Most memory to add for records that change before they are written.
    """

    def __init__(self, engine: Engine, optimizer: StreamedOptimizer, *, spare_bytes: int) -> None:
        self._engine = engine
        self._optimizer = optimizer
        self._spare = SpareMemory(engine, spare_bytes)
        self._stage = _stage_for(engine.device)
        self._current: Snapshot | None = None
        optimizer.saving = self

    def take(self) -> Snapshot:
        """Return a snapshot of now; waits for the last step, and for nothing else.

        The one before must have been written or abandoned.
        """
        self._current = None
        self._current = Snapshot(self._engine, self._optimizer, self._spare, self._stage)
        return self._current

    def before_weights(self, unit: str) -> None:
        """Return when the weights of ``unit`` may change."""
        if (snapshot := self._current) is not None:
            snapshot.before_weights(unit)

    def before_record(self, record: Record) -> None:
        """Return when ``record.memory`` may be written; it may be another memory then."""
        if (snapshot := self._current) is not None:
            snapshot.before_record(record)


def _stage_for(device: torch.device) -> Stage:
    return _CudaStage(device) if device.type == "cuda" else _as_they_are


def _as_they_are(tensors: list[Tensor]) -> list[Tensor]:
    return tensors


class _CudaStage:
    """Brings tensors to the host on a stream of its own; each call replaces what came before."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._memory = torch.empty(0, dtype=torch.uint8)

    def __call__(self, tensors: list[Tensor]) -> list[Tensor]:
        sizes = [aligned(values.nbytes) if values.is_cuda else 0 for values in tensors]
        if self._memory.numel() < sum(sizes):
            self._memory = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=True)
        staged, start = [], 0
        with torch.cuda.stream(self._stream):
            for values, size in zip(tensors, sizes, strict=True):
                if size:
                    memory = self._memory[start : start + values.nbytes]
                    place = memory.view(values.dtype).view(values.shape)
                    values, start = place.copy_(values, non_blocking=True), start + size
                staged.append(values)
        self._stream.synchronize()
        return staged
