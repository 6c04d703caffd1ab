"""The loss scale that keeps fp16 gradients from vanishing."""

from __future__ import annotations

import math
from collections.abc import Mapping


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
