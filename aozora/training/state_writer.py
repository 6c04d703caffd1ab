"""Writing a state file tensor by tensor, so that the state is never in memory twice.

The file is what `torch.save` would have written: `torch.load` reads it, with ``weights_only`` too.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import TracebackType
from typing import Any, BinaryIO

import torch
from torch import Tensor

from aozora.model.tensor_file import bytes_of
from aozora.training.parallel_file import ParallelFile
from aozora.training.state_file import STORAGES, strides_of
from aozora.training.zip_stream import FileSum, ZipStream

_FOLDER = "archive"
_ARCHIVE_VERSION = b"3\n"
_PROTOCOL = 2  # what torch writes, and all its restricted reader knows


@dataclass(frozen=True, eq=False)
class Slot:
    """Stands for a tensor among the plain values of a state that is being written.

    Attributes:
        dtype: Of the tensor.
        shape: Of the tensor.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]

    @classmethod
    def like(cls, tensor: Tensor) -> Slot:
        """Return a slot for ``tensor``."""
        return cls(tensor.dtype, tuple(tensor.shape))

    @property
    def num_bytes(self) -> int:
        """Size of the tensor."""
        return prod(self.shape) * self.dtype.itemsize


class _Storage:
    """What a slot is made of, as the pickle names it."""

    def __init__(self, slot: Slot, key: str) -> None:
        self.slot = slot
        self.key = key


class _Pickler(pickle.Pickler):
    """Writes slots the way torch writes tensors, and numbers them as it meets them."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, protocol=_PROTOCOL)
        self.keys: dict[Slot, str] = {}

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, _Storage):
            return None
        kind = getattr(torch, STORAGES[obj.slot.dtype])
        return "storage", kind, obj.key, "cpu", prod(obj.slot.shape)

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, Slot):
            return NotImplemented
        key = self.keys.setdefault(obj, str(len(self.keys)))
        storage = _Storage(obj, key)
        hooks: OrderedDict[str, Any] = OrderedDict()
        place = storage, 0, obj.shape, strides_of(obj.shape), False, hooks
        return torch._utils._rebuild_tensor_v2, place


class StateWriter:
    """A state file that is being written, in a ``with`` block inside that of the file.

    Args:
        file: Where it goes, opened by its path; the name of the file is not in it.
        state: Plain values with a slot for every tensor.

    Raises:
        ValueError: if there is something else among the plain values.
        OSError: if the file cannot be opened once more.
    """

    def __init__(self, file: BinaryIO, state: Mapping[str, Any]) -> None:
        _refuse_strange(state)
        raw = io.BytesIO()
        pickler = _Pickler(raw)
        pickler.dump(dict(state))
        self._plain = raw.getvalue()
        self._missing = pickler.keys
        self._file = ParallelFile(file)
        self._zip = ZipStream(self._file)

    def __enter__(self) -> StateWriter:
        """Begin to write what comes first; return itself."""
        try:
            self._add([("data.pkl", self._plain), ("byteorder", sys.byteorder.encode())])
        except BaseException as error:
            # No block was entered that would end the threads.
            self._file.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.__exit__(kind, error, trace)

    def write(self, tensors: Sequence[tuple[Slot, Tensor]]) -> None:
        """Write the tensors of some slots, in any order of slots, each once.

        They are in host memory. When this returns, those of earlier calls are written and may
        change. Many at once are faster.

        Raises:
            KeyError: if a slot is not in the state, or has been written.
            ValueError: if a tensor is not what its slot says.
            OSError: if they cannot be written.
        """
        entries = []
        for slot, tensor in tensors:
            if tensor.dtype != slot.dtype or tuple(tensor.shape) != slot.shape:
                raise ValueError(f"{tuple(tensor.shape)} {tensor.dtype} is not what {slot} is for")
            entries.append((f"data/{self._missing.pop(slot)}", bytes_of(tensor.contiguous())))
        self._add(entries)

    def flush(self) -> None:
        """Return when everything so far is written.

        Raises:
            OSError: if it cannot be written.
        """
        self._zip.flush()

    def finish(self) -> FileSum:
        """Write what comes last.

        Raises:
            ValueError: if tensors are missing.
            OSError: if it cannot be written.
        """
        if self._missing:
            raise ValueError(f"{len(self._missing)} tensors of the state were not written")
        self._add([("version", _ARCHIVE_VERSION)])
        return self._zip.finish()

    def _add(self, entries: Sequence[tuple[str, bytes | memoryview]]) -> None:
        self._zip.add([(f"{_FOLDER}/{name}", data) for name, data in entries])


def write_state(file: BinaryIO, state: Mapping[str, Any]) -> FileSum:
    """Write a state that holds its tensors.

    Raises:
        ValueError: if there is something else among the plain values.
        OSError: if it cannot be written.
    """
    tensors: list[tuple[Slot, Tensor]] = []

    def take(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors.append((Slot.like(value), value))
            return tensors[-1][0]
        if isinstance(value, Mapping):
            return {key: take(item) for key, item in value.items()}
        return type(value)(map(take, value)) if isinstance(value, list | tuple) else value

    with StateWriter(file, take(state)) as writer:
        for slot, tensor in tensors:
            writer.write([(slot, tensor.detach().cpu())])
        return writer.finish()


_PLAIN: tuple[type, ...] = (str, int, float, bool, type(None), Slot)


def _refuse_strange(value: Any, where: str = "state") -> None:
    """Refuse what readers would refuse, before anything is written.

    Raises:
        ValueError: saying where it is.
    """
    if type(value) in _PLAIN:
        return
    children: Iterable[tuple[Any, Any]]
    if type(value) is dict:
        children = value.items()
        for key in value:
            _refuse_strange(key, f"a key of {where}")
    elif type(value) in (list, tuple):
        children = enumerate(value)
    else:
        raise ValueError(f"{where} is a {type(value).__name__}, not a plain value")
    for key, child in children:
        _refuse_strange(child, f"{where}[{key!r}]")
