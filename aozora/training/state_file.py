"""Reading a state file: its plain values at once, its tensors one by one when asked for.

A state is as large as half the computer's memory. Mapping the file would count every page that was
read as memory of the process, so tensors are read by ordinary file reads instead.

No code of a file is ever run: besides plain values, its pickle may name tensors and nothing else.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from aozora.errors import CheckpointError
from aozora.model.tensor_file import bytes_of
from aozora.runtime import long_path

_LOCAL_HEADER_BYTES = 30
_LENGTHS = struct.Struct("<HH")
_LARGEST_PICKLE_BYTES = 256 * 2**20

STORAGES: dict[torch.dtype, str] = {
    torch.float64: "DoubleStorage",
    torch.float32: "FloatStorage",
    torch.float16: "HalfStorage",
    torch.bfloat16: "BFloat16Storage",
    torch.int64: "LongStorage",
    torch.int32: "IntStorage",
    torch.int16: "ShortStorage",
    torch.int8: "CharStorage",
    torch.uint8: "ByteStorage",
    torch.bool: "BoolStorage",
}
_DTYPES = {name: dtype for dtype, name in STORAGES.items()}


@dataclass(frozen=True)
class FileTensor:
    """A tensor in a file.

    Attributes:
        path: The file.
        offset: Its first byte.
        dtype: Its dtype.
        shape: Its shape; it is contiguous.
    """

    path: Path
    offset: int
    dtype: torch.dtype
    shape: torch.Size

    def numel(self) -> int:
        """Return the number of elements."""
        return self.shape.numel()

    def read(self) -> Tensor:
        """Return the tensor, in memory of its own.

        Raises:
            CheckpointError: if the file can no longer be read.
        """
        tensor = torch.empty(self.shape, dtype=self.dtype)
        self.read_into(tensor)
        return tensor

    def read_into(self, out: Tensor) -> None:
        """Read the tensor into ``out``: contiguous, in host memory, of its dtype and size.

        Raises:
            ValueError: if ``out`` is another kind of tensor.
            CheckpointError: if the file can no longer be read.
        """
        if out.dtype != self.dtype or out.numel() != self.numel() or not out.is_contiguous():
            raise ValueError(f"{tuple(out.shape)} of {out.dtype} is not {self.shape} {self.dtype}")
        left = bytes_of(out)
        try:
            with long_path(self.path).open("rb", buffering=0) as file:
                file.seek(self.offset)
                while len(left):
                    count = file.readinto(left)
                    if not count:
                        raise CheckpointError(f"{self.path}: has become shorter")
                    left = left[count:]
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read: {error.strerror}") from error


def read_state_file(path: Path) -> dict[str, Any]:
    """Return the plain values of a state, with a `FileTensor` for every tensor.

    Raises:
        CheckpointError: if the file is missing, cut short, or not a state.
    """
    try:
        with long_path(path).open("rb") as file, zipfile.ZipFile(file) as archive:
            entries = dict(_entries(file, archive))
            _refuse_other_byte_order(archive, entries)
            raw = _small(archive, entries["data.pkl"])
        state = _Unpickler(path, raw, entries).load()
    except CheckpointError:
        raise
    except Exception as error:  # a damaged archive or pickle can be wrong in any way there is
        raise CheckpointError(
            f"{path}: is not a readable training state ({error})", "choose another .pt file"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: is not a training state", "choose another .pt file")
    return state


@dataclass(frozen=True)
class _Stored:
    """Where the data of an entry are."""

    name: str
    offset: int
    num_bytes: int


def _entries(file: BinaryIO, archive: zipfile.ZipFile) -> Iterator[tuple[str, _Stored]]:
    """Return where the data of each entry are, by its name without the folder."""
    end = file.seek(0, io.SEEK_END)
    for info in archive.infolist():
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ValueError("it is compressed")
        file.seek(info.header_offset)
        head = file.read(_LOCAL_HEADER_BYTES)
        name_bytes, extra_bytes = _LENGTHS.unpack_from(head, 26)
        offset = info.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes
        if offset + info.file_size > end:
            raise ValueError("it is cut short")
        yield info.filename.partition("/")[2], _Stored(info.filename, offset, info.file_size)


def _refuse_other_byte_order(archive: zipfile.ZipFile, entries: Mapping[str, _Stored]) -> None:
    if "byteorder" in entries:
        order = _small(archive, entries["byteorder"]).decode("ascii")
        if order != sys.byteorder:
            raise ValueError(f"it is of a {order}-endian machine")


def _small(archive: zipfile.ZipFile, entry: _Stored) -> bytes:
    if entry.num_bytes > _LARGEST_PICKLE_BYTES:
        raise ValueError(f"{entry.name} is {entry.num_bytes} bytes long")
    return archive.read(entry.name)


class _Unpickler(pickle.Unpickler):
    """Reads plain values and tensors; anything else that a pickle can name is refused."""

    def __init__(self, path: Path, raw: bytes, entries: Mapping[str, _Stored]) -> None:
        super().__init__(io.BytesIO(raw))
        self._path = path
        self._entries = entries

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if (module, name) == ("collections", "OrderedDict"):
            return _no_hooks
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _, numel = pid
        entry = self._entries[f"data/{key}"]
        if kind != "storage" or entry.num_bytes != numel * dtype.itemsize:
            raise ValueError(f"{entry.name} is not as long as it should be")
        return entry, dtype, numel

    def _tensor(
        self,
        storage: tuple[_Stored, torch.dtype, int],
        first: int,
        shape: Iterable[int],
        strides: Iterable[int],
        *_: Any,
    ) -> FileTensor:
        entry, dtype, numel = storage
        size = torch.Size(shape)
        if size.numel() and tuple(strides) != strides_of(size):
            raise ValueError(f"{entry.name} is not contiguous")
        if first < 0 or first + size.numel() > numel:
            raise ValueError(f"{entry.name} is shorter than its tensor")
        return FileTensor(self._path, entry.offset + first * dtype.itemsize, dtype, size)


def _no_hooks() -> dict[str, Any]:
    """Stand in for the backward hooks of a tensor, of which a state has none."""
    return {}


def strides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor, in elements."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
