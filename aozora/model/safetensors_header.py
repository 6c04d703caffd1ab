"""The header of a .safetensors file, read and checked by ourselves.

Everything that is wrong with a file is found here, before a byte of weights is read, and said in
words that tell what to do. Nothing is allocated on the word of the file.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from aozora.errors import ModelFileError
from aozora.runtime import long_path

MAX_HEADER_BYTES = 100_000_000
LENGTH_BYTES = 8
MAX_DIMENSIONS = 16

ITEM_BYTES: dict[str, int] = {
    **dict.fromkeys(("BOOL", "U8", "I8"), 1),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 1),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
}

_INCOMPLETE = "the download or copy was interrupted; get the file again"
_DAMAGED = "the file is damaged or was written wrongly; get it again from its source"
_CONVERT = "convert it to .safetensors first; files that can run code when opened are never read"
_PICKLE_ENDINGS = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
# In lower case: zip, rar, 7z and gzip.
_ARCHIVE_STARTS = (b"pk\x03\x04", b"pk\x05\x06", b"rar!\x1a\x07", b"7z\xbc\xaf", b"\x1f\x8b\x08")
_SHOWN_TEXT = 80


@dataclass(frozen=True)
class TensorInfo:
    """What the header says of one tensor.

    Attributes:
        key: Name in the file.
        dtype: Name of the number format as written in the file, such as ``F16``.
        shape: Length of each dimension.
        start: First byte, counted from the start of the tensor data.
        end: Byte after the last one.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def num_elements(self) -> int:
        """How many numbers the tensor holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """A header that was found to fit its file.

    Attributes:
        tensors: By key, in the order of the header.
        metadata: The free text entries.
        raw: The bytes of the header after its length, spaces at the end included.
        trailing_bytes: How many bytes follow the last tensor; they belong to nothing.
    """

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    raw: bytes
    trailing_bytes: int

    @property
    def data_start(self) -> int:
        """Where in the file the tensor data begins."""
        return LENGTH_BYTES + len(self.raw)

    @property
    def hash(self) -> str:
        """Hash of the header: names, formats, shapes, places and metadata."""
        return hashlib.blake2b(self.raw, digest_size=16).hexdigest()


def read_header(path: Path) -> Header:
    """Read and check the header of ``path``.

    Raises:
        ModelFileError: if the file is missing, no .safetensors file, incomplete or inconsistent.
    """
    refuse_unreadable(path)
    try:
        with long_path(path).open("rb") as file:
            return _parse(path, file, long_path(path).stat().st_size)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from error


def refuse_unreadable(path: Path) -> None:
    """Raise unless ``path`` is an ordinary file that may be opened.

    Raises:
        ModelFileError: if it is missing, a folder, a device or pipe, or a pickle by its name.
    """
    plain = long_path(path)
    try:
        if not plain.exists():
            raise ModelFileError(f"{path} does not exist", "check the path")
        if not plain.is_file():
            raise ModelFileError(f"{path} is not a file", "name a .safetensors file")
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path} cannot be reached: {error}", "check the path") from error
    if path.suffix.lower() in _PICKLE_ENDINGS:
        beside = path.with_suffix(".safetensors")
        if beside.is_file():
            raise ModelFileError(f"{path} is a {path.suffix} file", f"name {beside} beside it")
        raise ModelFileError(f"{path} is a {path.suffix} file", _CONVERT)


def _parse(path: Path, file: BinaryIO, file_bytes: int) -> Header:
    start = file.read(512)
    if len(start) < LENGTH_BYTES:
        text = "is empty" if not start else f"has only {len(start)} bytes"
        raise ModelFileError(f"{path} {text}", _INCOMPLETE)
    (length,) = struct.unpack("<Q", start[:LENGTH_BYTES])
    if length > MAX_HEADER_BYTES:
        _refuse_foreign(path, start)
        raise ModelFileError(f"{path}: the header is said to be {length} bytes long", _DAMAGED)
    if LENGTH_BYTES + length > file_bytes:
        _refuse_foreign(path, start)
        raise ModelFileError(
            f"{path} is incomplete: the header needs {LENGTH_BYTES + length} bytes, "
            f"the file has {file_bytes}",
            _INCOMPLETE,
        )
    file.seek(LENGTH_BYTES)
    raw = file.read(length)
    document = _parse_json(path, raw, start)
    metadata = _metadata(path, document.pop("__metadata__", {}))
    tensors = {key: _tensor(path, key, entry) for key, entry in document.items()}
    end = _check_layout(path, tensors)
    available = file_bytes - LENGTH_BYTES - length
    if end > available:
        raise ModelFileError(
            f"{path} is incomplete: it should have {LENGTH_BYTES + length + end} bytes "
            f"and has {file_bytes}",
            _INCOMPLETE,
        )
    return Header(tensors, metadata, raw, available - end)


def _refuse_foreign(path: Path, start: bytes) -> None:
    """Say what a file is that is no .safetensors file, if its first bytes tell."""
    if path.name == "model_index.json":
        raise ModelFileError(
            f"{path} describes a diffusers folder and holds no weights",
            f"name the folder {path.parent} instead",
        )
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        raise ModelFileError(
            f"{path} is a web page, not a model",
            "the download saved a login or error page; sign in and download the file itself",
        )
    if text.startswith(b"version https://git-lfs"):
        raise ModelFileError(
            f"{path} is a git-lfs pointer, not the model itself",
            "run 'git lfs pull' in its repository, or download the file itself",
        )
    if text.startswith(_ARCHIVE_STARTS) and b"data.pkl" not in text:
        raise ModelFileError(
            f"{path} is an archive, not a model", "unpack it and name the .safetensors file in it"
        )
    if text.startswith((b"pk\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")):
        raise ModelFileError(f"{path} is a pickle or zip archive in spite of its name", _CONVERT)
    if text.startswith(b"gguf"):
        raise ModelFileError(f"{path} is a GGUF file", "use the .safetensors file it came from")
    words = _as_text(start)
    if words:
        raise ModelFileError(
            f"{path} is a text file, not a model: {words[:_SHOWN_TEXT]!r}",
            "the download may have saved an error message; download the file itself",
        )


def _as_text(start: bytes) -> str:
    """Return ``start`` as text, empty if it is none; its last character may be cut."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(start)
    except UnicodeDecodeError:
        return ""
    return text.strip() if all(c.isprintable() or c in "\t\r\n" for c in text) else ""


def _parse_json(path: Path, raw: bytes, start: bytes) -> dict[str, Any]:
    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [key for key, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ModelFileError(f"{path}: the header names {twice!r} twice", _DAMAGED)
        return found

    def refuse_constant(text: str) -> NoReturn:
        raise ModelFileError(f"{path}: the header holds the number {text}", _DAMAGED)

    try:
        document = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=refuse_duplicates,
            parse_constant=refuse_constant,
        )
        # Half a surrogate pair can be escaped in JSON, but never be written again.
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        # UnicodeDecodeError, JSONDecodeError and numbers of too many digits are all ValueErrors.
        _refuse_foreign(path, start)
        raise ModelFileError(
            f"{path} is no .safetensors file: its header is not readable", _DAMAGED
        ) from error
    if not isinstance(document, dict):
        raise ModelFileError(f"{path}: the header is no table of tensors", _DAMAGED)
    return document


def _metadata(path: Path, found: Any) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise ModelFileError(f"{path}: the header's metadata holds values that are not text")
    return found


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _tensor(path: Path, key: str, entry: Any) -> TensorInfo:
    def refuse(text: str) -> NoReturn:
        raise ModelFileError(f"{path}: tensor {key!r} {text}", _DAMAGED)

    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        refuse("is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    item_bytes = ITEM_BYTES.get(dtype) if isinstance(dtype, str) else None
    if item_bytes is None:
        raise ModelFileError(
            f"{path}: tensor {key!r} has the number format {dtype!r}, which is not supported",
            "use a float16, bfloat16 or float32 version of the model",
        )
    if not isinstance(shape, list) or not all(map(_is_count, shape)):
        refuse("has no proper shape")
    if len(shape) > MAX_DIMENSIONS:
        refuse(f"has {len(shape)} dimensions")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        refuse("has no proper place in the file")
    start, end = offsets
    if end - start != math.prod(shape) * item_bytes:
        refuse(f"of shape {shape} and format {dtype} does not fill its {end - start} bytes")
    return TensorInfo(key, dtype, tuple(shape), start, end)


def _check_layout(path: Path, tensors: Mapping[str, TensorInfo]) -> int:
    """Check that the tensors lie one behind the other; return where the last one ends."""
    ordered = sorted(tensors.values(), key=lambda t: (t.start, t.end))
    if ordered and ordered[0].start != 0:
        raise ModelFileError(f"{path}: the data does not begin with a tensor", _DAMAGED)
    for before, after in pairwise(ordered):
        if after.start != before.end:
            relation = "overlap" if after.start < before.end else "leave a gap"
            raise ModelFileError(
                f"{path}: tensors {before.key!r} and {after.key!r} {relation}", _DAMAGED
            )
    return ordered[-1].end if ordered else 0
