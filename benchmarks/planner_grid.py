"""The planner's forecasts beside what was measured, over a grid of runs."""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from typing import Any

import torch

from aozora.config.codec import apply_settings
from aozora.config.schema import TrainConfig
from aozora.memory.accounting import UNetFacts
from aozora.memory.arrangement import layout_of
from aozora.memory.machine import measure
from aozora.memory.memory_plan import plan_memory
from benchmarks.common import GIB, DeviceUsed, full_shapes
from benchmarks.rig import DEVICE, Rig, some_layers
from optimizers.raven_adamw import RavenAdamWRule

SIDES = (768, 1024, 1536)
BATCHES = (1, 2, 4)


def config(batch: int, streamed: bool) -> TrainConfig:
    weights = "streamed" if streamed else "resident"
    return apply_settings(
        TrainConfig(),
        [
            f"training.batch_size={batch}",
            "training.accumulation_steps=1",
            f"memory.weights={weights}",
            "memory.gradients=host",
            "memory.states=host",
            "memory.recompute=all",
            "memory.pinned_limit=40",
        ],
    )


def planner_grid() -> dict[str, Any]:
    found: dict[str, Any] = {}
    shapes = {name: tuple(shape) for name, shape in full_shapes().items()}
    with DeviceUsed() as used:
        machine = measure(DEVICE)
        for share, streamed in ((1.0, False), (1.0, True), (0.85, True), (0.25, False)):
            names = some_layers(share)

            facts = UNetFacts(shapes=shapes, trained=names, rule=RavenAdamWRule())
            first = plan_memory(config(1, streamed), facts, machine)
            rig = Rig(layout_of(first, shapes), names=names)
            place = "streamed" if streamed else "resident"
            for batch, side in _cases(share, streamed):
                inputs = rig.inputs(batch, side, side)
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
                used.restart()
                time.sleep(0.02)
                for _ in range(2):
                    rig.train_step([inputs])
                torch.cuda.synchronize()
                here = replace(facts, latent_pixels=(side // 8) ** 2)
                expected = plan_memory(config(batch, streamed), here, machine).predicted.vram
                found[f"{share:.0%}, {place}, batch {batch}, {side} px"] = {
                    "measured_gib": round(used.peak / GIB, 3),
                    "predicted_gib": round(expected / GIB, 3),
                    "predicted_over_measured": round(expected / used.peak, 4),
                }
            rig.close()
            del rig
            gc.collect()
    ratios = [entry["predicted_over_measured"] for entry in found.values()]
    found["worst"] = {"over": max(ratios), "under": min(ratios), "configs": len(ratios)}
    return found


def _cases(share: float, streamed: bool) -> list[tuple[int, int]]:
    if share == 1.0 and not streamed:
        return [(batch, side) for side in SIDES for batch in BATCHES][:8]
    return [(1, 768), (1, 1024), (2, 1024), (1, 1536), (4, 1024)]
