"""Writing a zip archive from its first byte to its last, without ever going back.

torch's own writer and `zipfile` go back to fill in checksums, and need all data of an archive, or
at least its file, to themselves. Here every entry is complete when the next begins, so the checksum
of the whole file is known when its last byte is written and nothing has to be read again.

Entries are stored uncompressed (PKWARE APPNOTE 4.4; ZIP64 where an offset needs it, 4.5.3), and
their data begin at multiples of 64 bytes as in files of `torch.save`, so that they can be mapped.
"""

from __future__ import annotations

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

_ALIGNMENT = 64
_SUMMED_AT_ONCE = 8 * 2**20
_THREADS = 4
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


class ZipStream:
    """An archive that is being written.

    Args:
        file: Where it goes; written in order only.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._entries: list[_Entry] = []
        self._position = 0
        self._crc32 = 0
        # zlib sums a gigabyte a second and lets other threads run meanwhile; disks are faster.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="crc32")

    def add(self, name: str, data: bytes | memoryview) -> None:
        """Write an entry.

        Raises:
            ValueError: if it holds 4 GiB or more.
            OSError: if it cannot be written.
        """
        if len(data) >= _LARGEST_32:
            raise ValueError(f"{name}: {len(data)} bytes do not fit an entry")
        entry = _Entry(name.encode(), self._sum(data), len(data), self._position)
        room = -(self._position + _LOCAL.size + len(entry.name) + 4) % _ALIGNMENT
        extra = struct.pack("<HH", _PADDING_ID, room) + bytes(room)
        times = (0, _DOS_DATE)
        sizes = (entry.crc32, entry.num_bytes, entry.num_bytes)
        lengths = (len(entry.name), len(extra))
        head = _LOCAL.pack(b"PK\x03\x04", _VERSION, 0, 0, *times, *sizes, *lengths)
        self._write(head + entry.name + extra)
        self._file.write(data)
        self._crc32 = join_crc32(self._crc32, entry.crc32, len(data))
        self._position += len(data)
        self._entries.append(entry)

    def _sum(self, data: bytes | memoryview) -> int:
        """Return the CRC of ``data``; of a large one, parts are summed by several threads."""
        if len(data) < _SUMMED_AT_ONCE:
            return zlib.crc32(data)
        size = -(-len(data) // _THREADS)
        parts = [memoryview(data)[first : first + size] for first in range(0, len(data), size)]
        total = 0
        for part, crc32 in zip(parts, self._threads.map(zlib.crc32, parts), strict=True):
            total = join_crc32(total, crc32, len(part))
        return total

    def finish(self) -> FileSum:
        """Write the table of contents; return what was written in all."""
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
        self._threads.shutdown()
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
        self._file.write(data)
        self._crc32 = zlib.crc32(data, self._crc32)
        self._position += len(data)


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
    factor, power = _ONE, 3  # x^(2^3) for each byte
    while num_bytes:
        if num_bytes & 1:
            factor = _times(_POWERS[power], factor)
        num_bytes, power = num_bytes >> 1, power + 1
    return _times(factor, first) ^ second


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
