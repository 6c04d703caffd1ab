"""RavenAdamW: AdamW with adjustable bias correction and gradient centralization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from optimizers.precision import StateFormat
from optimizers.rule import (
    SLOWEST_8BIT_DECAY,
    Moments,
    StateSpec,
    first_moment_format,
    refuse_outside,
)


@dataclass(frozen=True, kw_only=True)
class RavenAdamWRule:
    """AdamW (arXiv 1711.05101), in the very order of operations of torch's single-tensor AdamW.

    With ``debias_strength`` 1 and ``centralization`` 0 the result is that of ``torch.optim.AdamW``
    in float32, bit for bit on a CPU.

    Attributes:
        beta1: Share of the first moment kept at every step.
        beta2: Share of the second moment kept at every step.
        eps: Added to the root of the second moment.
        weight_decay: Share of the weight taken away at every step, times the learning rate.
        debias_strength: s in the bias corrections ``1 - s * beta**t``. Below 1, early updates are
            larger than AdamW's, by `early_multiplier`.
        centralization: Share of each output channel's mean gradient that is taken away; 0 is off.
    """

    kind: ClassVar[str] = "raven_adamw"

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    debias_strength: float = 1.0
    centralization: float = 0.0

    def __post_init__(self) -> None:
        refuse_outside("beta1", self.beta1, 0.0, 1 - 2**-24)
        refuse_outside("beta2", self.beta2, 0.0, 1 - 2**-24)
        refuse_outside("eps", self.eps, 0.0, 1.0)
        refuse_outside("weight_decay", self.weight_decay, 0.0, 1.0)
        refuse_outside("debias_strength", self.debias_strength, 0.0, 1.0)
        refuse_outside("centralization", self.centralization, 0.0, 1.0)

    @property
    def needs_shape(self) -> bool:
        """Whether whole tensors are needed: only to centralize; all else is element by element."""
        return self.centralization > 0

    def states(self, shape: torch.Size) -> dict[str, StateSpec]:
        """Return the two moments."""
        return {
            "exp_avg": StateSpec(shape=shape, formats=("float32", "bfloat16", "int6")),
            "exp_avg_sq": StateSpec(shape=shape, formats=("float32", "uint16_sr", "uint10")),
        }

    def formats(self, moments: Moments) -> dict[str, StateFormat]:
        """Return how to keep each moment; a slow first moment never in 8 bits.

        Settling a slow one would add jitter as large as an update; see `settle`.
        """
        if moments == "float32":
            return {"exp_avg": "float32", "exp_avg_sq": "float32"}
        if moments == "8bit" and self.beta1 <= SLOWEST_8BIT_DECAY:
            return {"exp_avg": "int6", "exp_avg_sq": "uint10"}
        return {
            "exp_avg": first_moment_format(self.beta1, "16bit"),
            "exp_avg_sq": "uint16_sr",
        }

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
        exp_avg, exp_avg_sq = states["exp_avg"], states["exp_avg_sq"]
        if self.centralization > 0 and grad.ndim > 1:
            mean = grad.mean(dim=tuple(range(1, grad.ndim)), keepdim=True)
            grad.sub_(mean, alpha=self.centralization)
        if self.weight_decay != 0:
            weight.mul_(1 - lr * self.weight_decay)
        exp_avg.lerp_(grad, 1 - self.beta1)
        exp_avg_sq.mul_(self.beta2).addcmul_(grad, grad, value=1 - self.beta2)
        correction1 = 1 - self.debias_strength * self.beta1**t
        correction2 = 1 - self.debias_strength * self.beta2**t
        denominator = torch.sqrt(exp_avg_sq, out=scratch).div_(correction2**0.5).add_(self.eps)
        weight.addcdiv_(exp_avg, denominator, value=-(lr / correction1))

    def settle(
        self,
        weight: Tensor,
        error: Tensor,
        states: Mapping[str, Tensor],
        scratch: Tensor,
        *,
        lr: float,
        t: int,
    ) -> None:
        """Give the weight what rounding took from the first moment, in place.

        See `optimizers.state_codec.Settling`.
        """
        correction2 = 1 - self.debias_strength * self.beta2**t
        denominator = torch.sqrt(states["exp_avg_sq"], out=scratch).div_(correction2**0.5)
        value = -lr * self.settled_share(t)
        weight.addcdiv_(error, denominator.add_(self.eps), value=value)

    def settled_share(self, t: int) -> float:
        """Return what an error of the first moment at step ``t`` adds to all later updates."""
        return _settled_share(self.beta1, self.debias_strength, t)

    def second_moment(self, states: Mapping[str, Tensor]) -> Tensor:
        """Return the second moment."""
        return states["exp_avg_sq"]

    def early_multiplier(self, t: int) -> float:
        """Return by how much the update of step ``t`` is larger than AdamW's, eps aside."""
        s = self.debias_strength
        first = (1 - self.beta1**t) / (1 - s * self.beta1**t)
        second = (1 - s * self.beta2**t) / (1 - self.beta2**t)
        return float(first * second**0.5)


@dataclass(frozen=True, kw_only=True)
class AdamWRule(RavenAdamWRule):
    """AdamW as it was published: `RavenAdamWRule` with what it adds left at nothing."""

    kind: ClassVar[str] = "adamw"


@lru_cache(maxsize=16)
def _settled_share(beta1: float, strength: float, t: int) -> float:
    """Return the sum over k of ``beta1**k / (1 - strength * beta1**(t + k))``, from k = 1."""
    total, kept, correction = 0.0, beta1, strength * beta1 ** (t + 1)
    while kept > 1e-12:
        total += kept / (1 - correction)
        kept *= beta1
        correction *= beta1
    return total
