"""What an arrangement of a run takes of the card and of main memory, and how long its steps are."""

from __future__ import annotations

from dataclasses import dataclass

from aozora.config.sections import TrainingSection
from aozora.memory.accounting import (
    COEFFICIENTS,
    STANDARD_PIXELS,
    Coefficients,
    GradientPlace,
    RunSizes,
    UNetFacts,
    reserved,
    slabs,
)
from aozora.memory.machine import Machine


@dataclass(frozen=True, kw_only=True)
class MemoryForecast:
    """What a run is expected to take.

    Attributes:
        vram: Most memory of the card in use, with CUDA's own, in bytes; 0 on the processor.
        ram: Most main memory of the process, in bytes.
        pinned: How much of it is page-locked.
        disk: Size of one save, in bytes.
        seconds: Of one optimizer step, all its batches included.
        vram_parts: What ``vram`` is made of: names for people, bytes.
        ram_parts: What ``ram`` is made of.
    """

    vram: int
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
        stored: Activations that may be stored beyond those of full recomputation.
    """

    streamed: frozenset[str] = frozenset()
    slots: int = 0
    gradients: GradientPlace = "host"
    device_records: int = 0
    ring: int = 0
    stored: int = 0


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
        # Activations of a small model are small: they go with the weights.
        num_params = sum(_numel(shape) for shape in facts.shapes.values())
        share = num_params / coefficients.num_params
        self._scale = share * training.batch_size * facts.latent_pixels / STANDARD_PIXELS
        self._wide = sizes.itemsize / 2  # activations have the weights' format

    def storable(self, streamed: int) -> int:
        """Return the activations that could be stored beyond those of full recomputation.

        A streamed block keeps none: its weights are gone when they would be used.

        Args:
            streamed: Bytes of weights that are streamed.
        """
        all_of_it = self._known.stored_bytes - self._known.recomputed_bytes
        resident = 1 - streamed / max(self._num_weight_bytes(), 1)
        return int(all_of_it * self._scale * self._wide * resident)

    @property
    def cost_of_stored(self) -> float:
        """Bytes of the card that a stored byte costs."""
        return 1 + self._known.slack_share

    def _num_weight_bytes(self) -> int:
        return self.sizes.total * self.sizes.itemsize

    def forecast(self, choice: Choice) -> MemoryForecast:
        """Return what ``choice`` would take."""
        vram_parts = self._vram(choice)
        blocks = self._host_blocks(choice)
        ram_parts = self._ram(choice, blocks)
        vram = sum(size for _, size in vram_parts)
        ram = sum(size for _, size in ram_parts)
        pinned = self._pinned(blocks)
        if not self._machine.has_card:
            ram_parts = (*ram_parts, *vram_parts)
            vram, ram, vram_parts = 0, ram + vram, ()
        return MemoryForecast(
            vram=vram,
            ram=ram,
            pinned=pinned,
            disk=self._disk(),
            seconds=self._seconds(choice, pinned),
            vram_parts=vram_parts,
            ram_parts=ram_parts,
        )

    def _vram(self, choice: Choice) -> tuple[tuple[str, int], ...]:
        sizes, known = self.sizes, self._known
        slot = max(
            (unit.streamed for unit in sizes.units if unit.name in choice.streamed), default=0
        )
        weights = [*sizes.weight_bytes(choice.streamed)]
        slots = [slot] * min(choice.slots, len(choice.streamed))
        records = [sizes.small_records, *sizes.records_on_device(choice.device_records)]
        sums = [sizes.small_sums(choice.gradients)]
        if choice.gradients == "device":
            width = sizes.sum_itemsize["device"]
            sums += [numel * width for unit in sizes.units for numel in unit.buckets]
        ring = sizes.ring_bytes(choice.ring, choice.gradients)
        activations = int(known.recomputed_bytes * self._scale * self._wide) + choice.stored
        # Small blocks of all kinds share segments, so their rounding is counted once, at the end.
        parts = [
            ("CUDA", self._machine.context_bytes),
            ("weights", sum(weights)),
            ("slots of streamed weights", sum(slots)),
            ("optimizer states", sum(records)),
            ("gradients", sum(sums)),
            ("passing through", ring),
            ("work space of the update", sizes.scratch),
            ("activations", activations),
            ("work space of kernels", known.workspace_bytes if self._machine.has_card else 0),
        ]
        if self._machine.has_card:
            laid_out = [*weights, *slots, *records, *sums, ring, sizes.scratch]
            rounding = reserved(laid_out) - sum(laid_out)
            slack = known.slack_bytes + int(known.slack_share * activations)
            parts.append(("lost between blocks", rounding + slack))
        return tuple((name, size) for name, size in parts if size)

    def _host_blocks(self, choice: Choice) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Return the blocks of host memory in the order in which they are allocated."""
        sizes = self.sizes
        weights = tuple(unit.streamed for unit in sizes.units if unit.name in choice.streamed)
        sums: tuple[int, ...] = ()
        if choice.gradients == "host":
            width = sizes.sum_itemsize["host"]
            sums = tuple(numel * width for unit in sizes.units for numel in unit.buckets)
        kept = sorted(sizes.records_on_device(choice.device_records))
        records = [size for unit in sizes.units for size in unit.records]
        for size in kept:
            records.remove(size)
        blocks = [("weights", weights), ("gradients", sums), ("optimizer states", tuple(records))]
        total = sum(sum(part) for _, part in blocks)
        if self._machine.has_card and total > self._pin_bytes:
            bounce = sizes.bounce_bytes(choice.gradients)
            blocks.insert(0, ("copy buffers", (bounce,)))
        return tuple(blocks)

    def _ram(
        self, choice: Choice, blocks: tuple[tuple[str, tuple[int, ...]], ...]
    ) -> tuple[tuple[str, int], ...]:
        known, training = self._known, self._training
        batch = known.batch_bytes * training.batch_size * (training.prefetch_batches + 1)
        batch = batch * self._facts.latent_pixels // STANDARD_PIXELS
        parts = [("programs and libraries", known.process_bytes), ("batches", batch)]
        parts += [(name, sum(part)) for name, part in blocks]
        return tuple((name, size) for name, size in parts if size)

    def _pinned(self, blocks: tuple[tuple[str, tuple[int, ...]], ...]) -> int:
        if not self._machine.has_card:
            return 0
        left = self._pin_bytes
        for _, part in blocks:
            for slab in slabs(part, sum(part)):
                if slab <= left:
                    left -= slab
        return self._pin_bytes - left

    def _disk(self) -> int:
        """Return the size of a save: the model file, and the state to go on from."""
        return self._facts.file_bytes + self.sizes.state_bytes

    def _seconds(self, choice: Choice, pinned: int) -> float:
        known, machine, sizes = self._known, self._machine, self.sizes
        speed = machine.rates.flops * known.utilisation
        trained = sizes.trained / max(sizes.total, 1)
        storable = self.storable(0)
        again = 1 - (choice.stored / storable if storable else 0.0)
        forward = known.forward_flops * self._scale
        flops = forward * (2 + trained) + known.recompute_flops * self._scale * again
        computing = flops / speed
        launching = 0.0
        if machine.has_card:
            launching = known.launch_seconds + known.recompute_launch_seconds * again
        compute = max(computing, launching)
        count = self._training.accumulation_steps
        if not machine.has_card:
            return compute * count
        batches = [
            max(compute, *self._link_seconds(choice, number, count)) for number in range(count)
        ]
        update = self._update_seconds(choice, pinned)
        # The next forward pass begins while the update is still under way.
        hidden = compute * forward / flops
        return sum(batches) + max(0.0, update - hidden)

    def _link_seconds(self, choice: Choice, number: int, count: int) -> tuple[float, float]:
        """Return how long copies take beside one batch, each way."""
        sizes, rates = self.sizes, self._machine.rates
        weights = sum(unit.streamed for unit in sizes.units if unit.name in choice.streamed)
        down, up = 2 * weights, 0
        if choice.gradients == "host":
            sums = sizes.sum_bytes("host")
            down += sums if number > 0 else 0
            first = sums * sizes.itemsize // sizes.sum_itemsize["host"]
            up += first if number == 0 and count > 1 else sums
        elif choice.gradients == "nowhere":
            off = self._records_off_device(choice)
            streamed = sum(u.flat for u in sizes.units if u.name in choice.streamed)
            down += off + streamed
            up += off + streamed
        rate = (rates.duplex if down and up else rates.to_device) * self._known.link_share
        return down / rate, up / (rates.duplex * self._known.link_share)

    def _records_off_device(self, choice: Choice) -> int:
        kept = self.sizes.records_on_device(choice.device_records)
        return self.sizes.record_bytes - sum(kept)

    def _update_seconds(self, choice: Choice, pinned: int) -> float:
        if choice.gradients == "nowhere":
            return 0.0
        sizes, rates = self.sizes, self._machine.rates
        records = self._records_off_device(choice)
        streamed = sum(unit.flat for unit in sizes.units if unit.name in choice.streamed)
        sums = sizes.sum_bytes("host") if choice.gradients == "host" else 0
        down = records + streamed + sums
        seconds = down / (rates.duplex * self._known.link_share)
        # What is not page-locked is copied twice by the host, once for each way.
        loose = max(0, records + streamed + sums - pinned)
        return max(seconds, 2 * loose / rates.memcpy)


def _numel(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count
