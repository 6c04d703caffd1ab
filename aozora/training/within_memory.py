"""Encoding on the card if it has the memory, or else on the processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

from aozora.training.device import release_memory

Model = TypeVar("Model")
Batch = TypeVar("Batch")
Encoded = TypeVar("Encoded")

_CPU = torch.device("cpu")


class WithinMemory(Generic[Model, Batch, Encoded]):
    """Encodes batches; the model is loaded when the first one comes, and stays where it fits.

    A card that trains SDXL in 4 GiB has no room for the text encoders or the VAE at full precision.

    Args:
        load: Returns the model on a device.
        run: Encodes a batch with the model, on the device where it is.
        device: Where it should run.
        warn: Told when the processor has to do it.
        what: What is encoded, in a word.
    """

    def __init__(
        self,
        load: Callable[[torch.device], Model],
        run: Callable[[Model, Batch, torch.device], Encoded],
        device: torch.device,
        warn: Callable[[str], None],
        what: str,
    ) -> None:
        self._load = load
        self._run = run
        self._device = device
        self._warn = warn
        self._what = what
        self._model: Model | None = None

    def __call__(self, batch: Batch) -> Encoded:
        """Return ``batch`` encoded."""
        if self._device.type != "cpu":
            try:
                return self._encode(batch)
            except torch.OutOfMemoryError:
                pass
            # Only here has the error let go of what the failed attempt held.
            self.drop()
            release_memory(self._device)
            self._device = _CPU
            self._warn(
                f"the card has too little memory to encode {self._what}; the processor does it,"
                " which takes longer"
            )
        return self._encode(batch)

    def drop(self) -> None:
        """Let go of the model, so that its memory can be given back."""
        self._model = None

    def _encode(self, batch: Batch) -> Encoded:
        if self._model is None:
            self._model = self._load(self._device)
        return self._run(self._model, batch, self._device)
