"""All records of a run: where they are, the exact weights in them, and how they are saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optimizers.chunk import QUANT_BLOCK
from optimizers.engine import Engine, in_place
from optimizers.layout import ChunkPlace, TensorPlace, Unit
from optimizers.precision import join_fp32, split_fp32
from optimizers.records import MASTER, Plane, Record

SCALES = ".scales"
"""Ending of the name under which the scales of a state are saved."""


@dataclass(frozen=True)
class Piece:
    """A flat part of one saved tensor.

    Attributes:
        parameter: Name of the parameter.
        plane: Name of the state, with `SCALES` for its scales, or `MASTER`.
        values: Its live values, on the host or on the device.
        record: Index of the chunk in whose record they are.
    """

    parameter: str
    plane: str
    values: Tensor
    record: int


class RecordStore:
    """Allocates the records of an engine and reads and writes single tensors in them.

    Args:
        engine: The run's memory.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._units = {place.name: unit for unit in engine.units for place in unit.tensors}
        self._places = {place.name: place for unit in engine.units for place in unit.tensors}
        self.records = self._allocate()

    def _allocate(self) -> dict[int, Record]:
        engine = self._engine
        room = engine.placement.device_record_bytes
        records = {}
        # The last chunks are updated last: what is on the device needs no copy when time is short.
        for unit in reversed(engine.units):
            for chunk in reversed(unit.chunks):
                shape = engine.record_shapes[chunk.index]
                if unit.is_small or shape.num_bytes <= room:
                    room -= 0 if unit.is_small else shape.num_bytes
                    memory = torch.zeros(shape.num_bytes, dtype=torch.uint8, device=engine.device)
                    records[chunk.index] = Record(chunk, shape, memory, True, True)
        for chunk in engine.chunks():
            if chunk.index not in records:
                shape = engine.record_shapes[chunk.index]
                block = engine.host.allocate(shape.num_bytes)
                records[chunk.index] = Record(chunk, shape, block.memory, block.pinned, False)
        return records

    def move_to_host(self) -> int:
        """Move all records but those of small tensors to the host; return the bytes moved.

        Nothing may be under way on any queue.
        """
        engine, moved = self._engine, 0
        for record in self.records.values():
            if record.on_device and not engine.unit_of[record.chunk.unit].is_small:
                block = engine.host.allocate(record.shape.num_bytes)
                block.memory.copy_(record.memory)
                record.memory, record.pinned, record.on_device = block.memory, block.pinned, False
                record.written = None
                moved += record.shape.num_bytes
        return moved

    def master(self, name: str) -> Tensor:
        """Return a copy of the exact float32 weights of a parameter, in host memory."""
        place, unit = self._places[name], self._units[name]
        weight = in_place(self._engine.weights[unit.name], place).detach().cpu()
        if weight.dtype == torch.float32:
            return weight.clone()
        kept = torch.int16 if weight.dtype == torch.bfloat16 else torch.float32
        master = torch.empty(place.numel, dtype=kept)
        for record, inside, outside in self._parts(unit, place):
            master[outside].copy_(_plane(record, MASTER).view(record.memory)[inside])
        if kept == torch.float32:
            return master.view(place.shape)
        return join_fp32(weight, master.view(place.shape))

    @torch.no_grad()
    def set_master(self, name: str, values: Tensor) -> None:
        """Set the exact weights of a parameter, and the parameter with them."""
        place, unit = self._places[name], self._units[name]
        weight = in_place(self._engine.weights[unit.name], place)
        if weight.dtype == torch.float32:
            weight.copy_(values)
            return
        exact = values.detach().to(torch.float32).contiguous()
        if weight.dtype == torch.bfloat16:
            hi, kept = split_fp32(exact)
            weight.copy_(hi)
        else:
            kept = exact
            weight.copy_(exact)
        flat = kept.view(-1)
        for record, inside, outside in self._parts(unit, place):
            _plane(record, MASTER).view(record.memory)[inside].copy_(flat[outside])

    def pieces(self) -> Iterator[Piece]:
        """Return everything in the records, chunk by chunk in the order of the pass."""
        for unit in self._engine.units:
            for chunk in unit.chunks:
                for place in chunk.tensors:
                    yield from self._pieces_of(chunk, place)

    def load(
        self,
        state: Mapping[str, Mapping[str, Sequence[Any]]],
        read: Callable[[Any], Tensor],
    ) -> None:
        """Copy in pieces by parameter and plane, however they are cut; `refuse_other` was asked."""
        targets: dict[tuple[str, str], list[Tensor]] = {}
        for piece in self.pieces():
            targets.setdefault((piece.parameter, piece.plane), []).append(piece.values)
        for (name, plane), pieces in targets.items():
            _copy_run(map(read, state[name][plane]), pieces)

    def refuse_other(self, state: Mapping[str, Mapping[str, Sequence[Any]]]) -> None:
        """Refuse pieces that are not of the same parameters, planes, sizes and formats.

        Raises:
            ValueError: naming the first that differs.
        """
        expected: dict[str, dict[str, tuple[torch.dtype, int]]] = {}
        for piece in self.pieces():
            planes = expected.setdefault(piece.parameter, {})
            _, numel = planes.get(piece.plane, (None, 0))
            planes[piece.plane] = (piece.values.dtype, numel + piece.values.numel())
        if set(expected) != set(state):
            other = sorted(set(expected) ^ set(state))
            raise ValueError(f"optimizer state: {len(other)} other tensors, such as {other[0]}")
        for name, planes in expected.items():
            if set(planes) != set(state[name]):
                raise ValueError(f"optimizer state of {name}: {', '.join(sorted(state[name]))}")
            for plane, (dtype, numel) in planes.items():
                saved = state[name][plane]
                found = sum(piece.numel() for piece in saved)
                if found != numel or any(piece.dtype != dtype for piece in saved):
                    raise ValueError(
                        f"optimizer state of {name}: {plane} is not {numel} values of {dtype}"
                    )

    def bytes_on_host(self) -> int:
        """Return the size of the records in host memory."""
        return sum(r.memory.nbytes for r in self.records.values() if not r.on_device)

    def bytes_on_device(self) -> int:
        """Return the size of the records that stay on the device."""
        return sum(r.memory.nbytes for r in self.records.values() if r.on_device)

    def _parts(self, unit: Unit, place: TensorPlace) -> Iterator[tuple[Record, slice, slice]]:
        for chunk in unit.chunks:
            if any(tensor.name == place.name for tensor in chunk.tensors):
                inside, outside = chunk.part_of(place)
                yield self.records[chunk.index], inside, outside

    def _pieces_of(self, chunk: ChunkPlace, place: TensorPlace) -> Iterator[Piece]:
        record = self.records[chunk.index]
        inside, _ = chunk.part_of(place)
        for plane in record.shape.planes:
            values = plane.view(record.memory)
            if plane.per_element:
                values = values[inside]
            yield Piece(place.name, plane.name, values, chunk.index)
            scales = plane.scales_view(record.memory)
            if scales is not None:
                blocks = slice(inside.start // QUANT_BLOCK, -(-inside.stop // QUANT_BLOCK))
                yield Piece(place.name, plane.name + SCALES, scales[blocks], chunk.index)


def _plane(record: Record, name: str) -> Plane:
    return next(plane for plane in record.shape.planes if plane.name == name)


def _copy_run(sources: Iterator[Tensor], targets: Sequence[Tensor]) -> None:
    """Copy values that are cut one way into memory that is cut another way."""
    left = torch.empty(0)
    for target in targets:
        filled = 0
        while filled < target.numel():
            if left.numel() == 0:
                left = next(sources).reshape(-1)
            part = left[: target.numel() - filled]
            target[filled : filled + part.numel()].copy_(part)
            filled += part.numel()
            left = left[part.numel() :]
