"""Writing .safetensors files tensor by tensor, from memory or from another file.

The whole header is known before the first tensor is made, so at most one tensor is in memory.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from aozora.errors import ModelFileError
from aozora.model.safetensors_header import (
    ITEM_BYTES,
    LENGTH_BYTES,
    MAX_HEADER_BYTES,
    Header,
    TensorInfo,
    read_header,
)
from aozora.model.tensor_file import PIECE_BYTES, TORCH_DTYPES, TensorFile, bytes_of

DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
_HEADER_ALIGNMENT = 8


@dataclass(frozen=True)
class Entry:
    """A tensor to be written.

    Attributes:
        key: Name in the file.
        dtype: Number format as the file calls it, such as ``F16``.
        shape: Length of each dimension.
        pieces: Makes the bytes, in order; asked once, when it is the tensor's turn.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[memoryview]]

    @property
    def num_bytes(self) -> int:
        """Length in the file."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class WrittenFile:
    """What was written.

    Attributes:
        num_bytes: Size of the file.
        crc32: Checksum of the whole file.
        tensor_crc32: Checksums of single tensors' bytes, by key, where asked for.
    """

    num_bytes: int
    crc32: int
    tensor_crc32: Mapping[str, int]


def new_entry(
    key: str, shape: Sequence[int], dtype: torch.dtype, make: Callable[[], Tensor]
) -> Entry:
    """Return an entry for a tensor that ``make`` returns, on the CPU, of that shape and dtype."""

    def pieces() -> Iterator[memoryview]:
        tensor = make()
        if tuple(tensor.shape) != tuple(shape) or tensor.dtype != dtype:
            raise ValueError(f"{key}: {tuple(tensor.shape)} {tensor.dtype} instead of {shape}")
        view = bytes_of(tensor.contiguous())
        for start in range(0, len(view), PIECE_BYTES):
            yield view[start : start + PIECE_BYTES]

    return Entry(key, DTYPE_NAMES[dtype], tuple(shape), pieces)


def copied_entry(file: TensorFile, key: str) -> Entry:
    """Return an entry for the tensor ``key`` of another file, byte for byte."""
    info = file.info(key)
    return Entry(key, info.dtype, info.shape, lambda: file.read_pieces(key))


def write_entries(
    path: Path,
    entries: Sequence[Entry],
    metadata: Mapping[str, str],
    *,
    data_order: Sequence[str] = (),
    like: Header | None = None,
    checksums_of: Collection[str] = (),
) -> WrittenFile:
    """Write ``entries`` to ``path``, which is overwritten; callers rename it when all is well.

    Args:
        path: The file to write.
        entries: In the order of the header.
        metadata: Free text entries of the header.
        data_order: Keys in the order of the data; that of ``entries`` if empty. Given up where
            a tensor would then not lie at a multiple of its number size, which readers refuse.
        like: If the header comes out as this one, it is written with the very same bytes.
        checksums_of: Keys of tensors whose own checksums are wanted.

    Raises:
        ModelFileError: if what was written does not read back.
    """
    by_key = {entry.key: entry for entry in entries}
    if len(by_key) != len(entries):
        raise ValueError("two tensors have the same name")
    ordered = _aligned([by_key[key] for key in data_order] if data_order else list(entries))
    places = dict(zip([e.key for e in ordered], _places(ordered), strict=True))
    infos = [TensorInfo(e.key, e.dtype, e.shape, *places[e.key]) for e in entries]
    raw = _header_bytes(infos, metadata)
    if like is not None and list(like.tensors.values()) == infos and like.metadata == metadata:
        raw = like.raw
    if len(raw) > MAX_HEADER_BYTES:
        raise ModelFileError(f"the header of {path} would be {len(raw)} bytes long")
    written = _write(path, raw, ordered, checksums_of)
    found = read_header(path)
    if list(found.tensors.values()) != infos or found.trailing_bytes:
        raise ModelFileError(f"{path} was not written properly", "check the disk and save again")
    return written


def _places(ordered: Sequence[Entry]) -> list[tuple[int, int]]:
    ends = list(accumulate((entry.num_bytes for entry in ordered), initial=0))
    return list(pairwise(ends))


def _aligned(ordered: list[Entry]) -> list[Entry]:
    """Return ``ordered``, or if tensors would be misaligned, widest number formats first."""
    starts = [start for start, _ in _places(ordered)]
    pairs = zip(ordered, starts, strict=True)
    if all(start % ITEM_BYTES[entry.dtype] == 0 for entry, start in pairs):
        return ordered
    return sorted(ordered, key=lambda entry: -ITEM_BYTES[entry.dtype])


def _header_bytes(infos: Iterable[TensorInfo], metadata: Mapping[str, str]) -> bytes:
    document: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    for info in infos:
        document[info.key] = {
            "dtype": info.dtype,
            "shape": list(info.shape),
            "data_offsets": [info.start, info.end],
        }
    raw = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    return raw + b" " * (-len(raw) % _HEADER_ALIGNMENT)


def _write(
    path: Path, raw: bytes, ordered: Iterable[Entry], checksums_of: Collection[str]
) -> WrittenFile:
    checksums: dict[str, int] = {}
    head = struct.pack("<Q", len(raw)) + raw
    checksum, num_bytes = zlib.crc32(head), len(head)
    with path.open("wb", buffering=0) as file:
        file.write(head)
        for entry in ordered:
            own, length = 0, 0
            for piece in entry.pieces():
                _write_all(file.write, piece)
                checksum = zlib.crc32(piece, checksum)
                if entry.key in checksums_of:
                    own = checksums[entry.key] = zlib.crc32(piece, own)
                length += len(piece)
            if length != entry.num_bytes:
                raise ModelFileError(f"{entry.key} is {length} bytes long, not {entry.num_bytes}")
            num_bytes += length
    assert num_bytes == LENGTH_BYTES + len(raw) + sum(entry.num_bytes for entry in ordered)
    return WrittenFile(num_bytes, checksum, checksums)


def _write_all(write: Callable[[memoryview], int], piece: memoryview) -> None:
    # An unbuffered file may take less than it was given.
    done = 0
    while done < len(piece):
        done += write(piece[done:])
