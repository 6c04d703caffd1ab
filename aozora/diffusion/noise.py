"""The noise of each sample: the same on every device, in every batch and after every resume."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from aozora.config.chance import chance_key


def sample_noise(seed: int, sample: int, shape: Sequence[int], *, stream: str = "noise") -> Tensor:
    """Return normal noise, float32, on the CPU.

    Args:
        seed: The run's seed.
        sample: Number of the sample among all ever drawn.
        shape: Shape of one sample's latents, (C, H, W).
        stream: What the noise is for; streams are independent of each other.
    """
    generator = torch.Generator(device="cpu")
    generator.manual_seed(chance_key(seed, stream, sample))
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32, device="cpu")


def batch_noise(
    seed: int, samples: Iterable[int], shape: Sequence[int], *, stream: str = "noise"
) -> Tensor:
    """Return the noise of several samples, shape (B, *shape)."""
    # One generator a sample: what a single large draw gives depends on its size.
    return torch.stack([sample_noise(seed, sample, shape, stream=stream) for sample in samples])
