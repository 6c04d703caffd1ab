"""Adafactor: the second moment as one row and one column a matrix instead of one value a weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from optimizers.precision import StateFormat
from optimizers.rule import Moments, StateSpec, refuse_outside

_SQUARE_EPS = 1e-30  # epsilon_1 of the paper
_SMALLEST_SCALE = 1e-3  # epsilon_2 of the paper


@dataclass(frozen=True, kw_only=True)
class AdafactorRule:
    """Adafactor without momentum (arXiv 1804.04235, algorithms 4 to 6).

    The paper's own choice of the step size is left out: the learning rate is the drawn one.

    A convolution is taken as the matrix (out, in * height * width), so that its row and column are
    small; factoring its last two axes would keep two thirds of a 3x3 kernel's elements.

    Attributes:
        decay_power: The second moment keeps ``1 - t**-decay_power`` of itself at step t.
        clip_threshold: Updates with a larger root mean square are scaled down to it.
        weight_decay: Share of the weight taken away at every step, times the learning rate.
        scale_parameter: Whether to multiply the learning rate by the weights' root mean square.
    """

    kind: ClassVar[str] = "adafactor"

    decay_power: float = 0.8
    clip_threshold: float = 1.0
    weight_decay: float = 0.0
    scale_parameter: bool = False

    def __post_init__(self) -> None:
        refuse_outside("decay_power", self.decay_power, 0.0, 1.0)
        refuse_outside("clip_threshold", self.clip_threshold, 1e-6, 1e6)
        refuse_outside("weight_decay", self.weight_decay, 0.0, 1.0)

    @property
    def needs_shape(self) -> bool:
        """Always: rows, columns and the update's mean square are those of whole tensors."""
        return True

    def states(self, shape: torch.Size) -> dict[str, StateSpec]:
        """Return row and column for matrices and convolutions, the full moment for the rest."""
        if len(shape) < 2:
            return {"exp_avg_sq": StateSpec(shape=shape, formats=("float32",))}
        row, column = torch.Size((shape[0],)), torch.Size((shape[1:].numel(),))
        return {
            "exp_avg_sq_row": StateSpec(shape=row, formats=("float32",)),
            "exp_avg_sq_col": StateSpec(shape=column, formats=("float32",)),
        }

    def formats(self, moments: Moments) -> dict[str, StateFormat]:
        """Return float32 for every state: they are small already."""
        return {"exp_avg_sq": "float32", "exp_avg_sq_row": "float32", "exp_avg_sq_col": "float32"}

    def update(
        self,
        weight: Tensor,
        grad: Tensor,
        states: Mapping[str, Tensor],
        scratch: Tensor,
        *,
        lr: float,
        t: int,
    ) -> None:
        """Take step number ``t`` in place; see `optimizers.rule.UpdateRule.update`."""
        fresh = t**-self.decay_power  # 1 - beta2 of this step; 1 at the first
        squares = torch.mul(grad, grad, out=scratch).add_(_SQUARE_EPS)
        if grad.ndim < 2:
            moment = states["exp_avg_sq"].lerp_(squares, fresh)
            update = grad.div_(torch.sqrt(moment, out=scratch))
        else:
            matrix = squares.view(squares.shape[0], -1)
            row = states["exp_avg_sq_row"].lerp_(matrix.mean(dim=1), fresh)
            column = states["exp_avg_sq_col"].lerp_(matrix.mean(dim=0), fresh)
            update = grad.view(grad.shape[0], -1)
            update.mul_((row / row.mean()).rsqrt_().unsqueeze(1)).mul_(column.rsqrt())
        # Root mean squares stay on the device as 0-dim tensors: nothing waits for them.
        update.div_(_root_mean_square(update).div_(self.clip_threshold).clamp_(min=1.0))
        if self.scale_parameter:
            update.mul_(_root_mean_square(weight).clamp_(min=_SMALLEST_SCALE))
        weight.mul_(1 - lr * self.weight_decay)
        weight.add_(update.view(weight.shape), alpha=-lr)

    def second_moment(self, states: Mapping[str, Tensor]) -> Tensor:
        """Return the moment that row and column stand for."""
        if "exp_avg_sq" in states:
            return states["exp_avg_sq"]
        row, column = states["exp_avg_sq_row"], states["exp_avg_sq_col"]
        return torch.outer(row / row.mean(), column)


def _root_mean_square(values: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(values)
    return norm.div_(values.numel() ** 0.5)
