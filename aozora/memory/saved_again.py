"""Cheap tensors that backward makes again, from what is kept anyway, instead of keeping them.

A checkpoint around a module repeats its matrix products too. Here single results are marked, such
as what a norm returns; whoever saves one for backward keeps a note of how to make it again. Nothing
else is repeated, and the values are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef


class _Again:
    """How to make a tensor again.

    Args:
        compute: Made it.
        sources: From these; one that is itself not kept is a note.
    """

    def __init__(self, compute: Callable[..., Tensor], sources: tuple[Tensor | _View, ...]) -> None:
        self._compute = compute
        self._sources = sources
        self._value: Tensor | None = None
        self.num_readers = 0

    def value(self) -> Tensor:
        """Return the tensor; it stays while someone who saved it has not asked yet."""
        if self._value is not None:
            return self._value
        sources = [
            source.value() if isinstance(source, _View) else source for source in self._sources
        ]
        with torch.no_grad():
            value = self._compute(*sources)
        if self.num_readers > 0:
            self._value = value
        return value

    def read(self) -> Tensor:
        """Return the tensor to one of those who saved it."""
        self.num_readers -= 1
        value = self.value()
        if self.num_readers <= 0:
            self._value = None
        return value


@dataclass(frozen=True)
class _View:
    """A view of a tensor that is made again."""

    base: _Again
    size: torch.Size
    stride: tuple[int, ...]
    offset: int

    def value(self) -> Tensor:
        return self._of(self.base.value())

    def read(self) -> Tensor:
        return self._of(self.base.read())

    def _of(self, base: Tensor) -> Tensor:
        return base.as_strided(self.size, self.stride, self.offset)


class SavedAgain:
    """Marks results of one part of a model and keeps autograd from keeping them."""

    def __init__(self) -> None:
        self._notes: dict[StorageWeakRef, _Again] | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Let what is marked inside be made again in backward; it must be saved inside too."""
        self._notes = {}
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack):
                yield
        finally:
            self._notes = None

    def mark(self, result: Tensor, compute: Callable[..., Tensor], *sources: Tensor) -> None:
        """Note that ``result`` is ``compute(*sources)``; of no effect outside of `watching`.

        Args:
            result: Alone in its memory.
            compute: Gives the same bits again, and does not draw random numbers.
            sources: Kept until backward, unless marked themselves.
        """
        if self._notes is None:
            return
        kept = tuple(self._note_of(source) or source.detach() for source in sources)
        # A weak reference keeps the address from being given to another storage.
        self._notes[_memory_of(result)] = _Again(compute, kept)

    def _note_of(self, tensor: Tensor) -> _View | None:
        note = self._notes.get(_memory_of(tensor)) if self._notes else None
        if note is None:
            return None
        return _View(note, tensor.shape, tensor.stride(), int(tensor.storage_offset()))

    def _pack(self, saved: Tensor) -> Tensor | _View:
        view = self._note_of(saved)
        if view is None:
            return saved
        view.base.num_readers += 1
        return view


def _unpack(saved: Tensor | _View) -> Tensor:
    return saved if isinstance(saved, Tensor) else saved.read()


def _memory_of(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
