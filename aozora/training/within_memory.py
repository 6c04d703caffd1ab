"""Encoding on the card as many at once as it has the memory for, and the rest on the processor."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Generic, Protocol, Self, TypeVar

import torch

from aozora.training.device import release_memory

log = logging.getLogger(__name__)


class _Parted(Protocol):
    """What parts can be taken of, as of a list or a tensor."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Self: ...


Model = TypeVar("Model")
Batch = TypeVar("Batch", bound=_Parted)
Encoded = TypeVar("Encoded")

_CPU = torch.device("cpu")


class WithinMemory(Generic[Model, Batch, Encoded]):
    """Encodes batches; the model is loaded when the first one comes, and stays where it fits.

    A card that trains SDXL in 4 GiB has no room for the text encoders or the VAE at full precision.
    A batch for which the card's memory runs out is encoded in halves there, and what does not fit
    on its own is encoded by the processor. What is as large as something that failed is not tried.

    Args:
        load: Returns the model on a device.
        run: Encodes a batch with the model, on the device where it is.
        join: Puts the results of the parts of a batch together, whichever devices they are on.
        size_of: Returns how large one of a batch is, such as its pixels; all of it are equal.
        device: Where it should run.
        warn: Told once when the processor has to do some.
        what: What is encoded, in a word.
    """

    def __init__(
        self,
        load: Callable[[torch.device], Model],
        run: Callable[[Model, Batch, torch.device], Encoded],
        join: Callable[[list[Encoded]], Encoded],
        size_of: Callable[[Batch], int],
        device: torch.device,
        warn: Callable[[str], None],
        what: str,
    ) -> None:
        self._load = load
        self._run = run
        self._join = join
        self._size_of = size_of
        self._device = device
        self._warn = warn
        self._what = what
        self._models: dict[torch.device, Model] = {}
        self._too_large = math.inf
        self._has_warned = False

    def __call__(self, batch: Batch) -> Encoded:
        """Return ``batch`` encoded."""
        size, count = self._size_of(batch), len(batch)
        if self._device == _CPU or size >= self._too_large:
            return self._encode(batch, _CPU)
        if size * count < self._too_large:
            try:
                return self._encode(batch, self._device)
            except torch.OutOfMemoryError:
                pass
            # Only here has the error let go of what the failed attempt held.
            self._note_failure(size, count)
            return self(batch)
        half = (count + 1) // 2
        return self._join([self(batch[:half]), self(batch[half:])])

    def drop(self) -> None:
        """Let go of the model, so that its memory can be given back."""
        self._models.clear()

    def _encode(self, batch: Batch, device: torch.device) -> Encoded:
        if device not in self._models:
            self._models[device] = self._load(device)
        return self._run(self._models[device], batch, device)

    def _note_failure(self, size: int, count: int) -> None:
        release_memory(self._device)
        has_no_room = self._device not in self._models  # not even for the model
        self._too_large = 0 if has_no_room else size * count
        if count > 1 and not has_no_room:
            log.info("The card has too little memory for %d %s at once", count, self._what)
        elif not self._has_warned:
            self._has_warned = True
            self._warn(
                f"the card has too little memory to encode {self._what}; the processor does what"
                " does not fit, which takes longer"
            )
