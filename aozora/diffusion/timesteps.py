"""From ticket pools to tensors, and the fixed grid of validation."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from aozora.config.ticket_pool import TIMESTEPS
from aozora.config.ticket_segments import SegmentedPool


def draw_tickets(pool: SegmentedPool, samples: Iterable[int]) -> Tensor:
    """Return the tickets of samples, int64, shape (B,), on the CPU.

    Args:
        pool: The tickets of the run.
        samples: Numbers of the samples among all ever drawn, 0-based.

    Raises:
        ValueError: if a sample lies outside the run.
    """
    return torch.tensor([pool.timestep(sample) for sample in samples], dtype=torch.int64)


def validation_grid(count: int) -> tuple[int, ...]:
    """Return ``count`` timesteps in the middles of equal parts: 50, 150, ..., 950 for ten.

    They are given to the UNet as they are, in rectified flow without a shift.

    Raises:
        ValueError: if ``count`` is not 1 to 1000.
    """
    if not 1 <= count <= TIMESTEPS:
        raise ValueError(f"a validation grid has 1 to {TIMESTEPS} timesteps, not {count}")
    return tuple((2 * index + 1) * TIMESTEPS // (2 * count) for index in range(count))
