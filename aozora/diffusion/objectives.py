"""What the model sees and what it should predict, for each kind of prediction.

Dimensions: B samples, C latent channels, H x W latent sides. Coefficients are float32 whatever the
type of the latents, since a cumulative product in bfloat16 has no noise left at the first
timesteps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from aozora.config.choices.predictions import (
    Epsilon,
    Flow,
    Prediction,
    PredictionName,
    VPrediction,
)
from aozora.config.flow_shift import flow_timestep
from aozora.config.ticket_pool import TIMESTEPS
from aozora.diffusion.schedule import NoiseSchedule, sdxl_schedule
from aozora.errors import ConfigError, Problem


class Objective(Protocol):
    """One kind of prediction. Timesteps are those given to the UNet, shape (B,)."""

    @property
    def prediction(self) -> PredictionName:
        """The name of the kind."""

    def model_timesteps(self, tickets: Tensor, height: int, width: int) -> Tensor:
        """Return the timesteps given to the UNet.

        Args:
            tickets: Draws from the ticket pool, int64 in [0, 1000), shape (B,).
            height: Height of the pictures in pixels.
            width: Width of the pictures in pixels.
        """

    def noise_latents(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return ``latents`` (B, C, H, W), scaled, at the noise level of ``timesteps``."""

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the model should predict, shape (B, C, H, W)."""

    def clean_latents(self, noisy_latents: Tensor, model_pred: Tensor, timesteps: Tensor) -> Tensor:
        """Return the clean latents that follow from a prediction."""

    def snr(self, timesteps: Tensor) -> Tensor:
        """Return the signal-to-noise ratio at ``timesteps``, float32, shape (B,)."""


@dataclass(frozen=True, eq=False)
class EpsilonObjective:
    """The model predicts the noise. See `Objective`."""

    schedule: NoiseSchedule
    prediction: ClassVar[PredictionName] = "epsilon"

    def model_timesteps(self, tickets: Tensor, height: int, width: int) -> Tensor:
        """Return the tickets; they are the timesteps."""
        return tickets

    def noise_latents(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return ``a * latents + s * noise`` with the roots of the schedule."""
        return _noise_latents(self.schedule, latents, noise, timesteps)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return the noise."""
        return noise

    def clean_latents(self, noisy_latents: Tensor, model_pred: Tensor, timesteps: Tensor) -> Tensor:
        """Return ``(noisy_latents - s * model_pred) / a``."""
        signal, sigma = _coefficients(self.schedule, timesteps, noisy_latents)
        return (noisy_latents - sigma * model_pred) / signal

    def snr(self, timesteps: Tensor) -> Tensor:
        """Return the schedule's ratio."""
        return _lookup(self.schedule.to(timesteps.device).snr, timesteps)


@dataclass(frozen=True, eq=False)
class VObjective:
    """The model predicts the velocity (arXiv 2202.00512). See `Objective`."""

    schedule: NoiseSchedule
    prediction: ClassVar[PredictionName] = "v_prediction"

    def model_timesteps(self, tickets: Tensor, height: int, width: int) -> Tensor:
        """Return the tickets; they are the timesteps."""
        return tickets

    def noise_latents(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return ``a * latents + s * noise`` with the roots of the schedule."""
        return _noise_latents(self.schedule, latents, noise, timesteps)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return ``a * noise - s * latents``."""
        signal, sigma = _coefficients(self.schedule, timesteps, latents)
        return signal * noise - sigma * latents

    def clean_latents(self, noisy_latents: Tensor, model_pred: Tensor, timesteps: Tensor) -> Tensor:
        """Return ``a * noisy_latents - s * model_pred``."""
        signal, sigma = _coefficients(self.schedule, timesteps, noisy_latents)
        return signal * noisy_latents - sigma * model_pred

    def snr(self, timesteps: Tensor) -> Tensor:
        """Return the schedule's ratio."""
        return _lookup(self.schedule.to(timesteps.device).snr, timesteps)


@dataclass(frozen=True, eq=False)
class FlowObjective:
    """The model predicts the way from picture to noise (arXiv 2403.03206). See `Objective`.

    The noise share of a sample is its timestep / 1000.
    """

    options: Flow
    prediction: ClassVar[PredictionName] = "flow"

    def model_timesteps(self, tickets: Tensor, height: int, width: int) -> Tensor:
        """Return the tickets after the shift, float32 in (0, 1000)."""
        shift = self.options.shift_for(height, width)
        values = [flow_timestep(ticket, shift) for ticket in tickets.tolist()]
        return torch.tensor(values, dtype=torch.float32, device=tickets.device)

    def noise_latents(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return the point at noise share ``u`` on the way."""
        u = _per_sample(noise_share(timesteps), latents)
        return (1.0 - u) * latents + u * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return the whole way, ``noise - latents``."""
        return noise.float() - latents.float()

    def clean_latents(self, noisy_latents: Tensor, model_pred: Tensor, timesteps: Tensor) -> Tensor:
        """Return ``noisy_latents - u * model_pred``."""
        return noisy_latents - _per_sample(noise_share(timesteps), noisy_latents) * model_pred

    def snr(self, timesteps: Tensor) -> Tensor:
        """Return ``((1 - u) / u)^2``."""
        u = noise_share(timesteps)
        return ((1.0 - u) / u) ** 2


def noise_share(timesteps: Tensor) -> Tensor:
    """Return the share ``u`` of noise in rectified flow at ``timesteps``, float32."""
    return timesteps.float() / TIMESTEPS


def make_objective(prediction: Prediction, *, zero_terminal_snr: bool) -> Objective:
    """Return the objective for a prediction that is settled (not ``auto``).

    Raises:
        ConfigError: if the schedule and the prediction exclude each other.
    """
    return OBJECTIVES[type(prediction)](prediction, zero_terminal_snr)


def _make_epsilon(prediction: Epsilon, zero_terminal_snr: bool) -> Objective:
    if zero_terminal_snr:
        raise _refused(
            "cannot be trained with epsilon prediction: at the last timestep the input is the"
            " noise itself, and nothing about the picture can be learned from it",
            "choose v_prediction, or turn zero terminal SNR off",
        )
    return EpsilonObjective(sdxl_schedule(zero_terminal_snr=False))


def _make_v(prediction: VPrediction, zero_terminal_snr: bool) -> Objective:
    return VObjective(sdxl_schedule(zero_terminal_snr))


def _make_flow(prediction: Flow, zero_terminal_snr: bool) -> Objective:
    if zero_terminal_snr:
        raise _refused(
            "has no meaning for rectified flow, which has no noise schedule to rescale",
            "turn zero terminal SNR off",
        )
    return FlowObjective(prediction)


OBJECTIVES: dict[type[Any], Callable[[Any, bool], Objective]] = {
    Epsilon: _make_epsilon,
    VPrediction: _make_v,
    Flow: _make_flow,
}
"""What makes the objective of each prediction."""


def _refused(text: str, remedy: str) -> ConfigError:
    return ConfigError([Problem("objective.zero_terminal_snr", text, remedy)])


def _noise_latents(
    schedule: NoiseSchedule, latents: Tensor, noise: Tensor, timesteps: Tensor
) -> Tensor:
    signal, sigma = _coefficients(schedule, timesteps, latents)
    return signal * latents + sigma * noise


def _coefficients(
    schedule: NoiseSchedule, timesteps: Tensor, latents: Tensor
) -> tuple[Tensor, Tensor]:
    tables = schedule.to(timesteps.device)
    return (
        _per_sample(_lookup(tables.sqrt_alphas_cumprod, timesteps), latents),
        _per_sample(_lookup(tables.sqrt_one_minus_alphas_cumprod, timesteps), latents),
    )


def _lookup(table: Tensor, timesteps: Tensor) -> Tensor:
    if timesteps.dtype != torch.int64 or timesteps.ndim != 1:
        raise ValueError(
            f"timesteps must be int64 of shape (B,), not {timesteps.dtype} of shape"
            f" {tuple(timesteps.shape)}"
        )
    return table[timesteps]


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    if values.shape != like.shape[:1]:
        raise ValueError(f"{tuple(values.shape)} timesteps for latents {tuple(like.shape)}")
    return values.to(like.device).view(-1, *(1,) * (like.ndim - 1))
