"""What a run would take if it trained one of the named sets of layers instead."""

from __future__ import annotations

from dataclasses import dataclass, replace

from aozora.config.schema import TrainConfig
from aozora.config.targeting import LAYER_SETS, LayerSet, select_targets
from aozora.memory.accounting import UNetFacts
from aozora.memory.machine import Machine
from aozora.memory.memory_plan import plan_memory
from aozora.training.calibration import Calibration
from aozora.training.memory_choice import vram_allowed


@dataclass(frozen=True, kw_only=True)
class LayerSetForecast:
    """What training a set of layers would take, all other settings as they are.

    Attributes:
        layers: The set.
        trained_parameters: How many numbers it holds.
        vram_bytes: Most memory of the card in use; 0 on the processor.
        ram_bytes: Most main memory of the process.
        step_seconds: Of one optimizer step.
        fits: Whether that is within what may be used.
    """

    layers: LayerSet
    trained_parameters: int
    vram_bytes: int
    ram_bytes: int
    step_seconds: float
    fits: bool


def forecast_layer_sets(
    config: TrainConfig, facts: UNetFacts, machine: Machine, calibration: Calibration
) -> tuple[LayerSetForecast, ...]:
    """Return a forecast for each named set of layers.

    Args:
        config: Whose other settings hold.
        facts: Of the run; what is trained is replaced.
        machine: What there is.
        calibration: How far forecasts are off here.
    """
    allowed = vram_allowed(config, machine)
    found = []
    for layers in LAYER_SETS:
        selection = select_targets(facts.shapes, layers=layers)
        plan = plan_memory(config, replace(facts, trained=selection.names), machine)
        expected = calibration.expect(plan.predicted, allowed)
        found.append(
            LayerSetForecast(
                layers=layers,
                trained_parameters=selection.num_params,
                vram_bytes=expected.vram,
                ram_bytes=expected.ram,
                step_seconds=expected.seconds,
                fits=not plan.shortfalls,
            )
        )
    return tuple(found)
