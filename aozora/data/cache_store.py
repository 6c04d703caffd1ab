"""A folder of small safetensors files, each named by the hash of everything it was made from.

An entry never goes stale: whatever changes gives another key. Entries appear whole or not at all,
and carry a checksum, since neither safetensors nor the disk notices a flipped bit.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from aozora.errors import CacheError
from aozora.runtime import atomic_path, long_path, remove_stale_partials

log = logging.getLogger(__name__)

_SUFFIX = ".safetensors"
_LENGTH = struct.Struct("<Q")
_MOST_HEADER_BYTES = 1 << 13
# What a cache on a network drive, or a virus scanner with the file in hand, may take to come back.
_RETRY_SECONDS = (0.1, 0.5, 2.0)
_POLL_SECONDS = 0.05
_DAMAGE = (
    safetensors.SafetensorError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    struct.error,
)


@dataclass(frozen=True)
class CacheEntry:
    """What one file of the cache holds."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def make_key(inputs: Mapping[str, Any]) -> str:
    """Return the key for something made from ``inputs``, which hold plain values only."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode("ascii"), digest_size=20).hexdigest()


class CacheStore:
    """Entries of one kind in one folder.

    Args:
        folder: The cache folder, which other kinds may share.
        kind: Name of the folder inside it, such as ``latents``.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.root = Path(folder) / kind

    def path(self, key: str) -> Path:
        """Return the file for ``key``, which may not be there."""
        return self.root / key[:2] / (key + _SUFFIX)

    def has(self, keys: Iterable[str]) -> set[str]:
        """Return which of ``keys`` have an entry. Lists folders and opens no file.

        Raises:
            CacheError: if a folder cannot be listed.
        """
        wanted = set(keys)
        present: set[str] = set()
        for prefix in {key[:2] for key in wanted}:
            present.update(self._listed(long_path(self.root / prefix)))
        return wanted & present

    @staticmethod
    def _listed(folder: Path) -> list[str]:
        try:
            with os.scandir(folder) as entries:
                # An empty file is what a power cut may leave of one that was never flushed.
                return [
                    entry.name.removesuffix(_SUFFIX)
                    for entry in entries
                    if entry.name.endswith(_SUFFIX) and entry.stat().st_size > 0
                ]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(folder, error) from error

    def write(
        self, key: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write the entry for ``key``, replacing one that is there.

        Raises:
            CacheError: if the disk refuses.
        """
        path = self.path(key)
        data = _pack({"key": key, **(metadata or {})}, tensors)
        try:
            with atomic_path(path, sync=False) as partial:
                partial.write_bytes(data)
        except OSError as error:
            raise unwritable(path, error) from error

    def is_whole(self, key: str) -> bool:
        """Return whether the entry for ``key`` has a header that fits the size of its file.

        Reads the header only, which tells entries that a power cut has cut or zeroed.
        """
        try:
            with long_path(self.path(key)).open("rb", buffering=0) as file:
                data = file.read(_MOST_HEADER_BYTES)
                num_bytes = os.fstat(file.fileno()).st_size
            header, start = _header(data)
            metadata = header.pop("__metadata__")
            ends = [int(tensor["data_offsets"][1]) for tensor in header.values()]
        except (OSError, *_DAMAGE):
            return False
        return bool(metadata.get("key") == key and num_bytes == start + max(ends, default=0))

    def read(self, key: str, should_hurry: Callable[[], bool] | None = None) -> CacheEntry:
        """Return the entry for ``key``, checked; what cannot be read is tried a few times.

        Args:
            key: Its key.
            should_hurry: Asked while waiting to try again, whether to do so at once.

        Raises:
            CacheError: if it is missing or damaged.
        """
        path = self.path(key)
        try:
            data = _read_patiently(long_path(path), should_hurry)
        except FileNotFoundError as error:
            raise CacheError(
                f"{path}: this cache entry is missing", "run again: it will be made"
            ) from error
        except OSError as error:
            raise _unreadable(path, error) from error
        try:
            return _unpack(data, key)
        except _DAMAGE as error:
            raise CacheError(
                f"{path}: this cache entry is damaged", "run again: it will be rebuilt"
            ) from error

    def remove(self, key: str) -> None:
        """Remove the entry for ``key`` if there is one."""
        try:
            long_path(self.path(key)).unlink(missing_ok=True)
        except OSError as error:
            raise CacheError(
                f"{self.path(key)}: this damaged cache entry cannot be removed ({error.strerror})",
                "remove the file yourself",
            ) from error

    def read_or_discard(
        self, key: str, should_hurry: Callable[[], bool] | None = None
    ) -> CacheEntry:
        """Return the entry for ``key``; a damaged one is removed, so that the next run rebuilds it.

        Args:
            key: Its key.
            should_hurry: See `read`.

        Raises:
            CacheError: if it is missing or damaged.
        """
        try:
            return self.read(key, should_hurry)
        except CacheError as error:
            if not isinstance(error.__cause__, OSError):
                self.remove(key)
            raise

    def remove_leftovers(self) -> int:
        """Remove unfinished files of processes that are gone; return how many.

        Raises:
            CacheError: if the cache cannot be listed.
        """
        root = long_path(self.root)
        try:
            folders = [f for f in root.iterdir() if f.is_dir()] if root.is_dir() else []
        except OSError as error:
            raise _unreadable(root, error) from error
        removed = 0
        for folder in folders:
            try:
                removed += remove_stale_partials(folder)
            except OSError as error:
                # They only take space; entries beside them are as good as without them.
                log.warning("Unfinished files in %s cannot be removed (%s)", folder, error)
        return removed


def unwritable(path: Path, error: OSError) -> CacheError:
    """Return the error to raise when the disk refuses to write ``path`` in the cache folder."""
    return CacheError(
        f"cache.folder: {path} cannot be written ({error.strerror or error})",
        "free some space, or choose another folder with cache.folder",
    )


def _unreadable(path: Path, error: OSError) -> CacheError:
    return CacheError(
        f"cache.folder: {path} cannot be read ({error.strerror or error})",
        "check its permissions, or choose another folder with cache.folder",
    )


def _read_patiently(path: Path, should_hurry: Callable[[], bool] | None) -> bytes:
    for seconds in _RETRY_SECONDS:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            log.warning("%s cannot be read and is tried again (%s)", path, error)
        until = time.monotonic() + seconds
        while time.monotonic() < until and not (should_hurry and should_hurry()):
            time.sleep(_POLL_SECONDS)
    return path.read_bytes()


def _pack(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> bytes:
    plain = safetensors.torch.save(dict(tensors))
    header, payload = _split(plain)
    header["__metadata__"] = dict(metadata)
    header["__metadata__"]["crc32"] = _checksum(header, payload)
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return _LENGTH.pack(len(text)) + text + payload


def _unpack(data: bytes, key: str) -> CacheEntry:
    header, payload = _split(data)
    metadata = header.get("__metadata__", {})
    stored = metadata.pop("crc32", "")
    if stored != _checksum(header, payload):
        raise ValueError("the checksum differs")
    if metadata.get("key") != key:
        raise ValueError("the entry belongs to another key")
    return CacheEntry(safetensors.torch.load(data), metadata)


def _split(data: bytes) -> tuple[dict[str, Any], memoryview]:
    header, start = _header(data)
    return header, memoryview(data)[start:]


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """Return the header and where it ends."""
    (length,) = _LENGTH.unpack_from(data)
    if length > len(data) - _LENGTH.size:
        raise ValueError("the file is cut")
    start = _LENGTH.size + length
    return json.loads(data[_LENGTH.size : start]), start


def _checksum(header: Mapping[str, Any], payload: memoryview) -> str:
    """Return the CRC of header and payload; the header tells names, shapes and dtypes."""
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode("ascii")
    return f"{zlib.crc32(payload, zlib.crc32(text)):08x}"
