"""What an arrangement of a run takes of the card and of main memory, and how long its steps are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache

from aozora.config.sections import TrainingSection
from aozora.memory.accounting import (
    COEFFICIENTS,
    STANDARD_PIXELS,
    Coefficients,
    GradientPlace,
    RunSizes,
    UNetFacts,
    in_pages,
    reserved,
)
from aozora.memory.activation_bytes import ActivationShape, Cost, peak_bytes
from aozora.memory.machine import Machine, Rates
from aozora.memory.recompute import Level, RecomputePlan
from aozora.memory.recompute_plan import FLOPS_PER_BYTE, plan_recompute, total_cost
from aozora.memory.unet_parts import parts_from_shapes


@dataclass(frozen=True, kw_only=True)
class MemoryForecast:
    """What a run is expected to take.

    Attributes:
        vram: Most memory of the card in use, with CUDA's own, in bytes; 0 on the processor.
        reserved: How much of it PyTorch reserves.
        ram: Most main memory of the process, in bytes.
        pinned: How much of it is page-locked.
        disk: Size of one save, in bytes.
        seconds: Of one optimizer step, all its batches included.
        vram_parts: What ``vram`` is made of: names for people, bytes.
        ram_parts: What ``ram`` is made of.
    """

    vram: int
    reserved: int
    ram: int
    pinned: int
    disk: int
    seconds: float
    vram_parts: tuple[tuple[str, int], ...]
    ram_parts: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One arrangement.

    Attributes:
        streamed: Units whose weights wait on the host.
        slots: How many of them are on the device at once.
        gradients: Where sums wait.
        device_records: Bytes of records that may stay on the device.
        ring: Wanted size of the ring.
        recompute: Which activations are computed twice.
    """

    streamed: frozenset[str] = frozenset()
    slots: int = 0
    gradients: GradientPlace = "host"
    device_records: int = 0
    ring: int = 0
    recompute: RecomputePlan = field(default_factory=RecomputePlan)


def beside_torch(machine: Machine, pinned: int, known: Coefficients = COEFFICIENTS) -> int:
    """Return what CUDA takes of a card for itself when ``pinned`` bytes are page-locked."""
    if not machine.has_card:
        return 0
    return machine.context_bytes + known.loaded_bytes + int(known.page_table_share * pinned)


class Forecaster:
    """Forecasts arrangements of one run.

    Args:
        sizes: Of what is laid out.
        facts: Of the model.
        training: Batch size, accumulation, batches ahead.
        machine: What there is; on the processor nothing is copied.
        pin_bytes: Most main memory to page-lock.
        coefficients: What was measured.
    """

    def __init__(
        self,
        sizes: RunSizes,
        facts: UNetFacts,
        training: TrainingSection,
        machine: Machine,
        pin_bytes: int,
        coefficients: Coefficients = COEFFICIENTS,
    ) -> None:
        self.sizes = sizes
        self._facts = facts
        self._training = training
        self._machine = machine
        self._pin_bytes = pin_bytes
        self._known = coefficients
        has_card = machine.has_card
        self._workspace = coefficients.workspace_bytes if has_card else 0
        self._parts = parts_from_shapes(facts.shapes)
        self._shape = ActivationShape(
            pixels=facts.latent_pixels,
            batch=training.batch_size,
            text_tokens=facts.text_tokens,
            itemsize=sizes.itemsize,
        )
        self._share = sizes.total / coefficients.num_params
        self._work = self._share * training.batch_size * facts.latent_pixels / STANDARD_PIXELS
        self._costs: dict[tuple[tuple[str, Level], ...], Cost] = {}
        self._all_again = self._again(RecomputePlan())

    @property
    def cost_of_stored(self) -> float:
        """Bytes of the card that a stored byte costs."""
        return self._known.activation_factor * (1 + self._known.slack_share)

    def recompute_within(self, budget_bytes: int, streamed: Collection[str]) -> RecomputePlan:
        """Return what to recompute so that at most ``budget_bytes`` more are stored."""
        return plan_recompute(self._parts, self._shape, budget_bytes, streamed=streamed)

    def cost_of(self, plan: RecomputePlan) -> Cost:
        """Return what a plan stores and repeats."""
        key = tuple(plan.levels.items())
        if key not in self._costs:
            self._costs[key] = total_cost(plan, self._parts, self._shape)
        return self._costs[key]

    def stored_bytes(self, choice: Choice) -> int:
        """Return the activations that are stored beyond those of full recomputation."""
        return self.cost_of(choice.recompute).kept_bytes

    def share_again(self, plan: RecomputePlan) -> float:
        """Return how much of the work that can be done twice is, from 0 to 1."""
        return self._again(plan) / self._all_again if self._all_again else 0.0

    def _again(self, plan: RecomputePlan) -> float:
        """Return the operations that are done twice; other work counts as so many of them."""
        cost = self.cost_of(plan)
        return cost.repeated_flops + FLOPS_PER_BYTE * cost.repeated_bytes

    def _activations(self, plan: RecomputePlan) -> int:
        # The peak is that of the full-size model; a smaller one has as much less.
        peak = self._share * peak_bytes(self._shape) + self.cost_of(plan).kept_bytes
        return int(self._known.activation_factor * peak)

    def forecast(self, choice: Choice) -> MemoryForecast:
        """Return what ``choice`` would take."""
        blocks = self._host_blocks(choice)
        pinned = self._pinned(choice, in_pages(size for part in blocks.values() for size in part))
        vram_parts = self._vram(choice, pinned)
        ram_parts = self._ram(choice, blocks)
        vram = sum(size for _, size in vram_parts)
        ram = sum(size for _, size in ram_parts)
        if not self._machine.has_card:
            ram_parts = (*ram_parts, *vram_parts)
            vram, ram, vram_parts = 0, ram + vram, ()
        return MemoryForecast(
            vram=vram,
            reserved=max(0, vram - beside_torch(self._machine, pinned, self._known)),
            ram=ram,
            pinned=pinned,
            disk=self._disk(),
            seconds=self._seconds(choice, pinned),
            vram_parts=vram_parts,
            ram_parts=ram_parts,
        )

    @cache  # noqa: B019 - lives as long as one plan is made
    def _ring_bytes(self, wanted: int, gradients: GradientPlace) -> int:
        return self.sizes.ring_bytes(wanted, gradients)

    @cache  # noqa: B019 - as above
    def _bounce_bytes(self, gradients: GradientPlace) -> tuple[int, ...]:
        return self.sizes.bounce_bytes(gradients)

    def _vram(self, choice: Choice, pinned: int) -> tuple[tuple[str, int], ...]:
        sizes, known = self.sizes, self._known
        slot = max(
            (unit.streamed for unit in sizes.units if unit.name in choice.streamed), default=0
        )
        weights = [*sizes.weight_bytes(choice.streamed)]
        slots = [slot] * min(choice.slots, len(choice.streamed))
        records = [sizes.small_records, *sizes.records_on_device(choice.device_records)]
        sums = [sizes.small_sums(choice.gradients)]
        if choice.gradients == "device":
            width = sizes.sum_itemsize
            sums += [numel * width for unit in sizes.units for numel in unit.buckets]
        ring = self._ring_bytes(choice.ring, choice.gradients)
        activations = self._activations(choice.recompute)
        # Small blocks of all kinds share segments, so their rounding is counted once, at the end.
        parts = [
            ("CUDA", beside_torch(self._machine, pinned, known)),
            ("weights", sum(weights)),
            ("slots of streamed weights", sum(slots)),
            ("optimizer states", sum(records)),
            ("gradients", sum(sums)),
            ("passing through", ring),
            ("work space of the update", sizes.scratch),
            ("activations", activations),
            ("work space of kernels", self._workspace),
        ]
        if self._machine.has_card:
            laid_out = [*weights, *slots, *records, *sums, ring, sizes.scratch]
            rounding = reserved(laid_out) - sum(laid_out)
            slack = known.slack_bytes + int(known.slack_share * activations)
            parts.append(("lost between blocks", rounding + slack))
        return tuple((name, size) for name, size in parts if size)

    def _host_blocks(self, choice: Choice) -> dict[str, tuple[int, ...]]:
        """Return the blocks of host memory in the order in which they are allocated."""
        sizes = self.sizes
        weights = tuple(unit.streamed for unit in sizes.units if unit.name in choice.streamed)
        sums: tuple[int, ...] = ()
        if choice.gradients == "host":
            width = sizes.sum_itemsize
            sums = tuple(numel * width for unit in sizes.units for numel in unit.buckets)
        records = [size for unit in sizes.units for size in unit.records]
        for size in sizes.records_on_device(choice.device_records):
            records.remove(size)
        bounce: tuple[int, ...] = ()
        if self._machine.has_card and sum(weights) + sum(sums) + sum(records) > self._pin_bytes:
            bounce = self._bounce_bytes(choice.gradients)
        return {
            "copy buffers": bounce,
            "weights": weights,
            "gradients": sums,
            "optimizer states": tuple(records),
        }

    def _ram(
        self, choice: Choice, blocks: Mapping[str, tuple[int, ...]]
    ) -> tuple[tuple[str, int], ...]:
        known, training = self._known, self._training
        has_card = self._machine.has_card
        process = known.process_bytes if has_card else known.no_card_process_bytes
        batch = known.batch_bytes * training.batch_size * (training.prefetch_batches + 1)
        batch = batch * self._facts.latent_pixels // STANDARD_PIXELS
        used = {name: sum(in_pages(part)) for name, part in blocks.items()}
        parts = {"programs and libraries": process, "batches": batch, **used}
        if has_card:
            # Trained weights are read into main memory first, before sums and states are there.
            loading = self.sizes.trained * self.sizes.itemsize + process
            parts["loading the model"] = max(0, loading - sum(parts.values()))
        return tuple((name, size) for name, size in parts.items() if size)

    def _pinned(self, choice: Choice, blocks: tuple[int, ...]) -> int:
        """Return what is page-locked: block after block, those left out that no longer fit."""
        if not self._machine.has_card:
            return 0
        budget = left = self._pin_bytes
        for block in blocks:
            if block <= left:
                left -= block
        return budget - left

    def _disk(self) -> int:
        """Return the size of a save: the model file, and the state to go on from."""
        return self._facts.file_bytes + self.sizes.state_bytes

    def _seconds(self, choice: Choice, pinned: int) -> float:
        """Return how long an optimizer step takes, with all its batches."""
        known, machine, sizes = self._known, self._machine, self.sizes
        count = self._training.accumulation_steps
        again = self.share_again(choice.recompute)
        first = known.forward_flops * self._work
        second = first * (1 + sizes.trained / max(sizes.total, 1)) + self._again(choice.recompute)
        speed = machine.rates.flops * known.utilisation
        forward, backward = first / speed, second / speed
        if not machine.has_card:
            return (forward + backward) * count
        launching = known.launch_seconds + known.recompute_launch_seconds * again
        slower = max(1.0, launching / (forward + backward))
        slower *= 1 + (known.parking_share if choice.gradients != "device" else 0.0)
        slower *= 1 + (known.streaming_share if choice.streamed else 0.0)
        forward, backward = forward * slower, backward * slower
        link = _Link(machine.rates, known.link_share)
        weights = sum(unit.streamed for unit in sizes.units if unit.name in choice.streamed)
        seconds = 0.0
        for number in range(count):
            down, up = self._gradient_traffic(choice, number, count)
            seconds += max(forward, link.seconds(weights, 0))
            seconds += max(backward, link.seconds(weights + down, up))
        # The next forward pass begins while the update is still under way.
        return seconds + max(0.0, self._update_seconds(choice, pinned, link) - forward)

    def _gradient_traffic(self, choice: Choice, number: int, count: int) -> tuple[int, int]:
        """Return the bytes that come and go beside one backward, streamed weights aside."""
        sizes = self.sizes
        if choice.gradients == "device":
            return 0, 0
        if choice.gradients == "nowhere":
            written = sum(unit.flat for unit in sizes.units if unit.name in choice.streamed)
            passing = self._records_off_device(choice) + written
            return passing, passing
        sums = sizes.sum_bytes("host")
        single = sums * sizes.itemsize // sizes.sum_itemsize
        return (sums if number > 0 else 0), (single if number == 0 else sums)

    def _records_off_device(self, choice: Choice) -> int:
        kept = self.sizes.records_on_device(choice.device_records)
        return self.sizes.record_bytes - sum(kept)

    def _update_seconds(self, choice: Choice, pinned: int, link: _Link) -> float:
        """Return how long the optimizer pass takes on its own."""
        if choice.gradients == "nowhere":
            return 0.0
        sizes = self.sizes
        records = self._records_off_device(choice)
        weights = sum(unit.flat for unit in sizes.units if unit.name in choice.streamed)
        sums = sizes.sum_bytes("host") if choice.gradients == "host" else 0
        seconds = link.seconds(records + weights + sums, records + weights)
        # What is not page-locked is copied by the host as well, once for each way.
        loose = min(records, max(0, records + weights + sums - pinned))
        return max(seconds, 2 * loose / self._machine.rates.memcpy)


@dataclass(frozen=True)
class _Link:
    rates: Rates
    share: float

    def seconds(self, down: int, up: int) -> float:
        """Return how long copies of so many bytes each way take."""
        both = min(down, up)
        alone = (down - both) / self.rates.to_device + (up - both) / self.rates.to_host
        return (both / self.rates.duplex + alone) / self.share
