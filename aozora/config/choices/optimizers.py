"""The optimizers one can choose from, and their settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aozora.config.fields import setting
from aozora.registry import Family

OPTIMIZERS = Family("optimizer")

Moments = Literal["8bit", "16bit", "float32"]

_MOMENTS_LABELS = (
    ("8bit", "8 bits (2 bytes a weight)"),
    ("16bit", "16 bits (4 bytes a weight)"),
    ("float32", "float32 (8 bytes a weight)"),
)
_VELO_LABELS = (
    ("8bit", "8 bits (2 bytes a weight)"),
    ("16bit", "16 and 8 bits (3 bytes a weight)"),
    ("float32", "float32 (8 bytes a weight)"),
)
_LION_LABELS = (
    ("8bit", "8 bits (1 byte a weight)"),
    ("16bit", "16 bits (2 bytes a weight)"),
    ("float32", "float32 (4 bytes a weight)"),
)
_ADAMW_MOMENTS_HELP = (
    "16 bits halve the main memory needed and 8 bits quarter it; the squared gradients are rounded"
    " at random so that they never get stuck. float32 is exact. Above beta 1 = 0.99 the first"
    " moment stays in float32."
)

_DECAY_HELP = (
    "Share of each weight taken away at every step, times the learning rate. Where that product is"
    " below 3e-8 it does nothing: float32 weights cannot lose so little."
)


@OPTIMIZERS.register("raven_adamw", "RavenAdamW")
@dataclass(frozen=True, kw_only=True)
class RavenAdamW:
    """AdamW with its states in main memory: the whole model trains on a small card."""

    beta1: float = setting(
        0.9,
        label="Beta 1",
        help="How much of the running mean of gradients is kept at each step.",
        minimum=0.0,
        maximum=0.9999,
    )
    beta2: float = setting(
        0.999,
        label="Beta 2",
        help="How much of the running mean of squared gradients is kept at each step.",
        minimum=0.0,
        maximum=0.99999,
    )
    eps: float = setting(
        1e-8,
        label="Epsilon",
        help="Added to every update's divisor; larger values damp weights with tiny gradients.",
        minimum=0.0,
        maximum=1.0,
        exclusive_minimum=True,
        expert=True,
    )
    weight_decay: float = setting(
        0.01,
        label="Weight decay",
        help=_DECAY_HELP,
        minimum=0.0,
        maximum=1.0,
    )
    debias_strength: float = setting(
        1.0,
        label="Bias correction",
        help="1 is AdamW. Below 1 the first updates become larger, not smaller: at 0.3 up to six"
        " times AdamW's around step 10, still 1.4 times at step 500.",
        minimum=0.0,
        maximum=1.0,
        expert=True,
    )
    centralization: float = setting(
        0.0,
        label="Gradient centralization",
        help="How much of each output channel's mean gradient is taken away; 0 is off, 1 is all.",
        minimum=0.0,
        maximum=1.0,
        expert=True,
    )
    moments: Moments = setting(
        "16bit",
        label="Moments kept in",
        help=_ADAMW_MOMENTS_HELP,
        value_labels=_MOMENTS_LABELS,
    )


@OPTIMIZERS.register("velo_rms", "VeloRMS")
@dataclass(frozen=True, kw_only=True)
class VeloRMS:
    """Momentum scaled by its own recent size; states in main memory like RavenAdamW's."""

    momentum: float = setting(
        0.86,
        label="Momentum",
        help="How much of the velocity and of its running square is kept at each step.",
        minimum=0.0,
        maximum=0.999,
    )
    leak: float = setting(
        0.16,
        label="Leak",
        help="How much of the fresh squared gradient damps the update; with noisy gradients larger"
        " values give smaller updates.",
        minimum=0.0,
        maximum=1.0,
    )
    eps: float = setting(
        1e-8,
        label="Epsilon",
        help="Added to every update's divisor; larger values damp weights with tiny gradients.",
        minimum=0.0,
        maximum=1.0,
        exclusive_minimum=True,
        expert=True,
    )
    weight_decay: float = setting(
        0.01,
        label="Weight decay",
        help=_DECAY_HELP,
        minimum=0.0,
        maximum=1.0,
    )
    moments: Moments = setting(
        "16bit",
        label="States kept in",
        help="Fewer bits need less main memory; the running square is rounded at random so that it"
        " never gets stuck. float32 is exact. Above momentum 0.99 the velocity stays in float32.",
        value_labels=_VELO_LABELS,
    )


@OPTIMIZERS.register("adamw", "AdamW")
@dataclass(frozen=True, kw_only=True)
class AdamW:
    """AdamW as it was published; states in main memory like RavenAdamW's."""

    beta1: float = setting(
        0.9,
        label="Beta 1",
        help="How much of the running mean of gradients is kept at each step.",
        minimum=0.0,
        maximum=0.9999,
    )
    beta2: float = setting(
        0.999,
        label="Beta 2",
        help="How much of the running mean of squared gradients is kept at each step.",
        minimum=0.0,
        maximum=0.99999,
    )
    eps: float = setting(
        1e-8,
        label="Epsilon",
        help="Added to every update's divisor; larger values damp weights with tiny gradients.",
        minimum=0.0,
        maximum=1.0,
        exclusive_minimum=True,
        expert=True,
    )
    weight_decay: float = setting(
        0.01,
        label="Weight decay",
        help=_DECAY_HELP,
        minimum=0.0,
        maximum=1.0,
    )
    moments: Moments = setting(
        "16bit",
        label="Moments kept in",
        help=_ADAMW_MOMENTS_HELP,
        value_labels=_MOMENTS_LABELS,
    )


@OPTIMIZERS.register("lion", "Lion")
@dataclass(frozen=True, kw_only=True)
class Lion:
    """The sign of a running mean: one state only. Wants a third to a tenth of AdamW's rate."""

    beta1: float = setting(
        0.9,
        label="Beta 1",
        help="How much the running mean counts against the fresh gradient in an update.",
        minimum=0.0,
        maximum=0.9999,
    )
    beta2: float = setting(
        0.99,
        label="Beta 2",
        help="How much of the running mean of gradients is kept at each step.",
        minimum=0.0,
        maximum=0.9999,
    )
    weight_decay: float = setting(
        0.01,
        label="Weight decay",
        help=_DECAY_HELP,
        minimum=0.0,
        maximum=1.0,
    )
    moments: Moments = setting(
        "16bit",
        label="Moment kept in",
        help="Fewer bits need less main memory. float32 is exact. Above beta 2 = 0.99 the moment"
        " stays in float32.",
        value_labels=_LION_LABELS,
    )


@OPTIMIZERS.register("adafactor", "Adafactor")
@dataclass(frozen=True, kw_only=True)
class Adafactor:
    """No momentum, and squared gradients kept by row and column: next to no memory."""

    decay_power: float = setting(
        0.8,
        label="Decay power",
        help="The squared gradients keep 1 - step^-power of themselves at each step.",
        minimum=0.0,
        maximum=1.0,
        expert=True,
    )
    clip_threshold: float = setting(
        1.0,
        label="Update clipping",
        help="A tensor's update whose root mean square is larger is scaled down to it.",
        minimum=1e-6,
        maximum=1e6,
    )
    weight_decay: float = setting(
        0.0,
        label="Weight decay",
        help=_DECAY_HELP,
        minimum=0.0,
        maximum=1.0,
    )
    scale_parameter: bool = setting(
        False,
        label="Scale by weights",
        help="Multiply the learning rate by the root mean square of each tensor's weights.",
        expert=True,
    )
