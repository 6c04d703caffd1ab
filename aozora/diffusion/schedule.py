"""How much noise each of the 1000 timesteps holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aozora.config.ticket_pool import TIMESTEPS

_BETA_START, _BETA_END = 0.00085, 0.012


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """Tables over the timesteps, each of shape (1000,), float32.

    They all come from one float64 table. The two roots are taken of the float32
    ``alphas_cumprod``, so that any scheduler carrying that table noises with the same bits.

    Attributes:
        alphas_cumprod: Share of the picture in the variance.
        sqrt_alphas_cumprod: Factor of the latents.
        sqrt_one_minus_alphas_cumprod: Factor of the noise.
        snr: Signal-to-noise ratio, ``alphas_cumprod / (1 - alphas_cumprod)``.
        zero_terminal_snr: Whether the last timestep is pure noise.
    """

    alphas_cumprod: Tensor
    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor
    snr: Tensor
    zero_terminal_snr: bool

    def to(self, device: torch.device) -> NoiseSchedule:
        """Return the schedule on ``device``; repeated calls copy nothing."""
        return self if self.snr.device == device else _on_device(self, device)


# Copying in every micro-step would make the host wait for all the work it has given the device.
@lru_cache(maxsize=8)
def _on_device(schedule: NoiseSchedule, device: torch.device) -> NoiseSchedule:
    return NoiseSchedule(
        alphas_cumprod=schedule.alphas_cumprod.to(device),
        sqrt_alphas_cumprod=schedule.sqrt_alphas_cumprod.to(device),
        sqrt_one_minus_alphas_cumprod=schedule.sqrt_one_minus_alphas_cumprod.to(device),
        snr=schedule.snr.to(device),
        zero_terminal_snr=schedule.zero_terminal_snr,
    )


def sdxl_schedule(zero_terminal_snr: bool) -> NoiseSchedule:
    """Return SDXL's noise schedule.

    Args:
        zero_terminal_snr: Whether it is rescaled so that the last timestep is pure noise
            (arXiv 2305.08891, algorithm 1).
    """
    exact = _sdxl_alphas_cumprod()
    if zero_terminal_snr:
        exact = _rescaled_to_zero_terminal_snr(exact)
    alphas_cumprod = torch.from_numpy(exact.astype(np.float32))
    return NoiseSchedule(
        alphas_cumprod=alphas_cumprod,
        sqrt_alphas_cumprod=alphas_cumprod.sqrt(),
        sqrt_one_minus_alphas_cumprod=(1 - alphas_cumprod).sqrt(),
        snr=torch.from_numpy((exact / (1.0 - exact)).astype(np.float32)),
        zero_terminal_snr=zero_terminal_snr,
    )


def _sdxl_alphas_cumprod() -> npt.NDArray[np.float64]:
    betas = np.linspace(_BETA_START**0.5, _BETA_END**0.5, TIMESTEPS) ** 2
    return np.cumprod(1.0 - betas, dtype=np.float64)


def _rescaled_to_zero_terminal_snr(
    alphas_cumprod: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    roots = np.sqrt(alphas_cumprod)
    first, last = roots[0], roots[-1]
    rescaled: npt.NDArray[np.float64] = np.square((roots - last) * first / (first - last))
    return rescaled
