"""Gradients between backward passes and the optimizer: summed in float32, measured, clipped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn


class GradientAccumulator:
    """Takes gradients off the parameters as they appear and sums them in float32.

    Sums of bf16 gradients lose what is below half a unit in the last place, so no sum is ever held
    in the parameter's own format; and a parameter's ``grad`` is free again as soon as it was read.

    Args:
        parameters: Trained parameters by name.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._sums: dict[str, Tensor] = {}
        self._names = tuple(parameters)
        self._handles = [
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                partial(self._take, name)
            )
            for name, parameter in parameters.items()
        ]

    def _take(self, name: str, parameter: Tensor) -> None:
        gradient = parameter.grad
        assert gradient is not None
        parameter.grad = None
        held = self._sums.get(name)
        if held is None:
            self._sums[name] = gradient.to(torch.float32)
        else:
            held.add_(gradient)

    @property
    def sums(self) -> Mapping[str, Tensor]:
        """The sums so far, by name, in the order of the parameters; float32."""
        return {name: self._sums[name] for name in self._names if name in self._sums}

    def scale(self, factor: float) -> None:
        """Multiply every sum by ``factor``."""
        for gradient in self._sums.values():
            gradient.mul_(factor)

    def norm(self) -> Tensor:
        """Return the L2 norm of all sums together, as a 0-dim tensor on their device."""
        return torch.nn.utils.get_total_norm(list(self.sums.values()), 2.0)

    def clip(self, norm: Tensor, max_norm: float) -> None:
        """Scale the sums so that their norm is at most ``max_norm``, as torch does."""
        factor = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
        for gradient in self._sums.values():
            gradient.mul_(factor)

    def clear(self) -> None:
        """Forget the sums."""
        self._sums.clear()

    def close(self) -> None:
        """Detach from the parameters."""
        for handle in self._handles:
            handle.remove()
        self.clear()


class LossScaler:
    """Dynamic loss scale for fp16 (Micikevicius et al. 2017, section 3.2).

    fp16 gradients below 6e-8 vanish, so the loss is multiplied before backward and the gradients
    are divided after. The scale is halved when they overflow and doubled after a run of good steps.
    """

    INITIAL = 2.0**16
    GROWTH_INTERVAL = 2000
    LARGEST = 2.0**24

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.scale = self.INITIAL if enabled else 1.0
        self._good_steps = 0

    def note_good_step(self) -> None:
        """Count a step whose gradients were finite."""
        if not self.enabled:
            return
        self._good_steps += 1
        if self._good_steps >= self.GROWTH_INTERVAL and self.scale < self.LARGEST:
            self.scale *= 2.0
            self._good_steps = 0

    def note_overflow(self) -> bool:
        """Halve the scale; return whether that can still mend an overflow."""
        if not self.enabled or self.scale <= 1.0:
            return False
        self.scale /= 2.0
        self._good_steps = 0
        return True

    def state_dict(self) -> dict[str, float | int]:
        """Return the scale and the steps since it last changed."""
        return {"scale": self.scale, "good_steps": self._good_steps}

    def load_state_dict(self, state: Mapping[str, float | int]) -> None:
        """Continue from what `state_dict` returned.

        Raises:
            ValueError: if the scale is not a positive number.
        """
        scale = float(state["scale"])
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"the loss scale {scale} is not a positive number")
        self.scale = scale if self.enabled else 1.0
        self._good_steps = int(state["good_steps"])
