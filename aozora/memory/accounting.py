"""How many bytes each part of a training run takes, and where.

Weights, records, sums and the ring are counted with the functions that lay them out, so their
sizes are exact. What is not laid out here (activations, the allocator, the driver, the process
itself) is estimated with the figures of `Coefficients`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from aozora.memory.units import is_transformer_block, unit_of
from optimizers.chunk_update import SCRATCH_ELEMENTS
from optimizers.host_memory import PAGE
from optimizers.layout import SMALL_TENSOR, Unit, lay_out
from optimizers.records import shape_record
from optimizers.ring import aligned, least_ring_bytes
from optimizers.rule import Moments, UpdateRule
from optimizers.transfers import BUFFERS_EACH_WAY

MIB = 2**20
GIB = 2**30

GradientPlace = Literal["device", "host", "nowhere"]
SumFormat = Literal["float32", "bfloat16"]

STANDARD_PIXELS = 128 * 128


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """What is measured rather than counted. SDXL's full-size UNet, 16-bit weights, PyTorch 2.11.

    Activations are linear in latent pixels and samples; they are given for 128 x 128 latents.

    Attributes:
        num_params: Of that model; of a smaller one, activations and work are as much smaller.
        activation_factor: Measured over counted activations. Between batch 1, 4 and 8 a Hopper card
            showed 690 MiB and 6,595 MiB a sample, where 691 and 6,581 were counted.
        workspace_bytes: What kernels take through the allocator whatever the size.
        slack_bytes: Reserved above allocated whatever the size, beyond what is counted here as
            rounded up to whole segments.
        slack_share: More of it, as a share of the activations. This and the three around it were
            fitted to 23 runs of the full size on a Hopper card (benchmarks/results): streamed or
            not, 25 to 100% trained, 768 to 1536 px, batch 1 to 4; the worst is then 6% off.
        loaded_bytes: What CUDA takes beside its context once kernels and libraries are loaded.
        page_table_share: What the card keeps of each page-locked byte: 110 MiB of 25.6 GB.
        margin_share: Share of the card's memory that a plan leaves alone.
        process_bytes: Main memory of the process before weights: libraries and CUDA's own.
        no_card_process_bytes: The same without a card. A run of 13 million weights is forecast to
            take 1.2 GiB with it; 0.9 to 1.1 were measured.
        batch_bytes: Main memory of one prepared sample.
        forward_flops: Of one sample, forward. Counted: 5.98e12 and 0.78e12 in attention.
        utilisation: Speed of the whole model as a share of a large matrix product's.
        launch_seconds: Least time of forward and backward, however small the work: the host's
            part. 0.15 s at batch 1 on a card that could do it in a tenth of that.
        recompute_launch_seconds: The same for what is computed twice.
        parking_share: What gradients that leave during backward add to its time: 0.95x to 1.10x
            were measured for bucketed copies out, which is within the noise.
        streaming_share: What weights that come and go add to the time of what they hide behind.
        link_share: Speed of copies of a few MiB beside computation, as a share of the best.
    """

    num_params: int = 2_567_463_684
    activation_factor: float = 1.0
    workspace_bytes: int = 160 * MIB
    slack_bytes: int = 0
    slack_share: float = 0.2
    loaded_bytes: int = 200 * MIB
    page_table_share: float = 0.0045
    margin_share: float = 0.03
    process_bytes: int = int(2.2 * GIB)
    no_card_process_bytes: int = int(0.8 * GIB)
    batch_bytes: int = 2 * MIB
    forward_flops: float = 6.76e12
    utilisation: float = 0.55
    launch_seconds: float = 0.15
    recompute_launch_seconds: float = 0.13
    parking_share: float = 0.05
    streaming_share: float = 0.03
    link_share: float = 0.9


COEFFICIENTS = Coefficients()


@dataclass(frozen=True, kw_only=True)
class UNetFacts:
    """What the planner needs to know of a run beside its settings.

    Attributes:
        shapes: Shape of every parameter of the UNet by name, in the model's order.
        trained: Names of those that are trained.
        rule: The optimizer's arithmetic.
        latent_pixels: Height times width of the largest latents that are trained.
        text_tokens: Tokens of the longest caption.
        file_bytes: Size of the base model's file, which a save repeats; 0 if of no interest.
    """

    shapes: Mapping[str, tuple[int, ...]]
    trained: Collection[str]
    rule: UpdateRule
    latent_pixels: int = STANDARD_PIXELS
    text_tokens: int = 77
    file_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class UnitSize:
    """Sizes of one unit, in bytes unless said otherwise.

    Attributes:
        name: Its name.
        flat: Its trained large tensors in one run of memory.
        streamed: The same with its frozen large tensors, as it is when it is streamed.
        records: What is kept of each chunk beside its weights.
        buckets: Elements of each bucket of gradients.
        chunks: Elements of each chunk.
    """

    name: str
    flat: int
    streamed: int
    records: tuple[int, ...]
    buckets: tuple[int, ...]
    chunks: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class RunSizes:
    """Sizes of everything that is laid out, whatever its place.

    Attributes:
        itemsize: Bytes of a weight on the device.
        units: Units with large trained tensors, and transformer blocks, in the engine's order.
        small_flat: Weights of the unit of small tensors.
        small_records: Its records.
        small_elements: Elements of its gradient sums.
        frozen: Frozen parameters outside the units' runs, each with its size, by unit.
        sum_itemsize: Bytes of a summed gradient.
        passing_itemsize: Bytes of one on its way, with those of a narrower form of it.
        scratch: Work space of the update.
        trained: Number of trained weights.
        total: Number of all weights.
    """

    itemsize: int
    units: tuple[UnitSize, ...]
    small_flat: int
    small_records: int
    small_elements: int
    frozen: tuple[tuple[str, int, bool], ...]
    sum_itemsize: int
    passing_itemsize: int
    scratch: int
    trained: int
    total: int

    @property
    def blocks(self) -> tuple[UnitSize, ...]:
        """The units that can be streamed, in the order of forward."""
        return tuple(unit for unit in self.units if is_transformer_block(unit.name))

    @property
    def record_bytes(self) -> int:
        """All records but those of small tensors."""
        return sum(sum(unit.records) for unit in self.units)

    @property
    def state_bytes(self) -> int:
        """Size of a saved state: the trained weights with all records."""
        return self.trained * self.itemsize + self.small_records + self.record_bytes

    def sum_bytes(self, place: GradientPlace) -> int:
        """Return the sums of all gradients but those of small tensors, at ``place``."""
        if place == "nowhere":
            return 0
        width = self.sum_itemsize
        return sum(sum(unit.buckets) for unit in self.units) * width

    def small_sums(self, place: GradientPlace) -> int:
        """Return the sums of small tensors' gradients; on the device, but as wide as the others."""
        return self.small_elements * self.sum_itemsize

    def records_on_device(self, room: int) -> list[int]:
        """Return the records that stay on the device: the last ones that fit ``room`` bytes."""
        found = []
        for unit in reversed(self.units):
            for size in reversed(unit.records):
                if size <= room:
                    room -= size
                    found.append(size)
        return found

    def weight_bytes(self, streamed: Collection[str]) -> tuple[int, ...]:
        """Return the sizes of all weights on the device, but for the slots of streamed ones."""
        flats = [unit.flat for unit in self.units if unit.name not in streamed and unit.flat]
        loose = [size for unit, size, travels in self.frozen if not (travels and unit in streamed)]
        return (self.small_flat, *flats, *loose)

    def ring_bytes(self, wanted: int, place: GradientPlace) -> int:
        """Return the size of a ring of at least ``wanted`` bytes; as the engine makes it."""
        width = self.sum_itemsize + self.itemsize
        passing, largest = 0, 0
        for unit in self.units:
            for record, numel in zip(unit.records, unit.chunks, strict=True):
                largest = max(largest, record + numel * width)
            if place != "device":
                passing = max(passing, *(n * self.passing_itemsize for n in unit.buckets), 0)
        least = least_ring_bytes(passing, largest, at_once=place == "nowhere")
        return aligned(max(wanted, least))

    def bounce_bytes(self, place: GradientPlace) -> tuple[int, ...]:
        """Return the buffers through which memory that is not page-locked passes."""
        width = self.sum_itemsize
        largest = 0
        for unit in self.units:
            for record, numel in zip(unit.records, unit.chunks, strict=True):
                largest = max(largest, aligned(max(record, numel * width)))
        return (largest,) * (2 * BUFFERS_EACH_WAY)


def sizes_of(
    facts: UNetFacts,
    dtype: torch.dtype,
    moments: Moments,
    *,
    micro_steps: int,
    sums: SumFormat,
) -> RunSizes:
    """Return the sizes of a run's parts.

    Args:
        facts: Of the model and the optimizer.
        dtype: Of the weights on the device.
        moments: How the optimizer's states are kept.
        micro_steps: Backward passes a step.
        sums: What gradients are summed in on the host.
    """
    trained: dict[str, dict[str, torch.Size]] = {}
    frozen: dict[str, dict[str, torch.Size]] = {}
    loose: list[tuple[str, int, bool]] = []
    is_trained = frozenset(facts.trained)
    for name, shape in facts.shapes.items():
        unit, size = unit_of(name), torch.Size(shape)
        if name in is_trained:
            trained.setdefault(unit, {})[name] = size
            continue
        travels = is_transformer_block(unit) and size.numel() >= SMALL_TENSOR
        loose.append((unit, size.numel() * dtype.itemsize, travels))
        if travels:
            frozen.setdefault(unit, {})[name] = size
    units = lay_out(trained, frozen, whole_tensors=facts.rule.needs_shape)
    small = next((unit for unit in units if unit.is_small), None)
    measure = _Measure(facts.rule, dtype, moments)
    is_single = micro_steps == 1 and dtype != torch.float16  # kept as it is
    kept = dtype
    if not is_single:
        kept = torch.bfloat16 if sums == "bfloat16" else torch.float32
    return RunSizes(
        itemsize=dtype.itemsize,
        units=tuple(measure.unit(unit) for unit in units if not unit.is_small),
        small_flat=small.numel * dtype.itemsize if small else 0,
        small_records=sum(measure.records(small)) if small else 0,
        small_elements=small.numel if small else 0,
        frozen=tuple(loose),
        sum_itemsize=kept.itemsize,
        passing_itemsize=kept.itemsize + (dtype.itemsize if kept != dtype else 0),
        scratch=measure.scratch(units),
        trained=sum(size.numel() for named in trained.values() for size in named.values()),
        total=sum(torch.Size(shape).numel() for shape in facts.shapes.values()),
    )


@dataclass(frozen=True)
class _Measure:
    rule: UpdateRule
    dtype: torch.dtype
    moments: Moments

    def unit(self, unit: Unit) -> UnitSize:
        width = self.dtype.itemsize
        return UnitSize(
            name=unit.name,
            flat=unit.numel_trained * width,
            streamed=unit.numel * width,
            records=self.records(unit),
            buckets=tuple(bucket.numel for bucket in unit.buckets),
            chunks=tuple(chunk.numel for chunk in unit.chunks),
        )

    def records(self, unit: Unit) -> tuple[int, ...]:
        formats = self.rule.formats("float32" if unit.is_small else self.moments)
        return tuple(
            shape_record(chunk, self.dtype, self.rule, formats).num_bytes for chunk in unit.chunks
        )

    def scratch(self, units: Collection[Unit]) -> int:
        """Return the work space of an update in plain torch operations."""
        elements = SCRATCH_ELEMENTS
        if self.rule.needs_shape:
            elements = max([elements, *(chunk.numel for unit in units for chunk in unit.chunks)])
        states = self.rule.states(torch.Size([elements]))
        return 4 * (3 * elements + sum(spec.shape.numel() for spec in states.values()))


def reserved(sizes: Collection[int]) -> int:
    """Return what PyTorch's allocator takes of the device for blocks that stay.

    Blocks above 10 MiB get a segment of their own in whole 2 MiB; smaller ones share segments of
    20 MiB, those up to 1 MiB segments of 2 MiB.
    """
    own = sum(_round_up(size, 2 * MIB) for size in sizes if size > 10 * MIB)
    middle = sum(_round_up(size, 512) for size in sizes if MIB < size <= 10 * MIB)
    small = sum(_round_up(size, 512) for size in sizes if size <= MIB)
    return own + _round_up(middle, 20 * MIB) + _round_up(small, 2 * MIB)


def in_pages(blocks: Iterable[int]) -> tuple[int, ...]:
    """Return what blocks of host memory take: whole pages."""
    return tuple(_round_up(size, PAGE) for size in blocks)


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step
