"""Measuring a step on an even sample of all weights."""

from __future__ import annotations

import torch
from torch import Tensor

from optimizers.protocol import V_QUANTILES, Diagnostics

_SAMPLE_SIZE = 1 << 20


class Survey:
    """Looks at weights before and after one step.

    Args:
        num_elements: Number of weights in all tensors together.
    """

    def __init__(self, num_elements: int) -> None:
        # Odd, so that a sample does not walk down one column of a matrix.
        self._stride = max(1, num_elements // _SAMPLE_SIZE) | 1
        self._before: dict[str, tuple[Tensor, Tensor]] = {}
        self._updates: list[Tensor] = []
        self._weights: list[Tensor] = []
        self._second_moments: list[Tensor] = []
        self._moved: list[Tensor] = []

    def before(self, name: str, weight: Tensor, parameter: Tensor) -> None:
        """Look at the exact ``weight`` and the ``parameter`` made from it, before the update."""
        self._before[name] = (self._sample(weight), self._sample(parameter))

    def after(self, name: str, weight: Tensor, parameter: Tensor, second_moment: Tensor) -> None:
        """Look at them after the update."""
        old_weight, old_parameter = self._before.pop(name)
        new_weight = self._sample(weight)
        self._weights.append(new_weight)
        self._updates.append(new_weight - old_weight)
        self._moved.append(self._sample(parameter) != old_parameter)
        self._second_moments.append(self._sample(second_moment))

    def result(self) -> Diagnostics:
        """Return what was seen."""
        weights, updates = _gather(self._weights), _gather(self._updates)
        quantiles = torch.quantile(
            _gather(self._second_moments), torch.tensor(V_QUANTILES, dtype=torch.float64)
        )
        return Diagnostics(
            update_rms=updates.square().mean().sqrt().item(),
            weight_rms=weights.square().mean().sqrt().item(),
            v_quantiles=tuple(quantiles.tolist()),
            share_moved=_gather(self._moved).mean().item(),
        )

    def _sample(self, values: Tensor) -> Tensor:
        return values.detach().reshape(-1)[:: self._stride].clone()


def _gather(samples: list[Tensor]) -> Tensor:
    return torch.cat([sample.cpu() for sample in samples]).double()
