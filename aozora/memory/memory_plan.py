"""What goes where, so that a run fits the card and main memory and is as fast as it can be.

Every arrangement worth considering is forecast, and the fastest that fits is taken. None of them
changes a result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from aozora.config.choices.optimizers import Adafactor
from aozora.config.schema import TrainConfig
from aozora.config.sections import Precision
from aozora.errors import Problem
from aozora.memory.accounting import (
    COEFFICIENTS,
    GIB,
    MIB,
    GradientPlace,
    RunSizes,
    SumFormat,
    UNetFacts,
    sizes_of,
)
from aozora.memory.forecast import Choice, Forecaster, MemoryForecast
from aozora.memory.machine import Machine
from aozora.memory.recompute import RecomputePlan
from optimizers.placement import RING_BYTES, Placement
from optimizers.rule import Moments

_DTYPES: dict[Precision, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}
_COUNT_STEP = 4
_ALL = 2**63  # bytes: no limit
_SLOTS = 3
# What is spent is counted in whole records and levels, which round a little.
_ROUNDING_BYTES = 16 * 2**20
FEWEST_SLOTS = 2
"""The weights of one streamed unit are used while those of the next arrive."""
# A record on the device costs its bytes and what is lost between blocks.
_RECORD_COST = 1.03
_CRUMBS = 64 * MIB
# Of arrangements that take about as long, the simplest is taken: the estimate is no better.
_SAME_SECONDS = 1.04


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What goes where, and what that comes to.

    Attributes:
        streamed_units: Transformer blocks whose weights wait in main memory, in forward's order.
        slots: How many of them are on the device at once; 0 if none is streamed.
        gradients: Where sums of gradients wait for the optimizer; "nowhere" when each is used at
            once.
        sum_format: What gradients are summed in on the host.
        states_on_device_bytes: Records stay on the device up to that many bytes.
        ring_bytes: Device memory through which everything passes.
        recompute: Which activations are computed twice.
        recompute_budget_bytes: Activations that are stored beyond those of full recomputation.
        pinned_bytes: Most main memory to page-lock.
        ram_limit: Most main memory of the whole process.
        device: Name of the card; empty for the processor.
        predicted: What it comes to.
        arrangement: What goes where, in plain words.
        sentence: The same after what it comes to.
        overrun: The largest forecast as a share of its limit; up to 1 when all fits.
        shortfalls: What does not fit, and what to do; empty when all does.
    """

    streamed_units: tuple[str, ...]
    slots: int
    gradients: GradientPlace
    sum_format: SumFormat
    states_on_device_bytes: int
    ring_bytes: int
    recompute: RecomputePlan
    recompute_budget_bytes: int
    pinned_bytes: int
    ram_limit: int
    device: str
    predicted: MemoryForecast
    arrangement: str
    sentence: str
    overrun: float
    shortfalls: tuple[Problem, ...] = ()

    def placement(self, units: Mapping[str, str]) -> Placement:
        """Return the plan as the memory engine takes it.

        Slots and recomputation are not the engine's: whoever builds the model takes them from here.

        Args:
            units: Unit of each parameter by name, as `aozora.memory.units.unit_of` gives it.
        """
        return Placement(
            units=units,
            streamed=frozenset(self.streamed_units),
            gradients=self.gradients,
            sums=self.sum_format,
            device_record_bytes=self.states_on_device_bytes,
            ring_bytes=self.ring_bytes,
            pin_bytes=self.pinned_bytes,
        )


def plan_memory(config: TrainConfig, facts: UNetFacts, machine: Machine) -> MemoryPlan:
    """Return the fastest arrangement that fits, or the smallest if none does.

    Args:
        config: `memory` says what may be used and what is decided already.
        facts: Of the model and what is trained of it.
        machine: What there is.
    """
    sizes = sizes_for(config, facts)
    limits = limits_of(config, machine)
    forecaster = Forecaster(sizes, facts, config.training, machine, limits.pinned)
    filled = [
        _fill(choice, config, forecaster, limits) for choice in _choices(config, sizes, machine)
    ]
    forecasts = [(choice, forecaster.forecast(choice)) for choice in filled]
    fitting = [pair for pair in forecasts if limits.hold(pair[1])]
    if fitting:
        fastest = min(forecast.seconds for _, forecast in fitting)
        choice, predicted = next(
            pair for pair in fitting if pair[1].seconds <= fastest * _SAME_SECONDS
        )
    else:
        choice, predicted = min(forecasts, key=lambda pair: limits.excess(pair[1]))
    amounts = _amounts(predicted, sizes, limits, machine)
    arrangement = _arrangement(choice, sizes, forecaster, machine)
    ordered = tuple(unit.name for unit in sizes.blocks if unit.name in choice.streamed)
    return MemoryPlan(
        streamed_units=ordered,
        slots=choice.slots,
        gradients=choice.gradients,
        sum_format=config.memory.sum_format,
        states_on_device_bytes=choice.device_records,
        ring_bytes=choice.ring,
        recompute=choice.recompute,
        recompute_budget_bytes=forecaster.stored_bytes(choice),
        pinned_bytes=limits.pinned,
        ram_limit=limits.ram,
        device=machine.device,
        predicted=predicted,
        arrangement=arrangement,
        sentence=f"{amounts} {arrangement}",
        overrun=limits.share(predicted),
        shortfalls=_shortfalls(predicted, limits),
    )


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most a run may take, in bytes.

    Attributes:
        vram: Of the card; 0 when there is none.
        ram: Of main memory, by the whole process.
        pinned: Of main memory, page-locked.
    """

    vram: int
    ram: int
    pinned: int

    def hold(self, forecast: MemoryForecast) -> bool:
        """Return whether a forecast stays within them."""
        return self.excess(forecast) <= 0

    def share(self, forecast: MemoryForecast) -> float:
        """Return the largest of a forecast's figures as a share of its limit."""
        shares = [forecast.ram / max(self.ram, 1)]
        if self.vram:
            shares.append(forecast.vram / self.vram)
        return max(shares)

    def excess(self, forecast: MemoryForecast) -> int:
        """Return by how many bytes a forecast goes beyond them, at most 0 if it does not."""
        over = [forecast.ram - self.ram]
        if self.vram:
            over.append(forecast.vram - self.vram)
        return sum(value for value in over if value > 0) or max(over)


def limits_of(config: TrainConfig, machine: Machine) -> Limits:
    """Return what the settings and the computer allow."""
    section = config.memory
    vram = machine.vram_free
    if section.vram_limit and machine.has_card:
        vram = min(vram, int(section.vram_limit * GIB))
    vram -= int(vram * COEFFICIENTS.margin_share)
    ram = machine.ram_free
    if section.ram_limit:
        ram = min(ram, int(section.ram_limit * GIB))
    pinned = int(section.pinned_limit * GIB) if section.pinned_limit else machine.pin_limit
    return Limits(vram=vram, ram=ram, pinned=min(pinned, ram) if machine.has_card else 0)


def sizes_for(config: TrainConfig, facts: UNetFacts) -> RunSizes:
    """Return the sizes of everything that is laid out in a run of ``config``."""
    return sizes_of(
        facts,
        _DTYPES[config.training.precision],
        moments_of(config),
        micro_steps=config.training.accumulation_steps,
        sums=config.memory.sum_format,
    )


def moments_of(config: TrainConfig) -> Moments:
    """Return how the states of the chosen optimizer are kept."""
    options = config.optimizer
    return "float32" if isinstance(options, Adafactor) else options.moments


def _choices(config: TrainConfig, sizes: RunSizes, machine: Machine) -> Iterator[Choice]:
    """Yield arrangements, simple ones first; how spare memory is spent is added by `_fill`."""
    section = config.memory
    most = len(sizes.blocks)
    counts: Sequence[int] = [*range(0, most, _COUNT_STEP), most]
    if section.weights == "resident" or not (machine.has_card or section.weights == "streamed"):
        counts = [0]
    elif section.weights == "streamed":
        counts = [most]
    elif section.recompute == "none":
        counts = [0]  # a streamed block is always computed twice
    for count in counts:
        streamed = frozenset(_spread(sizes, count))
        for gradients in _gradient_places(config, machine):
            yield Choice(
                streamed=streamed,
                slots=min(_SLOTS, count),
                gradients=gradients,
                ring=RING_BYTES if machine.has_card else 0,
            )
            if count > FEWEST_SLOTS:
                yield Choice(streamed=streamed, slots=FEWEST_SLOTS, gradients=gradients, ring=0)


def _gradient_places(config: TrainConfig, machine: Machine) -> Sequence[GradientPlace]:
    if config.memory.clip_by_last_norm:
        return ("nowhere",)
    if config.memory.gradients != "auto":
        return (config.memory.gradients,)
    return ("device", "host") if machine.has_card else ("device",)


def _spread(sizes: RunSizes, count: int) -> list[str]:
    """Return ``count`` blocks to stream: the largest first, and spread out.

    So the copies of one overlap with the computation of those that stay.
    """
    chosen: list[str] = []
    for size in sorted({unit.streamed for unit in sizes.blocks}, reverse=True):
        alike = [unit.name for unit in sizes.blocks if unit.streamed == size]
        take = min(count - len(chosen), len(alike))
        chosen += [alike[number * len(alike) // take] for number in range(take)]
    return chosen


def _fill(choice: Choice, config: TrainConfig, forecaster: Forecaster, limits: Limits) -> Choice:
    """Spend what ``choice`` leaves of the card: on stored activations, then on records."""
    section, sizes = config.memory, forecaster.sizes
    records = sizes.record_bytes
    if section.recompute == "none":
        choice = replace(choice, recompute=forecaster.recompute_within(_ALL, choice.streamed))
    if section.states == "device":
        choice = replace(choice, device_records=records)
    forecast = forecaster.forecast(choice)
    if not limits.vram:
        spare = limits.ram - forecast.ram
        return _store(choice, spare, forecaster) if section.recompute == "auto" else choice
    spare = limits.vram - forecast.vram - _ROUNDING_BYTES
    if section.states == "auto":
        # Main memory comes first: without it nothing works at all.
        needed = min(max(forecast.ram - limits.ram, 0) * 101 // 100, records, max(spare, 0))
        choice = replace(choice, device_records=needed)
        spare -= int(needed * _RECORD_COST)
    if section.recompute == "auto" and spare > 0:
        choice = _store(choice, spare, forecaster)
        spare -= int(forecaster.stored_bytes(choice) * forecaster.cost_of_stored)
    if section.states == "auto" and spare > _CRUMBS and not choice.streamed:
        more = min(choice.device_records + int((spare - _CRUMBS) / _RECORD_COST), records)
        choice = replace(choice, device_records=more)
    return choice


def _store(choice: Choice, spare: int, forecaster: Forecaster) -> Choice:
    """Store activations in ``spare`` bytes."""
    budget = max(0, int(spare / forecaster.cost_of_stored))
    return replace(choice, recompute=forecaster.recompute_within(budget, choice.streamed))


def _shortfalls(forecast: MemoryForecast, limits: Limits) -> tuple[Problem, ...]:
    found = []
    if limits.vram and forecast.vram > limits.vram:
        found.append(
            Problem(
                "memory.vram_limit",
                f"the run needs {_gib(forecast.vram)} GiB of graphics memory and may use"
                f" {_gib(limits.vram)}",
                "lower training.batch_size or buckets.resolution, set memory.sum_format to"
                " bfloat16, leave memory.weights, recompute, gradients and states at auto, or train"
                " fewer layers",
            )
        )
    if forecast.ram > limits.ram:
        found.append(
            Problem(
                "memory.ram_limit",
                f"the run needs {_gib(forecast.ram)} GiB of main memory and may use"
                f" {_gib(limits.ram)}",
                "set optimizer.moments to 8bit or memory.sum_format to bfloat16, or train fewer"
                " layers",
            )
        )
    return tuple(found)


def _amounts(forecast: MemoryForecast, sizes: RunSizes, limits: Limits, machine: Machine) -> str:
    """Return what the plan comes to, in plain words."""
    trained = f"Trains {sizes.trained / 1e6:,.0f} million weights"
    if not machine.has_card:
        return f"{trained} on the processor in about {_gib(forecast.ram)} GiB of main memory."
    return (
        f"{trained} in about {_gib(forecast.vram)} of {_gib(limits.vram)} GiB of graphics memory"
        f" and {_gib(forecast.ram)} of {_gib(limits.ram)} GiB of main memory,"
        f" {_gib(forecast.pinned)} of it page-locked."
    )


def _arrangement(choice: Choice, sizes: RunSizes, forecaster: Forecaster, machine: Machine) -> str:
    """Return what goes where, in plain words."""
    if not machine.has_card:
        return "Everything is in main memory."
    parts = []
    if choice.streamed:
        parts.append(f"{len(choice.streamed)} of {len(sizes.blocks)} blocks are streamed.")
    again = forecaster.share_again(choice.recompute)
    parts.append(
        "Nothing is computed twice."
        if again < 0.005
        else f"{again:.0%} of what can be is computed twice."
    )
    parts.append(_gradient_words(choice))
    if sizes.record_bytes:
        kept = min(choice.device_records / sizes.record_bytes, 1.0)
        if kept < 0.005:
            parts.append("The optimizer's states wait in main memory.")
        elif kept > 0.995:
            parts.append("The optimizer's states stay on the card.")
        else:
            parts.append(f"{kept:.0%} of the optimizer's states stay on the card.")
    return " ".join(parts)


def _gradient_words(choice: Choice) -> str:
    return {
        "device": "Gradients wait on the card.",
        "host": "Gradients wait in main memory.",
        "nowhere": "Gradients are used as they appear.",
    }[choice.gradients]


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.1f}"
