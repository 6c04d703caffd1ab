"""What an update rule is, apart from where its states live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from optimizers.precision import StateFormat

Moments = Literal["8bit", "16bit", "float32"]

FIRST_MOMENT_FORMATS: tuple[StateFormat, ...] = ("float32", "bfloat16", "int8")
"""Formats for running means of gradients."""

SLOWEST_8BIT_DECAY = 0.95
"""Up to here a mean may be kept in 8 bits: rounding errors are forgotten in some twenty steps."""

# Up to here a first moment in bfloat16 moves by over half a unit in the last place at every step.
_SLOWEST_BFLOAT16_DECAY = 0.99


@dataclass(frozen=True, kw_only=True)
class StateSpec:
    """One state of one tensor.

    Attributes:
        shape: Its shape; the tensor's own for states kept per element.
        formats: The formats in which it may be kept.
    """

    shape: torch.Size
    formats: tuple[StateFormat, ...]


class UpdateRule(Protocol):
    """The arithmetic of one optimizer, in float32, on whatever tensors it is handed.

    Attributes:
        kind: Name of the optimizer.
    """

    kind: ClassVar[str]

    @property
    def needs_shape(self) -> bool:
        """Whether `update` must be handed whole tensors in their own shape, not flat slices."""
        ...

    def states(self, shape: torch.Size) -> dict[str, StateSpec]:
        """Return the states of a tensor of ``shape``, by name; all start as zeros."""
        ...

    def formats(self, moments: Moments) -> dict[str, StateFormat]:
        """Return how to keep each state when ``moments`` is asked for."""
        ...

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
        """Take step number ``t`` in place.

        Args:
            weight: float32; updated.
            grad: float32, same shape; may be overwritten.
            states: float32, by name; updated.
            scratch: float32 work space of the same shape.
            lr: Learning rate.
            t: Number of this step, from 1.
        """
        ...

    def second_moment(self, states: Mapping[str, Tensor]) -> Tensor | None:
        """Return the running mean of squared gradients, one value an element; None if not kept."""
        ...


def first_moment_format(decay: float, moments: Moments) -> StateFormat:
    """Return how to keep a running mean of gradients that keeps ``decay`` of itself at every step.

    A very slow one stays in float32: in bfloat16, rounded to nearest, it would not move, and in 8
    bits the errors of a thousand steps would add up.
    """
    if moments == "float32" or decay > _SLOWEST_BFLOAT16_DECAY:
        return "float32"
    return "bfloat16" if moments == "16bit" else "int8"


def refuse_outside(name: str, value: float, low: float, high: float) -> None:
    """Refuse a hyperparameter that is not in [``low``, ``high``].

    Raises:
        ValueError: naming it.
    """
    if not low <= value <= high:
        raise ValueError(f"{name}: {value} is not between {low} and {high}")
