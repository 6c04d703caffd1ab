"""Filling a cache: what is missing, in which precision it is stored, and the counts of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from aozora.data.cache_store import CacheStore
from aozora.data.scan import SkippedItem
from aozora.errors import CacheError

StoredDtype = Literal["fp16", "fp32"]

FP16_LIMIT = 6e4
_CHECKS_AT_ONCE = 8  # they wait for the disk, or for the network


@dataclass(frozen=True)
class CacheReport:
    """What building a cache did; `built + rebuilt + reused` entries are good now.

    Attributes:
        built: Entries made that were not there.
        reused: Entries that were there.
        rebuilt: Entries that were there but damaged, and were made again.
        skipped: Pictures for which no entry could be made.
        changed: Files that are others than at the scan, among those skipped.
        kept_fp32: How many of those made are stored in float32 since float16 cannot hold them.
        stopped: Building was stopped before its end.
    """

    built: int = 0
    reused: int = 0
    rebuilt: int = 0
    skipped: tuple[SkippedItem, ...] = ()
    changed: tuple[Path, ...] = ()
    kept_fp32: int = 0
    stopped: bool = False


class CacheTally:
    """Finds what is missing in a store and counts while it is made.

    Args:
        store: Where the entries are.
        keys: All entries wanted.
        verify: Whether to read all of those that are there, instead of their headers, to find the
            damaged ones, which are made again.
        should_stop: Asked while looking at those that are there; the rest counts as good then.
    """

    def __init__(
        self,
        store: CacheStore,
        keys: Iterable[str],
        *,
        verify: bool,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        wanted = list(dict.fromkeys(keys))
        store.remove_leftovers()
        present = store.has(wanted)
        self._store = store
        self._damaged = _damaged(present, self._is_good if verify else store.is_whole, should_stop)
        self.missing = [key for key in wanted if key not in present or key in self._damaged]
        self._reused = len(wanted) - len(self.missing)
        self._built = self._rebuilt = self._kept_fp32 = 0

    def _is_good(self, key: str) -> bool:
        try:
            self._store.read(key)
        except CacheError:
            return False
        return True

    def write(self, key: str, tensors: Mapping[str, Tensor], dtype: StoredDtype) -> None:
        """Write float32 ``tensors`` in ``dtype``, or as they are where float16 cannot hold them."""
        fits = all(float(tensor.abs().max()) < FP16_LIMIT for tensor in tensors.values())
        if dtype == "fp16" and fits:
            tensors = {name: tensor.to(torch.float16) for name, tensor in tensors.items()}
        self._kept_fp32 += dtype == "fp16" and not fits
        whole = {name: tensor.clone() for name, tensor in tensors.items()}
        self._store.write(key, whole)
        self._rebuilt += key in self._damaged
        self._built += key not in self._damaged

    def report(
        self,
        skipped: Iterable[SkippedItem] = (),
        changed: Iterable[Path] = (),
        *,
        stopped: bool = False,
    ) -> CacheReport:
        """Return the counts."""
        return CacheReport(
            built=self._built,
            reused=self._reused,
            rebuilt=self._rebuilt,
            skipped=tuple(skipped),
            changed=tuple(changed),
            kept_fp32=self._kept_fp32,
            stopped=stopped,
        )


def _damaged(
    keys: Iterable[str], is_good: Callable[[str], bool], should_stop: Callable[[], bool] | None
) -> set[str]:
    found = set()
    keys = list(keys)
    pool = ThreadPoolExecutor(_CHECKS_AT_ONCE, thread_name_prefix="cache")
    try:
        for key, good in zip(keys, pool.map(is_good, keys), strict=True):
            if not good:
                found.add(key)
            if should_stop and should_stop():
                break
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return found
