"""One chunk of weights with everything its update needs: flat, contiguous, on one device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from optimizers.precision import StateFormat

QUANT_BLOCK = 128
"""Elements that share one scale in a block format; tensors begin at a multiple of it."""


@dataclass(frozen=True)
class StatePlane:
    """One state of a chunk, as it is kept.

    Attributes:
        values: (n,), of the dtype that `precision.STORAGE_DTYPES` gives.
        scales: (n / QUANT_BLOCK,), float32, for block formats; None for others. Some formats keep
            integers in its bits; see `optimizers.block_formats`.
        state_format: How it is kept.
    """

    values: Tensor
    scales: Tensor | None
    state_format: StateFormat


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A run of weights that are updated together.

    Attributes:
        weight: (n,), what the model computes with: bfloat16, float16 or float32.
        master: int16 (n,), low bits, for bfloat16 weights; float32 (n,), exact weights, for
            float16; None for float32, which are exact themselves.
        gradient: (n,), float32 or bfloat16; read only.
        states: By name.
        start: Place of the first element in the numbering that rounding noise is a function of.
    """

    weight: Tensor
    master: Tensor | None
    gradient: Tensor
    states: Mapping[str, StatePlane]
    start: int


@dataclass(frozen=True, kw_only=True)
class StepScalars:
    """What all chunks of a step have in common.

    Attributes:
        lr: Learning rate.
        t: Number of the step, from 1.
        gradient_scale: 0-dim float32 on the device; every gradient is multiplied by it first.
        noise_keys: Key of the rounding noise of each state, from `precision.noise_key`; for
            uint16_sr. Block formats are dithered by ``t``.
    """

    lr: float
    t: int
    gradient_scale: Tensor
    noise_keys: Mapping[str, int]
