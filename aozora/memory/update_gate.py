"""Lets each part of a model wait for its own new weights, so that forward overlaps the update."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import nn

from optimizers.layout import SMALL_UNIT
from optimizers.streamed import StreamedOptimizer


class UpdateGate:
    """Hooks on the modules of all units: before one runs, its last update has been waited for.

    Small tensors stand everywhere in the model, so the model itself waits for them.

    Args:
        model: The model.
        units: Names of units whose weights stay on the device.
        optimizer: Updates them.
    """

    def __init__(
        self, model: nn.Module, units: Iterable[str], optimizer: StreamedOptimizer
    ) -> None:
        def wait(unit: str, module: nn.Module, args: Any) -> None:
            optimizer.wait_for(unit)

        self._handles = []
        for unit in units:
            owner = model if unit in ("", SMALL_UNIT) else model.get_submodule(unit)
            self._handles.append(owner.register_forward_pre_hook(partial(wait, unit)))

    def close(self) -> None:
        """Detach from the model."""
        for handle in self._handles:
            handle.remove()
