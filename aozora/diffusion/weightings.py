"""How much the loss of each sample counts, by its noise level.

The loss of a batch is the mean of weight x loss, not divided by the sum of the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aozora.config.choices.weightings import MinSnr, NoWeighting
from aozora.diffusion.objectives import Objective, noise_share


def sample_weights(
    options: NoWeighting | MinSnr, objective: Objective, timesteps: Tensor
) -> Tensor:
    """Return the weight of each sample, float32, shape (B,).

    Args:
        options: Which weighting.
        objective: What the model predicts.
        timesteps: Timesteps given to the UNet, shape (B,).
    """
    return WEIGHTING_FUNCTIONS[type(options)](options, objective, timesteps)


def _none(options: NoWeighting, objective: Objective, timesteps: Tensor) -> Tensor:
    return torch.ones(timesteps.shape, dtype=torch.float32, device=timesteps.device)


def _min_snr(options: MinSnr, objective: Objective, timesteps: Tensor) -> Tensor:
    """Weight errors of the clean picture by min(SNR, gamma) (arXiv 2303.09556).

    An error of the prediction is an error of the picture times SNR for epsilon, SNR + 1 for v and
    1 / u^2 for flow; dividing by that gives the weight of the prediction's error.
    """
    snr = objective.snr(timesteps)
    match objective.prediction:
        case "epsilon":
            # As gamma / SNR, so that SNR = 0 gives the limit 1 instead of 0 / 0.
            weights = (options.gamma / snr).clamp(max=1.0)
        case "v_prediction":
            weights = snr.clamp(max=options.gamma) / (snr + 1.0)
        case "flow":
            weights = snr.clamp(max=options.gamma) * noise_share(timesteps) ** 2
    return weights.clamp(min=options.floor)


WEIGHTING_FUNCTIONS: dict[type[Any], Callable[[Any, Objective, Tensor], Tensor]] = {
    NoWeighting: _none,
    MinSnr: _min_snr,
}
"""The function of each weighting."""
