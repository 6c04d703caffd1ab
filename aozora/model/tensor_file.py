"""Reading tensors of a .safetensors file by name, one at a time, without mapping the file.

A mapped file cannot be replaced or deleted on Windows, and its pages count as memory of the
process. Plain reads into the tensor's own memory cost no second copy either.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from aozora.errors import ModelFileError
from aozora.model.key_map import FUSED, Transform, shape_in_model
from aozora.model.safetensors_header import Header, TensorInfo, read_header
from aozora.runtime import long_path

TORCH_DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
FLOAT_DTYPES = ("F16", "BF16", "F32", "F64")
PIECE_BYTES = 16 << 20


SAMPLE_BYTES = 4096


@dataclass(frozen=True)
class FileStamp:
    """What tells that a file is still the one that was opened."""

    num_bytes: int
    mtime_ns: int
    header_hash: str


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous CPU tensor as bytes, without copying."""
    flat = tensor.detach().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


class TensorFile:
    """A .safetensors file whose tensors are read when asked for.

    Each read opens the file by itself, so that nothing is left open; in a ``with`` block, which
    pays where there are thousands of reads, it stays open to the end of the block.

    Raises:
        ModelFileError: if the file is missing, damaged or no .safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header: Header = read_header(path)
        self.stamp = self._stamp_of(self.header)
        self._fingerprint = ""
        self._file: FileIO | None = None

    def _stamp_of(self, header: Header) -> FileStamp:
        stat = long_path(self.path).stat()
        return FileStamp(stat.st_size, stat.st_mtime_ns, header.hash)

    def check_unchanged(self) -> None:
        """Raise if the file is no longer the one that was opened.

        A time of change alone does not count where `fingerprint` was asked before and is the same:
        tools that copy or scan files set it.

        Raises:
            ModelFileError: if it was changed, replaced or removed.
        """
        found = self._stamp_of(read_header(self.path))
        if found == self.stamp:
            return
        is_touched = bool(self._fingerprint) and self.stamp == replace(
            found, mtime_ns=self.stamp.mtime_ns
        )
        if is_touched and self._made_fingerprint() == self._fingerprint:
            self.stamp = found
            return
        raise ModelFileError(
            f"{self.path} was changed after it was opened",
            "put the original file back, or begin again with the new one",
        )

    def fingerprint(self) -> str:
        """Return a hash that tells one model file from another, at the cost of about a second.

        Covers the size of the file, the whole header, and the first and middle 4 KiB of every
        tensor. Training or merging changes values all over a tensor, so another model always has
        another hash. Damage elsewhere in the file is not noticed: it is no checksum.

        Raises:
            ModelFileError: if the file cannot be read.
        """
        if not self._fingerprint:
            self._fingerprint = self._made_fingerprint()
        return self._fingerprint

    def _made_fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{self.stamp.num_bytes}:{self.stamp.header_hash}".encode())
        was_open = self._file is not None
        self.open()
        try:
            for info in sorted(self.header.tensors.values(), key=lambda t: (t.start, t.key)):
                digest.update(self.read_sample(info.key, SAMPLE_BYTES))
        finally:
            if not was_open:
                self.close()
        return digest.hexdigest()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def open(self) -> None:
        """Keep the file open until `close`."""
        if self._file is None:
            self._file = self._open()

    def __enter__(self) -> TensorFile:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> FileIO:
        try:
            return FileIO(long_path(self.path))
        except OSError as error:
            raise ModelFileError(f"{self.path} cannot be read: {error.strerror}") from error

    @contextlib.contextmanager
    def _opened(self) -> Iterator[FileIO]:
        if self._file is not None:
            yield self._file
            return
        with self._open() as file:
            yield file

    def _read_into(self, file: FileIO, offset: int, target: memoryview) -> None:
        file.seek(self.header.data_start + offset)
        done = 0
        while done < len(target):
            count = file.readinto(target[done:])
            if not count:
                raise ModelFileError(f"{self.path} became shorter while it was read")
            done += count

    def info(self, key: str) -> TensorInfo:
        """Return what the header says of ``key``."""
        return self.header.tensors[key]

    def read(self, key: str, third: int | None = None) -> Tensor:
        """Return a tensor in its own number format, on the CPU.

        Args:
            key: Name in the file.
            third: Read only this third (0, 1 or 2) of the rows.
        """
        info = self.info(key)
        dtype = TORCH_DTYPES.get(info.dtype)
        if dtype is None:
            raise ModelFileError(f"{self.path}: {key} has the unsupported format {info.dtype}")
        shape, start = info.shape, info.start
        if third is not None:
            shape = (info.shape[0] // 3, *info.shape[1:])
            start += third * (info.end - info.start) // 3
        tensor = torch.empty(shape, dtype=dtype)
        with self._opened() as file:
            self._read_into(file, start, bytes_of(tensor))
        return tensor

    def read_pieces(self, key: str, piece_bytes: int = PIECE_BYTES) -> Iterator[memoryview]:
        """Yield the bytes of a tensor in pieces; each is overwritten by the next."""
        info = self.info(key)
        buffer = memoryview(bytearray(min(piece_bytes, info.end - info.start)))
        with self._opened() as file:
            for offset in range(info.start, info.end, max(1, len(buffer))):
                piece = buffer[: min(len(buffer), info.end - offset)]
                self._read_into(file, offset, piece)
                yield piece

    def read_sample(self, key: str, num_bytes: int) -> bytes:
        """Return up to ``num_bytes`` from the start and as many from the middle of a tensor."""
        info = self.info(key)
        length = info.end - info.start
        places = [0] if length <= num_bytes else [0, length // 2]
        sample = b""
        with self._opened() as file:
            for place in places:
                piece = bytearray(min(num_bytes, length - place))
                self._read_into(file, info.start + place, memoryview(piece))
                sample += piece
        return sample


@dataclass(frozen=True)
class StoredTensor:
    """Where a parameter of a model lies and how it is read.

    Attributes:
        file: The file that holds it.
        key: Its name there.
        transform: How the tensor in the file becomes the parameter.
    """

    file: TensorFile
    key: str
    transform: Transform

    @property
    def dtype(self) -> str:
        """The number format in the file."""
        return self.file.info(self.key).dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the parameter."""
        return shape_in_model(self.file.info(self.key).shape, self.transform)

    def read(self) -> Tensor:
        """Return the parameter on the CPU, in the number format of the file."""
        if self.transform in FUSED:
            return self.file.read(self.key, third=FUSED.index(self.transform))
        tensor = self.file.read(self.key)
        if self.transform == "transposed":
            return tensor.T.contiguous()
        return tensor.reshape(self.shape)
