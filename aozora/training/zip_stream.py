"""Writing a zip archive whose checksum is known when its last byte is written.

torch's own writer and `zipfile` sum in one thread, and the whole file would have to be read again
for its own checksum. Here several threads write and sum the parts of several entries at once;
checksums of parts are joined to those of entries and of the file.

Entries are stored uncompressed (PKWARE APPNOTE 4.4; ZIP64 where an offset needs it, 4.5.3), and
their data begin at multiples of 64 bytes as in files of `torch.save`, so that they can be mapped.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from aozora.training.parallel_file import ParallelFile, PartSums

_ALIGNMENT = 64
_PADDING_ID = 0x4246  # what torch uses for the same purpose
_LARGEST_32 = 0xFFFFFFFF
_LARGEST_16 = 0xFFFF
_ZIP64_FROM = _LARGEST_32
_ZIP64_ENTRIES_FROM = _LARGEST_16
_VERSION = 20
_VERSION_ZIP64 = 45
_DOS_DATE = (1 << 5) | 1  # 1 January 1980: the same state is the same bytes whenever it is written
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR = struct.Struct("<4sIQI")


@dataclass(frozen=True)
class FileSum:
    """What a manifest says of a file.

    Attributes:
        num_bytes: Its size.
        crc32: Checksum of all of it.
    """

    num_bytes: int
    crc32: int


@dataclass(frozen=True)
class _Entry:
    name: bytes
    crc32: int
    num_bytes: int
    offset: int


@dataclass(frozen=True)
class _Batch:
    """Entries that are being written.

    Attributes:
        places: Of each, its name, its first byte in the file and the bytes that align its data.
        sizes: Length of the data of each.
        finish: Waits until the data are written, and returns their checksums.
    """

    places: list[tuple[bytes, int, int]]
    sizes: list[int]
    finish: Callable[[], PartSums]


class ZipStream:
    """An archive that is being written.

    Args:
        file: Where it goes; empty so far.
    """

    def __init__(self, file: ParallelFile) -> None:
        self._file = file
        self._entries: list[_Entry] = []
        self._position = 0
        self._crc32 = 0
        self._batch: _Batch | None = None

    def add(self, entries: Sequence[tuple[str, bytes | memoryview]]) -> None:
        """Begin to write entries, each a name and its data; return when those before are written.

        So the threads have work at all times.

        Raises:
            ValueError: if one holds 4 GiB or more.
            OSError: if they cannot be written.
        """
        places, runs, position = [], [], self._position
        for name, data in entries:
            if len(data) >= _LARGEST_32:
                raise ValueError(f"{name}: {len(data)} bytes do not fit an entry")
            encoded = name.encode()
            room = -(position + _LOCAL.size + len(encoded) + 4) % _ALIGNMENT
            start = position + _LOCAL.size + len(encoded) + 4 + room
            places.append((encoded, position, room))
            runs.append((start, memoryview(data)))
            position = start + len(data)
        self._position = position
        finish = self._file.begin(runs)
        self.flush()
        self._batch = _Batch(places, [len(data) for _, data in runs], finish)

    def flush(self) -> None:
        """Return when all entries are written.

        Raises:
            OSError: if they cannot be written.
        """
        batch, self._batch = self._batch, None
        if batch is None:
            return
        sums = batch.finish()
        for (name, offset, room), size, parts in zip(batch.places, batch.sizes, sums, strict=True):
            crc32 = 0
            for part_crc32, num_bytes in parts:
                crc32 = join_crc32(crc32, part_crc32, num_bytes)
            entry = _Entry(name, crc32, size, offset)
            extra = struct.pack("<HH", _PADDING_ID, room) + bytes(room)
            head = _local(entry, len(extra)) + name + extra
            self._file.write_small(offset, head)
            self._crc32 = join_crc32(zlib.crc32(head, self._crc32), crc32, size)
            self._entries.append(entry)

    def finish(self) -> FileSum:
        """Write the table of contents; return what was written in all.

        Raises:
            OSError: if something cannot be written.
        """
        self.flush()
        start = self._position
        for entry in self._entries:
            self._write(_central(entry))
        size, count = self._position - start, len(self._entries)
        if max(start, size) >= _ZIP64_FROM or count >= _ZIP64_ENTRIES_FROM:
            self._write_end64(start, size, count)
        self._write(
            _END.pack(
                b"PK\x05\x06",
                0,
                0,
                _narrow(count, _ZIP64_ENTRIES_FROM, _LARGEST_16),
                _narrow(count, _ZIP64_ENTRIES_FROM, _LARGEST_16),
                _narrow(size, _ZIP64_FROM, _LARGEST_32),
                _narrow(start, _ZIP64_FROM, _LARGEST_32),
                0,
            )
        )
        return FileSum(self._position, self._crc32)

    def _write_end64(self, start: int, size: int, count: int) -> None:
        where = self._position
        version = _VERSION_ZIP64
        rest = _END64.size - 12
        self._write(
            _END64.pack(b"PK\x06\x06", rest, version, version, 0, 0, count, count, size, start)
        )
        self._write(_LOCATOR.pack(b"PK\x06\x07", 0, where, 1))

    def _write(self, data: bytes) -> None:
        self._file.write_small(self._position, data)
        self._crc32 = zlib.crc32(data, self._crc32)
        self._position += len(data)


def _local(entry: _Entry, extra_bytes: int) -> bytes:
    times = (0, _DOS_DATE)
    sizes = (entry.crc32, entry.num_bytes, entry.num_bytes)
    lengths = (len(entry.name), extra_bytes)
    return _LOCAL.pack(b"PK\x03\x04", _VERSION, 0, 0, *times, *sizes, *lengths)


def _central(entry: _Entry) -> bytes:
    is_far = entry.offset >= _ZIP64_FROM
    extra = struct.pack("<HHQ", 1, 8, entry.offset) if is_far else b""
    version = _VERSION_ZIP64 if is_far else _VERSION
    times = (0, _DOS_DATE)
    sizes = (entry.crc32, entry.num_bytes, entry.num_bytes)
    lengths = (len(entry.name), len(extra), 0)
    offset = _narrow(entry.offset, _ZIP64_FROM, _LARGEST_32)
    head = _CENTRAL.pack(
        b"PK\x01\x02", version, version, 0, 0, *times, *sizes, *lengths, 0, 0, 0, offset
    )
    return head + entry.name + extra


def _narrow(value: int, zip64_from: int, mark: int) -> int:
    """Return ``value``, or the mark that says it stands in the wide field."""
    return mark if value >= zip64_from else value


def join_crc32(first: int, second: int, num_bytes: int) -> int:
    """Return the checksum of two runs of bytes, from that of each and the length of the second.

    A checksum is what is left of a polynomial over GF(2) modulo P; the first run is in front of the
    second, so its polynomial counts times x^(8 ``num_bytes``).
    """
    return _times(_shift(num_bytes), first) ^ second


@lru_cache(maxsize=256)
def _shift(num_bytes: int) -> int:
    """Return x^(8 ``num_bytes``) modulo P; files have few lengths, and many runs of each."""
    factor, power = _ONE, 3  # x^(2^3) for each byte
    while num_bytes:
        if num_bytes & 1:
            factor = _times(_POWERS[power], factor)
        num_bytes, power = num_bytes >> 1, power + 1
    return factor


_POLYNOMIAL = 0xEDB88320  # P without x^32; the highest bit is the coefficient of x^0
_ONE, _X = 1 << 31, 1 << 30


def _times(a: int, b: int) -> int:
    """Return the product of two polynomials modulo P."""
    product, bit = 0, _ONE
    while a:
        if a & bit:
            product ^= b
            a ^= bit
        bit >>= 1
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


def _powers() -> list[int]:
    """Return x^(2^n) modulo P for every n that a length can have."""
    powers = [_X]
    for _ in range(66):
        powers.append(_times(powers[-1], powers[-1]))
    return powers


_POWERS = _powers()
