"""The loss of each sample, before weighting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from aozora.config.choices.losses import Huber, Mse


def per_sample_loss(options: Mse | Huber, model_pred: Tensor, target: Tensor) -> Tensor:
    """Return the mean loss of each sample, float32, shape (B,).

    Args:
        options: Which loss.
        model_pred: What the model predicted, shape (B, C, H, W), any float type.
        target: What it should have, same shape.

    Raises:
        ValueError: if the shapes differ.
    """
    if model_pred.shape != target.shape:
        raise ValueError(
            f"the prediction has shape {tuple(model_pred.shape)}, the target {tuple(target.shape)}"
        )
    return LOSS_FUNCTIONS[type(options)](options, model_pred.float(), target.float())


def _mse(options: Mse, model_pred: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(model_pred, target, reduction="none").flatten(1).mean(1)


def _huber(options: Huber, model_pred: Tensor, target: Tensor) -> Tensor:
    c = options.c
    difference = model_pred - target
    # 2c (sqrt(d^2 + c^2) - c), written so that small differences do not cancel.
    squared = difference * difference
    return (2.0 * c * squared / ((squared + c * c).sqrt() + c)).flatten(1).mean(1)


LOSS_FUNCTIONS: dict[type[Any], Callable[[Any, Tensor, Tensor], Tensor]] = {
    Mse: _mse,
    Huber: _huber,
}
"""The function of each loss."""
