"""What every optimizer of this package offers, wherever it keeps its states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

V_QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """How one step went, measured on an even sample of all weights.

    Attributes:
        update_rms: Root mean square of what was added to the exact weights.
        weight_rms: Root mean square of the exact weights after the step.
        v_quantiles: Quantiles of the second moment, at `V_QUANTILES`.
        share_moved: Share of the weights whose value in the model's own dtype changed.
    """

    update_rms: float
    weight_rms: float
    v_quantiles: tuple[float, ...]
    share_moved: float


class MasterOptimizer(Protocol):
    """An optimizer that keeps exact float32 weights behind parameters of any dtype."""

    @property
    def t(self) -> int:
        """Number of steps taken."""
        ...

    def step(self, gradients: Mapping[str, Tensor], lr: float, *, diagnose: bool = False) -> None:
        """Take one step and write the new weights to the parameters, in place.

        Args:
            gradients: One for every parameter, by name; clipped already, and finite.
            lr: Learning rate of this step.
            diagnose: Whether to measure it for `diagnostics`.

        Raises:
            ValueError: if names or shapes are not those of the parameters.
            UnrepresentableWeightError: if a weight is no longer finite in its parameter's dtype.
                The step has been taken; only the exact weights are still of use.
        """
        ...

    def master_weight(self, name: str) -> Tensor:
        """Return a copy of the exact float32 weights of a parameter, in host memory."""
        ...

    def load_master_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Set the exact weights, and with them the parameters.

        Raises:
            ValueError: if names or shapes are not those of the parameters, or a value does not fit.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the parameters' own values: plain values and host tensors.

        The tensors may be those that the next step changes: save them, or clone them, before it.
        """
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy in what `state_dict` returned; the parameters must hold their values of that time.

        Raises:
            ValueError: if it is of another optimizer, other parameters or other formats. Nothing
                has been changed then.
        """
        ...

    def diagnostics(self) -> Diagnostics | None:
        """Return what the last step measured; None if it was not asked to."""
        ...

    def bytes_on_host(self) -> int:
        """Return the size of what is kept in host memory."""
        ...

    def bytes_on_device(self) -> int:
        """Return the size of what is kept on the parameters' device, the parameters aside."""
        ...
