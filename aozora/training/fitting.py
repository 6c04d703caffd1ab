"""Which settings make a run fit a computer that is here, or one that is only asked about."""

from __future__ import annotations

from dataclasses import replace

from aozora.config.schema import TrainConfig
from aozora.config.targeting import select_targets
from aozora.memory.accounting import UNetFacts
from aozora.memory.fit import FitResult, fit, with_memory
from aozora.memory.machine import measure
from aozora.model.building import parameter_shapes
from aozora.model.sizes import standard_config
from aozora.training.device import choose_device, device_settings
from aozora.training.inputs import find_pictures
from aozora.training.memory_choice import memory_facts, text_tokens
from aozora.training.optimizer_factory import build_rule
from aozora.training.preparation import open_base

_STANDARD_FILE_BYTES = 6_940_000_000


def fit_run(config: TrainConfig, *, vram: float | None, ram: float | None) -> FitResult:
    """Return settings with which ``config`` fits.

    Without a base model the full-size SDXL is assumed, without pictures such of the set resolution.

    Args:
        config: What is wanted.
        vram: Memory of the card in GiB; what this computer has if None.
        ram: Main memory in GiB; what this computer has if None.

    Raises:
        AozoraError: if the base model or the pictures cannot be read.
    """
    shapes, file_bytes = _shapes(config)
    section = config.targets
    targets = select_targets(
        shapes,
        layers=section.layers,
        blocks=section.blocks,
        include=section.include,
        exclude=section.exclude,
    )
    facts = UNetFacts(
        shapes=shapes,
        trained=targets.names,
        rule=build_rule(config.optimizer)[0],
        latent_pixels=(config.buckets.resolution // 8) ** 2,
        text_tokens=text_tokens(config),
        file_bytes=file_bytes,
    )
    if config.data.folders:
        facts = memory_facts(
            config, shapes, targets.names, find_pictures(config).trained, file_bytes
        )
    device = choose_device(config.training.device)
    with device_settings(device, deterministic=config.training.deterministic):
        machine = with_memory(measure(device), vram, ram)
    if vram is not None:
        # The card that is asked about is the limit, whatever the settings say of this one.
        config = replace(config, memory=replace(config.memory, vram_limit=0.0))
    return fit(config, facts, machine)


def _shapes(config: TrainConfig) -> tuple[dict[str, tuple[int, ...]], int]:
    if not config.model.base:
        shapes = parameter_shapes("unet", standard_config("unet"))
        return shapes, _STANDARD_FILE_BYTES
    with open_base(config) as source:
        return source.unet_shapes(), source.facts.num_bytes
