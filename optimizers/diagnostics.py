"""Measuring a step on an even sample of all weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optimizers.chunk import Chunk, StatePlane
from optimizers.precision import join_fp32
from optimizers.rule import UpdateRule
from optimizers.state_codec import decode_states

V_QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
_SAMPLE_SIZE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """How one step went, measured on an even sample of all weights.

    Attributes:
        update_rms: Root mean square of what was added to the exact weights.
        weight_rms: Root mean square of the exact weights after the step.
        v_quantiles: Quantiles of the second moment, at `V_QUANTILES`; empty for a rule without.
        share_moved: Share of the weights whose value in the model's own dtype changed.
    """

    update_rms: float
    weight_rms: float
    v_quantiles: tuple[float, ...]
    share_moved: float


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

    def before(self, name: str, chunk: Chunk, parts: Sequence[slice]) -> None:
        """Look at weights before their update.

        Args:
            name: Any that no other chunk has.
            chunk: The chunk they are in.
            parts: Where in it there are weights; what is between them is padding.
        """
        self._before[name] = (self._exact(chunk, parts), self._sample(chunk.weight, parts))

    def after(
        self,
        name: str,
        chunk: Chunk,
        parts: Sequence[slice],
        rule: UpdateRule,
        shape: torch.Size | None = None,
    ) -> None:
        """Look at them after the update.

        Args:
            name: As given to `before`.
            chunk: As given to `before`.
            parts: As given to `before`.
            rule: What updated it.
            shape: Of the one tensor the chunk is, for rules that need it.
        """
        old_weight, old_parameter = self._before.pop(name)
        new_weight = self._exact(chunk, parts)
        self._weights.append(new_weight)
        self._updates.append(new_weight - old_weight)
        self._moved.append(self._sample(chunk.weight, parts) != old_parameter)
        specs = rule.states(shape or chunk.weight.shape)
        states = {
            name: values[: specs[name].shape.numel()].view(specs[name].shape)
            for name, values in _decoded(chunk.states).items()
        }
        moment = rule.second_moment(states)
        if moment is not None:
            self._second_moments.append(self._sample(moment, parts))

    def result(self) -> Diagnostics:
        """Return what was seen."""
        weights, updates = _gather(self._weights), _gather(self._updates)
        quantiles = torch.empty(0)
        if self._second_moments:
            places = torch.tensor(V_QUANTILES, dtype=torch.float64)
            quantiles = torch.quantile(_gather(self._second_moments), places)
        return Diagnostics(
            update_rms=updates.square().mean().sqrt().item(),
            weight_rms=weights.square().mean().sqrt().item(),
            v_quantiles=tuple(quantiles.tolist()),
            share_moved=_gather(self._moved).mean().item(),
        )

    def _exact(self, chunk: Chunk, parts: Sequence[slice]) -> Tensor:
        weight = self._sample(chunk.weight, parts)
        if chunk.master is None:
            return weight
        master = self._sample(chunk.master, parts)
        return join_fp32(weight, master) if master.dtype == torch.int16 else master

    def _sample(self, values: Tensor, parts: Sequence[slice]) -> Tensor:
        flat, samples, seen = values.detach().reshape(-1), [], 0
        for part in parts:
            # The stride goes on from part to part: short ones are not seen more often.
            samples.append(flat[part][-seen % self._stride :: self._stride])
            seen += part.stop - part.start
        return torch.cat(samples)


def _decoded(planes: Mapping[str, StatePlane]) -> dict[str, Tensor]:
    values = {
        name: torch.empty(plane.values.shape, dtype=torch.float32, device=plane.values.device)
        for name, plane in planes.items()
    }
    longest = max(values.values(), key=Tensor.numel)
    scratch = (
        torch.empty_like(longest, dtype=torch.int32),
        torch.empty_like(longest, dtype=torch.int32),
    )
    decode_states(planes, values, scratch)
    return values


def _gather(samples: list[Tensor]) -> Tensor:
    return torch.cat([sample.cpu() for sample in samples]).double()
