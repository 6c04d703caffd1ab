"""The optimizer pass: chunk after chunk comes to the device, is updated there and goes back.

Three things happen at the same time: one chunk's record arrives, another's is updated, a third's
leaves. Events order them; the host waits for nothing. The next forward pass may begin at once, as
long as each part of the model waits for its own weights (`StreamedOptimizer.wait_for`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from optimizers.backend import Event
from optimizers.background import Background
from optimizers.chunk import Chunk, StepScalars
from optimizers.chunk_update import SCRATCH_ELEMENTS, update_for
from optimizers.diagnostics import Diagnostics, Survey
from optimizers.engine import Engine, in_place
from optimizers.gradient_sums import GradientPart, GradientSums
from optimizers.layout import Bucket, ChunkPlace, Unit
from optimizers.precision import (
    UnrepresentableWeightError,
    largest_magnitude,
    noise_key,
    refuse_unrepresentable,
)
from optimizers.record_store import Piece, RecordStore
from optimizers.records import Record
from optimizers.ring import Lease, aligned
from optimizers.saved_state import refuse_other_facts, refuse_other_names

PartOf = Callable[[ChunkPlace], GradientPart]


def _as_it_is(piece: Tensor) -> Tensor:
    return piece


def _never(unit: str) -> Event | None:
    return None


class Saving(Protocol):
    """Somebody who saves weights and records while training goes on."""

    def before_weights(self, unit: str) -> None:
        """Return when the weights of ``unit`` may change."""
        ...

    def before_record(self, record: Record) -> None:
        """Return when ``record.memory`` may be written."""
        ...


class StreamedOptimizer:
    """Keeps exact float32 weights behind parameters of any dtype, and updates them in chunks.

    Args:
        engine: The run's memory; its rule is applied.
        seed: Chooses the noise of stochastic rounding.

    Raises:
        UnrepresentableWeightError: if a weight is not finite.
    """

    def __init__(self, engine: Engine, *, seed: int = 0) -> None:
        self._engine = engine
        self._seed = seed
        self._t = 0
        self._store = RecordStore(engine)
        # At its full size from the start: to grow during a step would give memory back to the
        # model's queue that the update's queue still works in.
        shaped = (chunk.numel for chunk in engine.chunks() if engine.rule.needs_shape)
        self._apply = update_for(engine.rule, engine.device, max([SCRATCH_ELEMENTS, *shaped]))
        self._magnitudes = {
            unit.name: torch.zeros(1, device=engine.device) for unit in engine.units
        }
        self._keys: dict[tuple[str, str], int] = {}
        # Kept while a step may read it: once dropped, the model's queue could write its memory.
        self._scale: Tensor | None = None
        self._survey: Survey | None = None
        self._diagnostics: Diagnostics | None = None
        self._updated: dict[str, Event] = {}
        self._issued: set[str] = set()
        self._background: Background | None = None
        self._done: list[Event] = []
        self.saving: Saving | None = None
        """Asked by the steps that begin from now on."""
        self._asked: Saving | None = None
        self.last_read: Callable[[str], Event | None] = _never
        """Returns, for a streamed unit, after what its weights on the host may be overwritten."""
        for name, parameter in engine.parameters.items():
            largest = largest_magnitude(parameter.detach().float()).item()
            refuse_unrepresentable(name, largest, engine.dtype)
            if engine.dtype == torch.float16:
                self._store.set_master(name, parameter.detach())

    @property
    def t(self) -> int:
        """Number of steps taken."""
        return self._t

    @property
    def records(self) -> Mapping[int, Record]:
        """All records, by the index of their chunk."""
        return self._store.records

    def step(
        self, gradients: GradientSums, lr: float, scale: Tensor, *, diagnose: bool = False
    ) -> None:
        """Begin a step; when this returns it may still be under way.

        Args:
            gradients: The finished sums; finite.
            lr: Learning rate.
            scale: 0-dim float32 on the device; all gradients are multiplied by it.
            diagnose: Whether to measure the step for `diagnostics`.

        Raises:
            ValueError: if ``lr`` is not a learning rate.
        """
        self.begin_step(lr, diagnose=diagnose)
        engine = self._engine
        # The model may still be reading the weights, and writing the last gradients.
        engine.backend.update.wait(engine.backend.compute.record())
        done: list[Event] = []
        self._done = done

        def update_all() -> None:
            for unit in engine.units:
                for bucket in unit.buckets:
                    filled = self._update_bucket(
                        bucket, partial(gradients.of, bucket=bucket), lr, scale
                    )
                    gradients.note_read(bucket, filled)
                self._note_updated(unit)
            engine.transfers.finish()
            done.extend(self._record_end())

        if engine.transfers.bounces and self._survey is None:
            self._background = Background(update_all)
        else:
            update_all()

    def begin_step(self, lr: float, *, diagnose: bool = False) -> None:
        """Count a step whose buckets are then updated one by one with `update_bucket`.

        Raises:
            ValueError: if ``lr`` is not a learning rate.
        """
        self.wait_all()
        if not (math.isfinite(lr) and lr >= 0):
            raise ValueError(f"lr: {lr} is not a learning rate")
        self._t += 1
        self._asked = self.saving
        self._keys.clear()
        self._updated.clear()
        self._issued.clear()
        self._diagnostics = None
        self._survey = Survey(self._num_elements()) if diagnose else None

    def update_bucket(self, bucket: Bucket, total: Tensor, lr: float, scale: Tensor) -> None:
        """Update one bucket from its gradients, which the model's queue has just put on the device.

        Args:
            bucket: What to update.
            total: Its gradients, flat.
            lr: Learning rate.
            scale: As for `step`.
        """
        engine = self._engine
        engine.backend.update.wait(engine.backend.compute.record())

        def part(chunk: ChunkPlace) -> GradientPart:
            values = total[chunk.start - bucket.start : chunk.end - bucket.start]
            return GradientPart(values, on_device=True, pinned=True, written=None)

        self._update_bucket(bucket, part, lr, scale)

    def end_step(self) -> None:
        """End a step whose buckets were updated one by one."""
        for unit in self._engine.units:
            self._note_updated(unit)
        self._engine.transfers.finish()
        self._done = self._record_end()

    def _record_end(self) -> list[Event]:
        queues = self._engine.backend
        return [queues.update.record(), queues.copy_out.record()]

    def wait_for(self, unit: str) -> None:
        """Let the model's queue wait until the weights of ``unit`` are those of the last step."""
        event = self.updated_event(unit)
        if event is not None:
            self._engine.backend.compute.wait(event)

    def is_issued(self, unit: str) -> bool:
        """Return whether the update of ``unit`` by the last step is at least under way."""
        return self._background is None or unit in self._issued

    def updated_event(self, unit: str) -> Event | None:
        """Return what the first reader of the weights of ``unit`` must wait for, once."""
        if self._background is not None and unit not in self._issued:
            self._background.wait_until(lambda: unit in self._issued)
        return self._updated.pop(unit, None)

    def wait_until_issued(self) -> None:
        """Let the host wait until all of the last step is at least under way.

        Raises:
            Exception: whatever went wrong in the thread that did it.
        """
        if self._background is not None:
            background, self._background = self._background, None
            background.join()

    def wait_all(self) -> None:
        """Let the model's queue wait until all weights are those of the last step."""
        self.wait_until_issued()
        for event in self._updated.values():
            self._engine.backend.compute.wait(event)

    def finish(self) -> None:
        """Let the host wait until the last step is done everywhere."""
        self.wait_all()
        self._engine.backend.synchronize()

    def last_step(self) -> Callable[[], None]:
        """Return what lets any thread wait until the last step is done everywhere.

        It raises whatever went wrong in the thread that issued the step.
        """
        background, done = self._background, self._done

        def wait() -> None:
            if background is not None:
                background.join()
            for event in done:
                event.synchronize()

        return wait

    def largest_weight(self) -> Tensor:
        """Return the largest magnitude of any weight of any step so far, on the model's queue.

        NaN if a weight was NaN; for `refuse_weight`, when the host next waits for the device.
        """
        self.wait_all()
        return torch.cat(list(self._magnitudes.values())).max()

    def refuse_weight(self, largest: float) -> None:
        """Refuse to go on when weights have outgrown the dtype of their parameters.

        Raises:
            UnrepresentableWeightError: naming a unit in which one has. Only the exact weights are
                still of use then.
        """
        try:
            refuse_unrepresentable("the model", largest, self._engine.dtype)
        except UnrepresentableWeightError:
            self._refuse_by_unit()
            raise

    def _refuse_by_unit(self) -> None:
        for name, magnitude in self._magnitudes.items():
            refuse_unrepresentable(name, magnitude.item(), self._engine.dtype)

    @torch.no_grad()
    def master_weight(self, name: str) -> Tensor:
        """Return a copy of the exact float32 weights of a parameter, in host memory."""
        self.finish()
        return self._store.master(name)

    def load_master_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Set the exact weights, and with them the parameters.

        Args:
            weights: By name; read one after the other.

        Raises:
            ValueError: if names or shapes are not those of the parameters.
            UnrepresentableWeightError: if a value does not fit.
        """
        self.finish()
        parameters = self._engine.parameters
        refuse_other_names("master weights", parameters, weights)
        for name, parameter in parameters.items():
            values = weights[name]
            if values.shape != parameter.shape:
                shapes = f"{tuple(values.shape)}, not {tuple(parameter.shape)}"
                raise ValueError(f"master weights: {name} is {shapes}")
            largest = largest_magnitude(values.float()).item()
            refuse_unrepresentable(name, largest, self._engine.dtype)
            self._store.set_master(name, values)
        self._engine.backend.synchronize()

    def weights(self) -> dict[str, Tensor]:
        """Return the parameters' values where they live, on the host or on the device."""
        engine = self._engine
        return {
            place.name: in_place(engine.weights[unit.name], place)
            for unit in engine.units
            for place in unit.tensors
        }

    def records_to_host(self) -> int:
        """Move the records that stay on the device to the host; return how many bytes that is."""
        self.finish()
        return self._store.move_to_host()

    def pieces(self) -> list[Piece]:
        """Return all that is in the records, in the order of the pass.

        The last step may still write it: see `last_step`.
        """
        return list(self._store.pieces())

    def facts(self) -> dict[str, Any]:
        """Return the plain values that belong to a saved state."""
        formats = dict(self._engine.rule.formats(self._engine.moments))
        return {
            "kind": self._engine.rule.kind,
            "t": self._t,
            "seed": self._seed,
            "formats": formats,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the parameters: plain values and the very tensors of the records.

        ``state`` holds, by parameter and state, flat pieces in order: how a tensor is cut may be
        another when it is loaded. Waits for the last step.
        """
        self.finish()
        state: dict[str, dict[str, list[Tensor]]] = {}
        for piece in self.pieces():
            planes = state.setdefault(piece.parameter, {})
            planes.setdefault(piece.plane, []).append(piece.values)
        return {**self.facts(), "state": state}

    @torch.no_grad()
    def load_state_dict(
        self, state: Mapping[str, Any], read: Callable[[Any], Tensor] = _as_it_is
    ) -> None:
        """Copy in what `state_dict` returned; the parameters must hold their values of that time.

        Args:
            state: The state; its pieces have at least ``dtype`` and ``numel()``.
            read: Returns the tensor of a piece; called for one after the other.

        Raises:
            ValueError: if it is of another optimizer, other parameters or other formats. Nothing
                has been changed then.
        """
        self.finish()
        refuse_other_facts(state, self.facts())
        self._store.refuse_other(state["state"])
        self._t, self._seed = state["t"], state["seed"]
        self._diagnostics = None
        self._store.load(state["state"], read)
        self._engine.backend.synchronize()

    def diagnostics(self) -> Diagnostics | None:
        """Return what the last step measured; None if it was not asked to. Waits for the step."""
        if self._survey is not None:
            self.finish()
            self._diagnostics, self._survey = self._survey.result(), None
        return self._diagnostics

    def bytes_on_host(self) -> int:
        """Return the size of the records in host memory."""
        return self._store.bytes_on_host()

    def bytes_on_device(self) -> int:
        """Return the size of the records that stay on the device."""
        return self._store.bytes_on_device()

    def _num_elements(self) -> int:
        return sum(parameter.numel() for parameter in self._engine.parameters.values())

    def _note_updated(self, unit: Unit) -> None:
        """Remember what a reader of the weights of ``unit`` must wait for."""
        queues = self._engine.backend
        streamed = self._engine.is_streamed(unit.name)
        event = (queues.copy_out if streamed else queues.update).record()
        self._updated[unit.name] = event
        self._issued.add(unit.name)
        if self._background is not None:
            self._background.notify()

    @torch.no_grad()
    def _update_bucket(self, bucket: Bucket, part_of: PartOf, lr: float, scale: Tensor) -> Event:
        """Put the update of a bucket on the queues; return when its gradients have been read."""
        self._scale = scale
        scalars = StepScalars(
            lr=lr, t=self._t, gradient_scale=scale, noise_keys=self._noise_keys(bucket.unit)
        )
        if self._asked is not None:
            self._asked.before_weights(bucket.unit)
        for chunk in bucket.chunks:
            _Passage(self, chunk, part_of(chunk)).issue(scalars)
        return self._engine.backend.update.record()

    def _noise_keys(self, unit: str) -> dict[str, int]:
        keys = {}
        for state in self._engine.rule.formats(self._engine.moments):
            if (unit, state) not in self._keys:
                self._keys[unit, state] = noise_key(self._seed, self._t, state, unit)
            keys[state] = self._keys[unit, state]
        return keys


class _Passage:
    """The way of one chunk through the device."""

    def __init__(self, owner: StreamedOptimizer, chunk: ChunkPlace, part: GradientPart) -> None:
        self._owner = owner
        self._engine = owner._engine
        self._queues = owner._engine.backend
        self._chunk = chunk
        self._part = part
        self._record = owner._store.records[chunk.index]
        self._weights = owner._engine.chunk_weights(chunk)
        self._streamed = owner._engine.is_streamed(chunk.unit)

    def issue(self, scalars: StepScalars) -> None:
        """Put all its copies and the update on the queues."""
        record, queues = self._record, self._queues
        lease = self._take_room()
        memory, gradient, weights = self._bring_in(lease)
        queues.update.wait(queues.copy_in.record())
        chunk = Chunk(
            weight=weights,
            master=record.shape.master(memory),
            gradient=gradient,
            states=record.shape.states(memory),
            start=self._chunk.start,
        )
        self._update(chunk, scalars)
        if lease is None:
            return
        queues.copy_out.wait(queues.update.record())
        transfers = self._engine.transfers
        if not record.on_device:
            if self._owner._asked is not None:
                self._owner._asked.before_record(record)
            transfers.to_host(memory, record.memory, pinned=record.pinned)
        if self._streamed:
            read = self._owner.last_read(self._chunk.unit)
            if read is not None:
                queues.copy_out.wait(read)
            transfers.to_host(weights, self._weights, pinned=True)
        released = queues.copy_out.record()
        record.written = None if record.on_device else released
        lease.give_back(released)

    def _sizes(self) -> tuple[int, int, int]:
        record = 0 if self._record.on_device else aligned(self._record.memory.nbytes)
        gradient = 0 if self._part.on_device else aligned(self._part.values.nbytes)
        weights = aligned(self._weights.nbytes) if self._streamed else 0
        return record, gradient, weights

    def _take_room(self) -> Lease | None:
        size = sum(self._sizes())
        if size == 0:
            return None
        lease = self._engine.ring.take(size)
        # Gradients have all been given back by now, and each passage gives back what it took.
        assert lease is not None, "the ring is not free for the optimizer pass"
        lease.wait_on(self._queues.copy_in)
        return lease

    def _bring_in(self, lease: Lease | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return record, gradient and weights where they are, or soon will be, on the device."""
        record, part, copy_in = self._record, self._part, self._queues.copy_in
        memory, gradient, weights = record.memory, part.values, self._weights
        first, second, _ = self._sizes()
        transfers = self._engine.transfers
        if lease is None:
            return memory, gradient, weights
        if not record.on_device:
            memory = lease.memory[: record.memory.nbytes]
            if record.written is not None:
                copy_in.wait(record.written)
            transfers.to_device(record.memory, memory, pinned=record.pinned)
        if not part.on_device:
            room = lease.memory[first : first + part.values.nbytes]
            gradient = room.view(part.values.dtype)
            if part.written is not None:
                copy_in.wait(part.written)
            transfers.to_device(part.values, gradient, pinned=part.pinned)
        if self._streamed:
            room = lease.memory[first + second : first + second + self._weights.nbytes]
            weights = room.view(self._weights.dtype)
            transfers.to_device(self._weights, weights, pinned=True)
        return memory, gradient, weights

    def _update(self, chunk: Chunk, scalars: StepScalars) -> None:
        owner, update = self._owner, self._queues.update
        magnitude = owner._magnitudes[self._chunk.unit]
        survey, name = owner._survey, f"{self._chunk.unit}:{self._chunk.start}"
        shape = self._chunk.tensors[0].shape if self._engine.rule.needs_shape else None
        parts = [self._chunk.part_of(place)[0] for place in self._chunk.tensors]
        if survey is not None:
            update.run(lambda: survey.before(name, chunk, parts))
        update.run(lambda: owner._apply(chunk, scalars, magnitude, shape))
        if survey is not None:
            update.run(lambda: survey.after(name, chunk, parts, self._engine.rule, shape))
