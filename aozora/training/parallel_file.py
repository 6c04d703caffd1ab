"""A file that several threads write at once, and sum up while they do.

Checksums and copies into the system's cache each come to about a gigabyte a second in one thread;
disks and main memory are several times faster.
"""

from __future__ import annotations

import io
import os
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import BinaryIO

_PART_BYTES = 4 * 2**20
_MOST_THREADS = 3
# Eight were no faster than three: they wait for one another at the file, and training the while for
# the processor (benchmarks/notes.md, "Saving while training goes on").

PartSums = list[list[tuple[int, int]]]
"""Of every run of bytes, the CRC-32 and length of each of its parts, in order."""


def default_threads() -> int:
    """Return how many threads write; the others of the computer are for training."""
    return max(1, min(_MOST_THREADS, (os.cpu_count() or 1) // 2))


class ParallelFile:
    """Writes runs of bytes to places in a file. Leaving its ``with`` block ends its threads.

    Args:
        file: The file, opened for writing by its path; not to be written by others meanwhile.
        threads: How many write at once.

    Raises:
        OSError: if it cannot be opened once more.
    """

    def __init__(self, file: BinaryIO, *, threads: int | None = None) -> None:
        self._path = file.name
        self._own = threading.local()
        self._handles = [self._open()]
        self._threads = ThreadPoolExecutor(
            threads if threads is not None else default_threads(),
            thread_name_prefix="state-part",
        )

    def __enter__(self) -> ParallelFile:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Threads first: a handle that is in use could not be closed, and Windows deletes no file
        # that is open.
        self._threads.shutdown(cancel_futures=True)
        for handle in self._handles:
            handle.close()

    def write_small(self, position: int, data: bytes) -> None:
        """Write a few bytes at ``position``.

        Raises:
            OSError: if they cannot be written.
        """
        _write(self._handles[0], position, memoryview(data))

    def begin(self, runs: Sequence[tuple[int, memoryview]]) -> Callable[[], PartSums]:
        """Begin to write runs of bytes, each at its position.

        Returns:
            What waits until they are written. It raises OSError if something cannot be written.
        """
        waiting: list[list[tuple[Future[int], int]]] = []
        # Parts are begun in the order of the file: Windows fills with zeros what it is ahead of.
        for position, data in runs:
            parts = []
            for start in range(0, len(data), _PART_BYTES):
                part = data[start : start + _PART_BYTES]
                future = self._threads.submit(self._write_part, position + start, part)
                parts.append((future, len(part)))
            waiting.append(parts)
        return lambda: [[(future.result(), size) for future, size in parts] for parts in waiting]

    def _open(self) -> io.FileIO:
        return io.FileIO(self._path, "r+b")

    def _write_part(self, position: int, part: memoryview) -> int:
        # Opened here and not when the thread begins: there an error would only be told as a pool
        # that cannot be used.
        if not hasattr(self._own, "handle"):
            self._own.handle = self._open()
            self._handles.append(self._own.handle)
        _write(self._own.handle, position, part)
        return zlib.crc32(part)


def _write(handle: io.FileIO, position: int, data: memoryview) -> None:
    handle.seek(position)
    while len(data):
        data = data[handle.write(data) :]
