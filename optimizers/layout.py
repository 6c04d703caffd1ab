"""Where every weight stands: tensors in flat units, units cut into buckets, buckets into chunks.

A unit is what the model uses as one, and what is streamed as one. A bucket is a run of whole
tensors whose gradients travel as one. A chunk is a run of elements that are updated as one; with
its states it makes one record, which is one copy each way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from optimizers.chunk import QUANT_BLOCK

SMALL_TENSOR = 1 << 16
"""Tensors with fewer elements stay on the device, with states in float32."""
SMALL_UNIT = "(small tensors)"
CHUNK_ELEMENTS = 8 * 2**20
BUCKET_ELEMENTS = 20 * 2**20


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor stands in its unit.

    Attributes:
        name: Name of the parameter.
        shape: Its shape.
        start: Its first element; a multiple of `QUANT_BLOCK`.
    """

    name: str
    shape: torch.Size
    start: int

    @property
    def numel(self) -> int:
        """Number of elements."""
        return self.shape.numel()

    @property
    def end(self) -> int:
        """Where the next tensor begins: its padding is included."""
        return self.start + padded(self.numel)


@dataclass(frozen=True)
class ChunkPlace:
    """A run of elements of one unit, with the part of each tensor in it.

    Attributes:
        index: Number among all chunks.
        unit: Name of the unit.
        start: First element in the unit.
        numel: Number of elements; a multiple of `QUANT_BLOCK`.
        tensors: The tensors of which it holds a part.
    """

    index: int
    unit: str
    start: int
    numel: int
    tensors: tuple[TensorPlace, ...]

    @property
    def end(self) -> int:
        """The first element after it."""
        return self.start + self.numel

    def part_of(self, place: TensorPlace) -> tuple[slice, slice]:
        """Return which elements of the chunk are which elements of a tensor."""
        first = max(self.start, place.start)
        last = min(self.end, place.start + place.numel)
        return (
            slice(first - self.start, last - self.start),
            slice(first - place.start, last - place.start),
        )


@dataclass(frozen=True)
class Bucket:
    """A run of whole tensors of one unit.

    Attributes:
        index: Number among all buckets.
        unit: Name of the unit.
        start: First element in the unit.
        numel: Number of elements.
        tensors: Its tensors.
        chunks: What it is cut into.
    """

    index: int
    unit: str
    start: int
    numel: int
    tensors: tuple[TensorPlace, ...]
    chunks: tuple[ChunkPlace, ...]


@dataclass(frozen=True)
class Unit:
    """Tensors that stand in one flat run of memory, trained ones first.

    Attributes:
        name: Its name.
        tensors: Trained tensors.
        frozen: Tensors that only travel with it.
        numel_trained: Elements up to the end of the last trained tensor.
        numel: Elements in all.
        buckets: What its trained part is cut into.
    """

    name: str
    tensors: tuple[TensorPlace, ...]
    frozen: tuple[TensorPlace, ...]
    numel_trained: int
    numel: int
    buckets: tuple[Bucket, ...]

    @property
    def is_small(self) -> bool:
        """Whether it holds the small tensors, which stay on the device."""
        return self.name == SMALL_UNIT

    @property
    def chunks(self) -> tuple[ChunkPlace, ...]:
        """Its chunks."""
        return tuple(chunk for bucket in self.buckets for chunk in bucket.chunks)


def padded(numel: int) -> int:
    """Return ``numel`` rounded up to whole blocks."""
    return -(-numel // QUANT_BLOCK) * QUANT_BLOCK


def lay_out(
    groups: Mapping[str, Mapping[str, torch.Size]],
    frozen: Mapping[str, Mapping[str, torch.Size]] | None = None,
    *,
    chunk_elements: int = CHUNK_ELEMENTS,
    bucket_elements: int = BUCKET_ELEMENTS,
    small_tensor: int = SMALL_TENSOR,
    whole_tensors: bool = False,
) -> tuple[Unit, ...]:
    """Return the units of trained tensors, in the order given; that of small tensors comes first.

    Where an element stands depends on the tensors alone, not on how units are cut.

    Args:
        groups: Shapes of the trained tensors of each unit, by name.
        frozen: Shapes of tensors that travel with a unit without being trained.
        chunk_elements: Most elements in a chunk.
        bucket_elements: Most elements in a bucket of more than one tensor.
        small_tensor: Tensors with fewer elements go to the unit of small tensors.
        whole_tensors: Whether every tensor is one chunk, whatever its size.
    """
    frozen = frozen or {}
    small: dict[str, torch.Size] = {}
    large: dict[str, dict[str, torch.Size]] = {}
    for unit in dict.fromkeys([*groups, *frozen]):
        large[unit] = {}
        for name, shape in groups.get(unit, {}).items():
            (small if shape.numel() < small_tensor else large[unit])[name] = shape
    counters = _Counters()
    units = []
    cut = _Cut(0 if whole_tensors else chunk_elements, bucket_elements)
    if small:
        units.append(_unit(SMALL_UNIT, small, {}, cut, counters))
    for unit, tensors in large.items():
        if tensors or frozen.get(unit):
            units.append(_unit(unit, tensors, frozen.get(unit, {}), cut, counters))
    return tuple(units)


@dataclass
class _Counters:
    buckets: int = 0
    chunks: int = 0


@dataclass(frozen=True)
class _Cut:
    chunk_elements: int  # 0 for one chunk a tensor
    bucket_elements: int


def _unit(
    name: str,
    trained: Mapping[str, torch.Size],
    frozen: Mapping[str, torch.Size],
    cut: _Cut,
    counters: _Counters,
) -> Unit:
    places = _place(trained, 0)
    numel_trained = places[-1].end if places else 0
    frozen_places = _place(frozen, numel_trained)
    numel = frozen_places[-1].end if frozen_places else numel_trained
    buckets = []
    run: list[TensorPlace] = []
    for place in places:
        if run and place.end - run[0].start > cut.bucket_elements:
            buckets.append(_bucket(name, tuple(run), cut, counters))
            run = []
        run.append(place)
    if run:
        buckets.append(_bucket(name, tuple(run), cut, counters))
    return Unit(name, places, frozen_places, numel_trained, numel, tuple(buckets))


def _place(shapes: Mapping[str, torch.Size], start: int) -> tuple[TensorPlace, ...]:
    places = []
    for name, shape in shapes.items():
        place = TensorPlace(name, torch.Size(shape), start)
        places.append(place)
        start = place.end
    return tuple(places)


def _bucket(unit: str, tensors: tuple[TensorPlace, ...], cut: _Cut, counters: _Counters) -> Bucket:
    start, end = tensors[0].start, tensors[-1].end
    chunks = []
    for first, last in _bounds(tensors, cut):
        inside = tuple(t for t in tensors if t.start < last and first < t.start + t.numel)
        chunks.append(ChunkPlace(counters.chunks, unit, first, last - first, inside))
        counters.chunks += 1
    bucket = Bucket(counters.buckets, unit, start, end - start, tensors, tuple(chunks))
    counters.buckets += 1
    return bucket


def _bounds(tensors: tuple[TensorPlace, ...], cut: _Cut) -> list[tuple[int, int]]:
    """Return where the chunks of a bucket begin and end: about equal, none above the limit."""
    if cut.chunk_elements == 0:
        return [(tensor.start, tensor.end) for tensor in tensors]
    start, end = tensors[0].start, tensors[-1].end
    count = -(-(end - start) // cut.chunk_elements)
    step = padded(-(-(end - start) // count))
    return [(first, min(first + step, end)) for first in range(start, end, step)]
