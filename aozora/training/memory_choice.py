"""From the memory settings and this computer to where everything goes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from aozora.config.schema import TrainConfig
from aozora.data.dataset import DatasetItem
from aozora.memory.accounting import GIB, UNetFacts
from aozora.memory.arrangement import Layout, layout_of
from aozora.memory.forecast import beside_torch
from aozora.memory.machine import Machine, measure
from aozora.memory.memory_plan import MemoryPlan, limits_of, plan_memory
from aozora.model.tokenizers import TOKENS_PER_CHUNK
from aozora.training.optimizer_factory import build_rule

_LATENT_SCALE = 8


def memory_facts(
    config: TrainConfig,
    shapes: Mapping[str, tuple[int, ...]],
    trained: Collection[str],
    items: Collection[DatasetItem],
    file_bytes: int,
) -> UNetFacts:
    """Return what the planner needs to know of a run.

    Args:
        config: All settings.
        shapes: Of the UNet's parameters.
        trained: Names of those that are trained.
        items: The pictures; the largest decides.
        file_bytes: Size of the base model.
    """
    rule, _ = build_rule(config.optimizer)
    pixels = max(item.fit.width * item.fit.height for item in items)
    return UNetFacts(
        shapes=shapes,
        trained=trained,
        rule=rule,
        latent_pixels=pixels // _LATENT_SCALE**2,
        text_tokens=text_tokens(config),
        file_bytes=file_bytes,
    )


def text_tokens(config: TrainConfig) -> int:
    """Return how many hidden states a caption has at most, start and end of chunks counted."""
    return max(1, config.captions.tokens // TOKENS_PER_CHUNK) * (TOKENS_PER_CHUNK + 2)


def choose_memory(
    config: TrainConfig, facts: UNetFacts, device: torch.device, machine: Machine | None = None
) -> tuple[MemoryPlan, Layout]:
    """Return the plan, and the same as the run's memory is laid out by it.

    Args:
        config: All settings.
        facts: Of the model and what is trained of it.
        device: Where the model will run.
        machine: What there is; measured if None.
    """
    plan = plan_memory(config, facts, machine or measure(device))
    return plan, layout_of(plan, facts.shapes)


def vram_allowed(config: TrainConfig, machine: Machine) -> int:
    """Return how much of the card a run keeps within, in bytes."""
    limit = int(config.memory.vram_limit * GIB)
    return min(limit, machine.vram_free) if limit else machine.vram_free


def torch_limit(config: TrainConfig, machine: Machine) -> int:
    """Return how much of the card torch may take, so that the whole stays within the settings."""
    pinned = limits_of(config, machine).pinned
    return vram_allowed(config, machine) - beside_torch(machine, pinned)
