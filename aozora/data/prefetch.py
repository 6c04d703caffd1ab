"""Preparing the next batches in a thread while the device is busy with the current one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Gives ``fetch(first)``, ``fetch(first + 1)``, ... in order, made ahead by one thread.

    An error in ``fetch`` is raised where its result would have been given. Close it, or use it in a
    ``with`` statement, so that the thread ends.

    Args:
        fetch: Makes the item of one number. Called in the thread, one call at a time.
        first: The first number.
        stop: The number after the last.
        depth: How many items are made ahead at most.
    """

    def __init__(self, fetch: Callable[[int], T], first: int, stop: int, depth: int) -> None:
        if depth < 1:
            raise ValueError("depth starts at 1")
        self._fetch = fetch
        self._numbers = iter(range(first, stop))
        self._depth = depth
        self._ahead: deque[Future[T]] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self.wait_seconds = 0.0
        """How long the consumer has waited so far."""
        self._is_closed = False
        self._submit()

    def _submit(self) -> None:
        while len(self._ahead) < self._depth:
            number = next(self._numbers, None)
            if number is None:
                return
            self._ahead.append(self._pool.submit(self._fetch, number))

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._is_closed or not self._ahead:
            raise StopIteration
        started = time.perf_counter()
        try:
            item = self._ahead.popleft().result()
        finally:
            self.wait_seconds += time.perf_counter() - started
        self._submit()
        return item

    def close(self) -> None:
        """Drop what is not begun, wait for the item in work, and end the thread."""
        self._is_closed = True
        self._ahead.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
