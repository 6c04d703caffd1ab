"""Loss on held-out pictures, on noise and timesteps that are the same every time it is measured.

The training loss mostly shows which timesteps were drawn; this one shows whether the model learns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from aozora.diffusion.objectives import Objective
from aozora.events import ValidationCompleted
from aozora.training.step import NoisePredictor, PreparedBatch, predict

_SMALLEST_CHUNK = 4


class Validator:
    """Measures the unweighted mean squared error.

    Args:
        num_items: Held-out pictures.
        timesteps: The grid, as the UNet gets it.
        prepare: Returns one picture at every timestep of the grid, on the host; pure.
        objective: What the model predicts.
        dtype: Format the UNet computes in.
        device: Where the UNet is.
        chunk: Samples evaluated at once.
    """

    def __init__(
        self,
        *,
        num_items: int,
        timesteps: Sequence[int],
        prepare: Callable[[int], PreparedBatch],
        objective: Objective,
        dtype: torch.dtype,
        device: torch.device,
        chunk: int,
    ) -> None:
        self._num_items = num_items
        self._timesteps = list(timesteps)
        self._prepare = prepare
        self._objective = objective
        self._dtype = dtype
        self._device = device
        self._chunk = max(chunk, _SMALLEST_CHUNK)

    def measure(self, unet: NoisePredictor, step: int) -> ValidationCompleted:
        """Return the loss of ``unet`` after ``step`` optimizer steps."""
        started = time.monotonic()
        sums = torch.zeros(len(self._timesteps), dtype=torch.float64)
        for item in range(self._num_items):
            sums += self._item_losses(unet, self._prepare(item))
        losses = (sums / self._num_items).tolist()
        return ValidationCompleted(
            step=step,
            loss=sum(losses) / len(losses),
            timesteps=self._timesteps,
            losses=losses,
            pictures=self._num_items,
            seconds=time.monotonic() - started,
        )

    @torch.no_grad()
    def _item_losses(self, unet: NoisePredictor, batch: PreparedBatch) -> torch.Tensor:
        found = []
        for first in range(0, len(self._timesteps), self._chunk):
            part = batch.map(lambda t, first=first: t[first : first + self._chunk])  # type: ignore[misc]
            part = part.to(self._device)
            model_pred, target = predict(unet, part, self._objective, self._dtype)
            error = functional.mse_loss(model_pred, target, reduction="none")
            found.append(error.mean(dim=(1, 2, 3)))
        return torch.cat(found).double().cpu()
