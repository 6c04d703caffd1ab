"""Lion: steps of one size, in the direction of a running mean's sign."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from optimizers.precision import StateFormat
from optimizers.rule import (
    FIRST_MOMENT_FORMATS,
    Moments,
    StateSpec,
    first_moment_format,
    refuse_outside,
)


@dataclass(frozen=True, kw_only=True)
class LionRule:
    """Lion (arXiv 2302.06675, program 1).

    With g the gradient::

        weight  *= 1 - lr * weight_decay
        weight  -= lr * sign(beta1 * exp_avg + (1 - beta1) * g)
        exp_avg  = beta2 * exp_avg + (1 - beta2) * g

    Every weight moves by the learning rate, so that it wants a third to a tenth of AdamW's.

    Attributes:
        beta1: Weight of the running mean against the fresh gradient in an update.
        beta2: Share of the running mean kept at every step.
        weight_decay: Share of the weight taken away at every step, times the learning rate.
    """

    kind: ClassVar[str] = "lion"

    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        refuse_outside("beta1", self.beta1, 0.0, 1 - 2**-24)
        refuse_outside("beta2", self.beta2, 0.0, 1 - 2**-24)
        refuse_outside("weight_decay", self.weight_decay, 0.0, 1.0)

    @property
    def needs_shape(self) -> bool:
        """Never: everything is element by element."""
        return False

    def states(self, shape: torch.Size) -> dict[str, StateSpec]:
        """Return the running mean of gradients."""
        return {"exp_avg": StateSpec(shape=shape, formats=FIRST_MOMENT_FORMATS)}

    def formats(self, moments: Moments) -> dict[str, StateFormat]:
        """Return how to keep it."""
        return {"exp_avg": first_moment_format(self.beta2, moments)}

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
        """Take one step in place; see `optimizers.rule.UpdateRule.update`."""
        exp_avg = states["exp_avg"]
        weight.mul_(1 - lr * self.weight_decay)
        direction = torch.lerp(exp_avg, grad, 1 - self.beta1, out=scratch).sign_()
        weight.add_(direction, alpha=-lr)
        exp_avg.lerp_(grad, 1 - self.beta2)

    def second_moment(self, states: Mapping[str, Tensor]) -> None:
        """Return None: there is none."""
