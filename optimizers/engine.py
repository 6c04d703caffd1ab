"""The memory of a training run: flat weights, host memory, the ring, and who is where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from optimizers.backend import Backend, backend_for
from optimizers.chunk import QUANT_BLOCK
from optimizers.host_memory import HostMemory
from optimizers.layout import (
    BUCKET_ELEMENTS,
    CHUNK_ELEMENTS,
    SMALL_TENSOR,
    Bucket,
    ChunkPlace,
    TensorPlace,
    Unit,
    lay_out,
)
from optimizers.placement import Placement
from optimizers.records import RecordShape, shape_record
from optimizers.ring import Ring, aligned, least_ring_bytes
from optimizers.rule import Moments, UpdateRule
from optimizers.transfers import Transfers


class Engine:
    """Lays parameters out in flat units and owns what passes between host and device.

    After this, every trained parameter is a view of its unit's flat weights.

    Args:
        parameters: What is trained, by name; all of one dtype, wherever they are now.
        rule: The arithmetic of the optimizer.
        moments: How its states are kept.
        placement: What goes where.
        device: Where the model runs.
        frozen: Parameters that are not trained but belong to a streamed unit.
        micro_steps: Backward passes whose gradients are summed for one step.
        update_order: Names of all parameters, trained and not, in the order in which forward needs
            them; that of ``parameters`` if None.
        backend: The queues; those of ``device`` if None.

    Raises:
        ValueError: if there is nothing to train, dtypes differ, or a dtype cannot be trained.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        rule: UpdateRule,
        *,
        moments: Moments = "float32",
        placement: Placement | None = None,
        device: torch.device,
        frozen: Mapping[str, nn.Parameter] | None = None,
        micro_steps: int = 1,
        update_order: Iterable[str] | None = None,
        backend: Backend | None = None,
    ) -> None:
        placement = placement or Placement()
        self.placement = placement
        self.device = device
        self.rule = rule
        self.moments: Moments = moments
        self.micro_steps = micro_steps
        self.parameters = dict(parameters)
        self.dtype = _one_dtype(self.parameters)
        self.backend = backend or backend_for(device)
        self._frozen = {
            name: parameter
            for name, parameter in (frozen or {}).items()
            if placement.units.get(name, name) in placement.streamed
            and parameter.numel() >= _small_tensor(placement)
        }
        self.units = self._lay_out(update_order)
        self.unit_of = {unit.name: unit for unit in self.units}
        self.record_shapes = self._shape_records()
        self.host = HostMemory(device, placement.pin_bytes)
        bounce = 0
        if device.type == "cuda" and self.host_bytes() > placement.pin_bytes:
            bounce = max(self._chunk_bytes(chunk) for chunk in self.chunks())
        self.transfers = Transfers(self.backend, self.host, bounce)
        self.weights: dict[str, Tensor] = {}
        for unit in self.units:
            self.weights[unit.name] = self._place_weights(unit)
        self.ring = self._new_ring()

    def change_placement(self, *, streamed: Iterable[str] = (), parks_gradients: bool) -> None:
        """Move weights, and the room for gradients, from the device to the host.

        Nothing may be under way on any queue. Sums that are kept by others are theirs to move.

        Args:
            streamed: Units whose weights move to the host; these may be there already.
            parks_gradients: Whether sums of gradients wait on the host from now on.
        """
        moved = [name for name in streamed if not self.is_streamed(name)]
        self.placement = replace(
            self.placement,
            streamed=self.placement.streamed | {*moved},
            gradients="host" if parks_gradients else self.placement.gradients,
        )
        for name in moved:
            self.weights[name] = self._place_weights(self.unit_of[name])
        self.ring = Ring(0, self.device)  # the old one is free before the new one is there
        self.ring = self._new_ring()

    def _new_ring(self) -> Ring:
        size = max(self.placement.ring_bytes, self._least_ring_bytes())
        return Ring(size, self.device)

    def chunks(self) -> list[ChunkPlace]:
        """Return all chunks in the order in which they are updated."""
        return [chunk for unit in self.units for chunk in unit.chunks]

    def buckets(self) -> list[Bucket]:
        """Return all buckets in the order of the units."""
        return [bucket for unit in self.units for bucket in unit.buckets]

    def is_streamed(self, unit: str) -> bool:
        """Return whether the weights of ``unit`` live on the host."""
        return unit in self.placement.streamed

    def chunk_weights(self, chunk: ChunkPlace) -> Tensor:
        """Return the weights of a chunk where they live."""
        return self.weights[chunk.unit][chunk.start : chunk.end]

    def record_bytes(self) -> int:
        """Return the size of all records."""
        return sum(shape.num_bytes for shape in self.record_shapes.values())

    def sum_bytes(self, bucket: Bucket) -> int:
        """Return the size of the host memory that sums of a bucket's gradients take."""
        return bucket.numel * self.sum_dtype.itemsize if self.is_parked(bucket) else 0

    def is_resident(self, bucket: Bucket) -> bool:
        """Return whether the sums of a bucket's gradients stay on the device."""
        return self.placement.gradients == "device" or self.unit_of[bucket.unit].is_small

    def is_parked(self, bucket: Bucket) -> bool:
        """Return whether the sums of a bucket's gradients wait on the host."""
        return self.placement.gradients == "host" and not self.is_resident(bucket)

    @property
    def sum_dtype(self) -> torch.dtype:
        """What gradients are summed in. A single one is kept as it is."""
        if self.micro_steps == 1 and self.dtype != torch.float16:
            return self.dtype
        if self.placement.sums == "bfloat16":
            return torch.bfloat16
        return torch.float32

    def host_bytes(self) -> int:
        """Return the host memory that weights, sums and records take."""
        weights = sum(
            unit.numel * self.dtype.itemsize for unit in self.units if self.is_streamed(unit.name)
        )
        sums = sum(self.sum_bytes(bucket) for bucket in self.buckets())
        return weights + sums + self.record_bytes() - self.placement.device_record_bytes

    def _lay_out(self, update_order: Iterable[str] | None) -> tuple[Unit, ...]:
        placement = self.placement
        order = [*self.parameters, *self._frozen] if update_order is None else [*update_order]

        def grouped(named: Mapping[str, nn.Parameter]) -> dict[str, dict[str, torch.Size]]:
            groups: dict[str, dict[str, torch.Size]] = {}
            for name in order:
                if name in named:
                    unit = placement.units.get(name, name)
                    groups.setdefault(unit, {})[name] = named[name].shape
            return groups

        return lay_out(
            grouped(self.parameters),
            grouped(self._frozen),
            chunk_elements=placement.chunk_elements or CHUNK_ELEMENTS,
            bucket_elements=placement.bucket_elements or BUCKET_ELEMENTS,
            small_tensor=_small_tensor(placement),
            whole_tensors=self.rule.needs_shape,
        )

    def _shape_records(self) -> dict[int, RecordShape]:
        usual, exact = self.rule.formats(self.moments), self.rule.formats("float32")
        return {
            chunk.index: shape_record(
                chunk, self.dtype, self.rule, exact if unit.is_small else usual
            )
            for unit in self.units
            for chunk in unit.chunks
        }

    def _place_weights(self, unit: Unit) -> Tensor:
        if self.is_streamed(unit.name):
            size = unit.numel * self.dtype.itemsize
            flat = self.host.allocate(size).memory.view(self.dtype)
        else:
            flat = torch.zeros(unit.numel, dtype=self.dtype, device=self.device)
        for place in (*unit.tensors, *unit.frozen):
            named = self.parameters if place.name in self.parameters else self._frozen
            parameter = named[place.name]
            view = in_place(flat, place)
            view.copy_(parameter.detach())
            parameter.data = view
        return flat

    def passing_bytes(self, bucket: Bucket) -> int:
        """Return the room that a bucket's gradients need on their way through the device."""
        itemsize = self.sum_dtype.itemsize
        if self.dtype != self.sum_dtype:
            itemsize += self.dtype.itemsize  # the narrower form in which gradients come and go
        return bucket.numel * itemsize

    def _least_ring_bytes(self) -> int:
        passing, largest = 0, 0
        weight = self.dtype.itemsize
        for bucket in self.buckets():
            if not self.is_resident(bucket):
                passing = max(passing, self.passing_bytes(bucket))
            for chunk in bucket.chunks:
                size = self.record_shapes[chunk.index].num_bytes
                size += chunk.numel * (self.sum_dtype.itemsize + weight)
                largest = max(largest, size)
        at_once = self.placement.gradients == "nowhere"
        return least_ring_bytes(passing, largest, at_once=at_once)

    def _chunk_bytes(self, chunk: ChunkPlace) -> int:
        """Return the size of a chunk's record, or of its summed gradient if that is larger."""
        record = self.record_shapes[chunk.index].num_bytes
        return aligned(max(record, chunk.numel * self.sum_dtype.itemsize))

    @property
    def frozen(self) -> Mapping[str, nn.Parameter]:
        """Frozen parameters that travel with streamed units."""
        return self._frozen


def in_place(flat: Tensor, place: TensorPlace) -> Tensor:
    """Return the part of a unit's flat memory that is one tensor, in its shape."""
    return flat[place.start : place.start + place.numel].view(place.shape)


def _small_tensor(placement: Placement) -> int:
    return SMALL_TENSOR if placement.small_tensor < 0 else placement.small_tensor


def _one_dtype(parameters: Mapping[str, nn.Parameter]) -> torch.dtype:
    if not parameters:
        raise ValueError("there are no parameters to train")
    dtypes = {parameter.dtype for parameter in parameters.values()}
    if len(dtypes) != 1:
        raise ValueError(f"parameters of different formats: {sorted(map(str, dtypes))}")
    return dtypes.pop()


assert QUANT_BLOCK % 64 == 0, "views of narrower dtypes must stay aligned"
