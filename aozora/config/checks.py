"""Rules that concern more than one setting, and those that need no file to be read."""

from __future__ import annotations

import re
from collections.abc import Iterator

from aozora.config.choices.distributions import HighNoise
from aozora.config.choices.predictions import Epsilon, Flow
from aozora.config.schema import TrainConfig
from aozora.config.ticket_pool import TicketPool
from aozora.errors import Problem
from aozora.runtime import is_safe_name

# 1 - x is rounded to 1 in float32 up to this x.
_IDLE_DECAY = 2.0**-25


def check_config(config: TrainConfig) -> list[Problem]:
    """Return every problem of ``config`` that stops a run; empty when there is none."""
    rules = (_inputs, _buckets, _objective, _timesteps, _schedule, _memory, _output)
    return [problem for rule in rules for problem in rule(config)]


def _inputs(config: TrainConfig) -> Iterator[Problem]:
    if not config.model.base:
        yield Problem("model.base", "no base model is chosen", "give an SDXL .safetensors file")
    if not config.data.folders:
        yield Problem("data.folders", "no folder with pictures is chosen", "add a folder")
    for number, folder in enumerate(config.data.folders):
        if not folder.path:
            yield Problem(f"data.folders[{number}].path", "is empty", "give a folder or remove it")
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", config.data.background):
        yield Problem(
            "data.background", f"{config.data.background!r} is not a colour", "write #rrggbb"
        )


def _buckets(config: TrainConfig) -> Iterator[Problem]:
    buckets = config.buckets
    if buckets.step % 32:
        yield Problem("buckets.step", "is not a multiple of 32", "use 64, or 32 for finer sizes")
    if buckets.min_side > buckets.max_side:
        yield Problem("buckets.min_side", "is larger than buckets.max_side", "lower it")
    for name in ("min_side", "max_side", "resolution"):
        if getattr(buckets, name) % buckets.step:
            remedy = f"use a multiple of buckets.step ({buckets.step})"
            yield Problem(f"buckets.{name}", "does not fit the side step", remedy)
    if not buckets.min_side <= buckets.resolution <= buckets.max_side:
        yield Problem(
            "buckets.resolution",
            "is not between buckets.min_side and buckets.max_side",
            "change one of the three",
        )


def _objective(config: TrainConfig) -> Iterator[Problem]:
    prediction = config.objective.prediction
    if config.objective.zero_terminal_snr == "on":
        if isinstance(prediction, Epsilon):
            yield Problem(
                "objective.zero_terminal_snr",
                "cannot be learned with epsilon prediction: the last step holds no picture",
                "choose v_prediction, or turn it off",
            )
        if isinstance(prediction, Flow):
            yield Problem(
                "objective.zero_terminal_snr",
                "has no meaning for rectified flow, which always ends in pure noise",
                "set it to auto",
            )


def _timesteps(config: TrainConfig) -> Iterator[Problem]:
    section = config.timesteps
    if section.minimum > section.maximum:
        yield Problem("timesteps.minimum", "is above timesteps.maximum", "lower it")
        return
    try:
        pool = ticket_pool(config)
        pool.counts(1)
    except ValueError as error:
        yield Problem("timesteps.distribution", str(error), "choose other values")


def _schedule(config: TrainConfig) -> Iterator[Problem]:
    steps = None if config.training.epochs else config.training.steps
    for issue in config.schedule.learning_rate.validate(steps):
        if issue.severity == "error":
            yield Problem("schedule.learning_rate", issue.text, issue.fix)


def _memory(config: TrainConfig) -> Iterator[Problem]:
    if not config.memory.clip_by_last_norm:
        return
    if config.training.accumulation_steps != 1:
        yield Problem(
            "memory.clip_by_last_norm",
            "moves weights after every batch, so nothing can be accumulated",
            "set training.accumulation_steps to 1, or turn it off",
        )
    if config.training.precision == "fp16":
        yield Problem(
            "memory.clip_by_last_norm",
            "moves weights before all gradients are known to be finite, which fp16 relies on",
            "choose another training.precision, or turn it off",
        )


def _output(config: TrainConfig) -> Iterator[Problem]:
    if not is_safe_name(config.output.name):
        yield Problem(
            "output.name",
            f"{config.output.name!r} cannot be part of a file name",
            "use letters, digits, spaces, '.', '-' and '_'",
        )
    if not config.output.folder:
        yield Problem("output.folder", "is empty", "give a folder for the results")


def doubts(config: TrainConfig, samples: int, *, zero_terminal_snr: bool) -> list[str]:
    """Return what is doubtful about ``config``, which has no problems, but stops no run.

    Args:
        config: The settings.
        samples: Number of samples of the run.
        zero_terminal_snr: Whether the noise schedule ends in pure noise.
    """
    issues = ticket_pool(config).validate(samples, zero_terminal_snr=zero_terminal_snr)
    cautions = [issue for issue in issues if issue.severity == "warning"]
    texts = [f"timesteps.distribution: {issue.text}; {issue.fix}" for issue in cautions]
    return [*texts, *_idle_decay(config)]


def _idle_decay(config: TrainConfig) -> Iterator[str]:
    decay = config.optimizer.weight_decay
    if decay == type(config.optimizer)().weight_decay:
        return  # nobody asked for it; that of AdamW's authors is meant for a hundred times the rate
    peak = max(point.lr for point in config.schedule.learning_rate.points)
    # Every rule multiplies float32 weights by 1 - rate * decay, which is 1 exactly up to there.
    if 0.0 < peak * decay <= _IDLE_DECAY:
        yield (
            f"optimizer.weight_decay: {decay:g} does nothing at learning rates up to {peak:g}:"
            f" their product, {peak * decay:.1g}, is too small a share for float32 weights to lose;"
            f" set it above {_IDLE_DECAY / peak:.2g}, or to 0"
        )


def ticket_pool(config: TrainConfig) -> TicketPool:
    """Return the pool of timesteps that ``config`` describes.

    Raises:
        ValueError: if no timestep could ever be drawn from it.
    """
    section = config.timesteps
    distribution = section.distribution
    start = distribution.start if isinstance(distribution, HighNoise) else 0
    return TicketPool(
        weights=distribution.bin_weights(section.bins),
        seed=config.training.seed,
        coverage=section.coverage,
        minimum=max(section.minimum, start),
        maximum=section.maximum,
    )
