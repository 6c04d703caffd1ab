"""VeloRMS: momentum divided by the root of a leaky mean of its own square."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from optimizers.precision import StateFormat
from optimizers.rule import (
    FIRST_MOMENT_FORMATS,
    SLOWEST_8BIT_DECAY,
    Moments,
    StateSpec,
    first_moment_format,
    refuse_outside,
)


@dataclass(frozen=True, kw_only=True)
class VeloRMSRule:
    """The VeloRMS recurrence, without bias correction.

    With g the gradient::

        velocity = momentum * velocity + (1 - momentum) * g
        rms      = momentum * rms + (1 - momentum) * velocity**2 + leak * g**2
        weight  *= 1 - lr * weight_decay
        weight  -= lr * velocity / (sqrt(rms) + eps)

    The leak is not scaled by ``1 - momentum``: under a constant gradient the update is
    ``lr / sqrt(1 + leak / (1 - momentum))``.

    Attributes:
        momentum: Share of velocity and rms kept at every step.
        leak: How much of the squared gradient enters the rms directly; damps updates under noise.
        eps: Added to the root of the rms.
        weight_decay: Share of the weight taken away at every step, times the learning rate.
    """

    kind: ClassVar[str] = "velo_rms"

    momentum: float = 0.86
    leak: float = 0.16
    eps: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        refuse_outside("momentum", self.momentum, 0.0, 1 - 2**-24)
        refuse_outside("leak", self.leak, 0.0, 1.0)
        refuse_outside("eps", self.eps, 0.0, 1.0)
        refuse_outside("weight_decay", self.weight_decay, 0.0, 1.0)

    @property
    def needs_shape(self) -> bool:
        """Never: everything is element by element."""
        return False

    def states(self, shape: torch.Size) -> dict[str, StateSpec]:
        """Return velocity and rms."""
        return {
            "velocity": StateSpec(shape=shape, formats=FIRST_MOMENT_FORMATS),
            "rms": StateSpec(shape=shape, formats=("float32", "uint16_sr", "uint8")),
        }

    def formats(self, moments: Moments) -> dict[str, StateFormat]:
        """Return how to keep velocity and rms, which change fast; slow ones never in 8 bits."""
        if moments == "float32":
            return {"velocity": "float32", "rms": "float32"}
        is_fast = self.momentum <= SLOWEST_8BIT_DECAY
        return {
            "velocity": first_moment_format(self.momentum, moments if is_fast else "16bit"),
            "rms": "uint8" if is_fast else "uint16_sr",
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
        """Take one step in place; see `optimizers.rule.UpdateRule.update`."""
        velocity, rms = states["velocity"], states["rms"]
        fresh = 1 - self.momentum
        velocity.mul_(self.momentum).add_(grad, alpha=fresh)
        rms.mul_(self.momentum).addcmul_(velocity, velocity, value=fresh)
        rms.addcmul_(grad, grad, value=self.leak)
        weight.mul_(1 - lr * self.weight_decay)
        denominator = torch.sqrt(rms, out=scratch).add_(self.eps)
        weight.addcdiv_(velocity, denominator, value=-lr)

    def second_moment(self, states: Mapping[str, Tensor]) -> Tensor:
        """Return the rms before its root is taken."""
        return states["rms"]
