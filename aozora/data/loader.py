"""Batches as the training step takes them, put together from the caches.

Dimensions: B samples, C latent channels, H and W of the latent, T tokens, D hidden width, P pooled.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aozora.data.batch_plan import PlannedBatch
from aozora.data.buckets import time_ids
from aozora.data.cache_store import CacheStore
from aozora.data.dataset import DatasetItem
from aozora.data.latent_cache import LatentSpec, latent_key
from aozora.data.text_cache import (
    NULL_CAPTION,
    TOKENS_PER_CHUNK,
    CountChunks,
    TextSpec,
    one_chunk,
    text_key,
)

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """What one micro-step trains on; all tensors float32 on the host.

    Attributes:
        latents: Scaled latents, (B, C, H, W).
        prompt_embeds: Hidden states of both encoders, (B, T, D).
        pooled_prompt_embeds: Pooled embeddings, (B, P).
        add_time_ids: Original size, crop offset and target size, (B, 6).
        indices: Places of the samples in the dataset.
        epoch: Epoch of the batch, from 0.
        first_sample: How many samples of the run are drawn before this batch.
        height: Height of the bucket in pixels.
        width: Width of the bucket in pixels.
    """

    latents: Tensor
    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor
    add_time_ids: Tensor
    indices: tuple[int, ...]
    epoch: int
    first_sample: int
    height: int
    width: int


class RamCache:
    """The most recently used entries, up to a number of bytes.

    Args:
        limit_bytes: What the tensors kept may take; 0 keeps none.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._entries: OrderedDict[str, Tensors] = OrderedDict()
        self._lock = threading.Lock()
        self.used_bytes = 0

    def get(self, key: str, make: Callable[[], Tensors]) -> Tensors:
        """Return the entry for ``key``, made by ``make`` if it is not here."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
                return entry
        entry = make()
        with self._lock:
            if key not in self._entries:
                self._entries[key] = entry
                self.used_bytes += _num_bytes(entry)
            while self.used_bytes > self._limit_bytes:
                _, oldest = self._entries.popitem(last=False)
                self.used_bytes -= _num_bytes(oldest)
        return entry


def _num_bytes(entry: Tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in entry.values())


class BatchLoader:
    """Reads planned batches from the caches.

    Captions of fewer chunks than the longest of the run are padded with the chunk of the empty
    caption, which is what encoding empty chunks after them would have given.

    Args:
        items: The dataset.
        latents: Store of the latents.
        latent_spec: What they were made with.
        texts: Store of the embeddings.
        text_spec: What they were made with.
        count_chunks: How many chunks a caption is encoded in.
        least_chunks: In every batch, even where no caption of ``items`` has so many.
        latent_shift: Subtracted from latents before scaling.
        latent_scale: Brings latents to unit size.
        ram_bytes: Memory for entries that are used again.
        should_hurry: See `CacheStore.read`.

    Raises:
        CacheError: if the embeddings of the empty caption cannot be read.
    """

    def __init__(
        self,
        items: Sequence[DatasetItem],
        latents: CacheStore,
        latent_spec: LatentSpec,
        texts: CacheStore,
        text_spec: TextSpec,
        *,
        count_chunks: CountChunks = one_chunk,
        least_chunks: int = 1,
        latent_shift: float = 0.0,
        latent_scale: float = 0.13025,
        ram_bytes: int = 512 << 20,
        should_hurry: Callable[[], bool] | None = None,
    ) -> None:
        self._items = items
        self._latents = latents
        self._texts = texts
        self._shift = latent_shift
        self._scale = latent_scale
        self._ram = RamCache(ram_bytes)
        self._should_hurry = should_hurry
        captions = dict.fromkeys([NULL_CAPTION, *(item.record.caption for item in items)])
        chunks = {caption: count_chunks(caption) for caption in captions}
        keys = {caption: text_key(caption, count, text_spec) for caption, count in chunks.items()}
        self._latent_keys = [latent_key(item, latent_spec) for item in items]
        self._text_keys = [keys[item.record.caption] for item in items]
        null = texts.read_or_discard(keys[NULL_CAPTION], should_hurry).tensors
        self._empty_chunk = null["prompt_embeds"][:TOKENS_PER_CHUNK].to(torch.float32)
        self.num_chunks = max(least_chunks, *chunks.values())
        """Chunks of 77 tokens in every batch."""
        self.null_prompt_embeds = self._padded(null["prompt_embeds"].to(torch.float32))
        """Hidden states of the empty caption, (T, D)."""
        self.null_pooled_prompt_embeds = null["pooled_prompt_embeds"].to(torch.float32)
        """Pooled embedding of the empty caption, (P,)."""

    def load(self, planned: PlannedBatch) -> Batch:
        """Return the batch that was planned.

        Raises:
            CacheError: if an entry is missing or damaged; a damaged one is removed.
        """
        latents = torch.stack([self._latent(index) for index in planned.items])
        texts = [self._text(index) for index in planned.items]
        records = [self._items[index] for index in planned.items]
        ids = [time_ids(item.record.height, item.record.width, item.fit) for item in records]
        return Batch(
            latents=latents.sub_(self._shift).mul_(self._scale),
            prompt_embeds=torch.stack([hidden for hidden, _ in texts]),
            pooled_prompt_embeds=torch.stack([pooled for _, pooled in texts]),
            add_time_ids=torch.tensor(ids, dtype=torch.float32),
            indices=planned.items,
            epoch=planned.epoch,
            first_sample=planned.first_sample,
            height=records[0].fit.height,
            width=records[0].fit.width,
        )

    def _latent(self, index: int) -> Tensor:
        entry = self._read(self._latents, self._latent_keys[index])
        return entry["latents"].to(torch.float32)

    def _text(self, index: int) -> tuple[Tensor, Tensor]:
        entry = self._read(self._texts, self._text_keys[index])
        hidden = self._padded(entry["prompt_embeds"].to(torch.float32))
        return hidden, entry["pooled_prompt_embeds"].to(torch.float32)

    def _read(self, store: CacheStore, key: str) -> Tensors:
        return self._ram.get(key, lambda: store.read_or_discard(key, self._should_hurry).tensors)

    def _padded(self, hidden: Tensor) -> Tensor:
        missing = self.num_chunks - len(hidden) // TOKENS_PER_CHUNK
        return torch.cat([hidden, *[self._empty_chunk] * missing]) if missing else hidden
