"""What is kept of a chunk beside its weights: low bits or exact weights, and states, in one run.

A record is contiguous, so that a chunk travels in one copy each way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from optimizers.backend import Event
from optimizers.chunk import QUANT_BLOCK, StatePlane
from optimizers.layout import ChunkPlace
from optimizers.precision import BLOCK_FORMATS, STORAGE_DTYPES, StateFormat
from optimizers.rule import UpdateRule

_ALIGNMENT = 256

# What is kept of a parameter's exact weight outside the parameter.
MASTER_DTYPES: dict[torch.dtype, torch.dtype | None] = {
    torch.float32: None,
    torch.bfloat16: torch.int16,
    torch.float16: torch.float32,
}
MASTER = "master"
"""Name of that plane; no state is called so."""


@dataclass(frozen=True)
class Plane:
    """A part of a record.

    Attributes:
        name: Name of the state, or `MASTER`.
        offset: First byte in the record.
        numel: Number of values.
        dtype: Of the values.
        per_element: Whether it has one value for each weight of the chunk.
        scales: Where its scales begin; None if it has none.
        state_format: How the state is kept; None for the master.
    """

    name: str
    offset: int
    numel: int
    dtype: torch.dtype
    per_element: bool
    scales: int | None
    state_format: StateFormat | None

    def view(self, memory: Tensor) -> Tensor:
        """Return its values in a record's memory."""
        size = self.numel * self.dtype.itemsize
        return memory[self.offset : self.offset + size].view(self.dtype)

    def scales_view(self, memory: Tensor) -> Tensor | None:
        """Return its scales in a record's memory."""
        if self.scales is None:
            return None
        size = self.numel // QUANT_BLOCK * 4
        return memory[self.scales : self.scales + size].view(torch.float32)


@dataclass(frozen=True)
class RecordShape:
    """Which planes a record has, and how long it is."""

    planes: tuple[Plane, ...]
    num_bytes: int

    def master(self, memory: Tensor) -> Tensor | None:
        """Return the master plane in a record's memory, if there is one."""
        for plane in self.planes:
            if plane.state_format is None:
                return plane.view(memory)
        return None

    def states(self, memory: Tensor) -> dict[str, StatePlane]:
        """Return the states in a record's memory."""
        return {
            plane.name: StatePlane(
                plane.view(memory), plane.scales_view(memory), plane.state_format
            )
            for plane in self.planes
            if plane.state_format is not None
        }


def shape_record(
    chunk: ChunkPlace,
    weight_dtype: torch.dtype,
    rule: UpdateRule,
    formats: Mapping[str, StateFormat],
) -> RecordShape:
    """Return the planes of a chunk's record.

    Raises:
        ValueError: if the dtype cannot be trained, or a format is not one of the rule's.
    """
    if weight_dtype not in MASTER_DTYPES:
        raise ValueError(f"parameters of {weight_dtype} cannot be trained")
    planes: list[Plane] = []
    end = 0

    def add(
        name: str, numel: int, dtype: torch.dtype, *, whole: bool, kept: StateFormat | None
    ) -> None:
        nonlocal end
        offset = end
        end += -(-numel * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
        scales = None
        if kept in BLOCK_FORMATS:
            scales = end
            end += -(-numel // QUANT_BLOCK * 4 // _ALIGNMENT) * _ALIGNMENT
        planes.append(Plane(name, offset, numel, dtype, whole, scales, kept))

    master = MASTER_DTYPES[weight_dtype]
    if master is not None:
        add(MASTER, chunk.numel, master, whole=True, kept=None)
    shape = chunk.tensors[0].shape if rule.needs_shape else torch.Size([chunk.numel])
    for name, spec in rule.states(shape).items():
        kept = formats.get(name)
        if kept is None or kept not in spec.formats:
            raise ValueError(f"{name}: {kept!r} is not one of {', '.join(spec.formats)}")
        per_element = spec.shape == shape
        numel = chunk.numel if per_element else spec.shape.numel()
        add(name, numel, STORAGE_DTYPES[kept], whole=per_element, kept=kept)
    return RecordShape(tuple(planes), end)


@dataclass
class Record:
    """The record of one chunk, wherever it is.

    Attributes:
        chunk: Its place.
        shape: Its planes.
        memory: uint8; on the host, or on the device for a record that stays there.
        pinned: Whether the device can copy it by itself; of no meaning on the device.
        on_device: Whether it stays there.
        written: After it, the last update is in ``memory``.
    """

    chunk: ChunkPlace
    shape: RecordShape
    memory: Tensor
    pinned: bool
    on_device: bool
    written: Event | None = field(default=None, repr=False)
