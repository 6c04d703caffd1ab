"""Latents of all pictures, made once and kept: the unscaled mean of the VAE's posterior.

A latent is made again only when the picture, its geometry, the VAE or the stored precision changes.
Dimensions: B batch, C latent channels, H and W pixels of the bucket.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor

from aozora.data.buckets import Shape
from aozora.data.cache_build import CacheReport, CacheTally, StoredDtype
from aozora.data.cache_store import CacheStore, make_key
from aozora.data.dataset import DatasetItem
from aozora.data.images import (
    MAX_PIXELS,
    WHITE,
    Colour,
    describe_failure,
    prepare,
    quiet_pillow,
    read_picture,
)
from aozora.data.scan import SkippedItem
from aozora.errors import DatasetError

KIND = "latents"
_FORMAT = 1

EncodeImages = Callable[[Tensor], Tensor]
_CHANGED = "the file has changed since the scan"
_Decoded = tuple[str, Tensor | str]  # key, and the pixels or why there are none


@dataclass(frozen=True)
class LatentSpec:
    """What latents depend on besides the picture.

    Attributes:
        vae_hash: Hash of the VAE's tensors.
        dtype: Precision they are stored in.
        background: Colour behind transparent pictures.
    """

    vae_hash: str
    dtype: StoredDtype = "fp16"
    background: Colour = WHITE


def latent_key(item: DatasetItem, spec: LatentSpec) -> str:
    """Return the cache key of the latent of ``item``."""
    fit = item.fit
    geometry = (fit.height, fit.width, fit.resized_height, fit.resized_width)
    return make_key(
        {
            "format": _FORMAT,
            "content": item.record.content_hash,
            "geometry": [*geometry, fit.crop_top, fit.crop_left],
            "flip": False,
            "resample": "lanczos",
            # An opaque picture looks the same on every background.
            "background": list(spec.background) if item.record.has_alpha else None,
            "vae": spec.vae_hash,
            "dtype": spec.dtype,
        }
    )


def latent_keys(items: Iterable[DatasetItem], spec: LatentSpec) -> dict[str, list[DatasetItem]]:
    """Return the pictures by the key of their latent, which equal ones share."""
    by_key: dict[str, list[DatasetItem]] = {}
    for item in items:
        by_key.setdefault(latent_key(item, spec), []).append(item)
    return by_key


def build_latents(
    items: Sequence[DatasetItem],
    store: CacheStore,
    encode: EncodeImages,
    spec: LatentSpec,
    *,
    batch_size: int = 1,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    verify: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> CacheReport:
    """Make the latents that ``store`` does not have.

    Pictures are decoded in threads ahead of the encoder. Each batch is written as soon as it is
    encoded, so that a kill costs at most the batch in work.

    Args:
        items: The dataset.
        store: Where latents are kept.
        encode: Takes pixels of shape (B, 3, H, W) in [-1, 1], float32 on the CPU, and returns the
            unscaled posterior means of shape (B, C, H/8, W/8).
        spec: What the latents depend on besides the pictures.
        batch_size: Pictures encoded at once.
        workers: Decoding threads; by default as many as there are cores, at most four.
        max_pixels: Pictures with more are left out, as at the scan.
        verify: Read all of the entries there are, and not only their headers, to make damaged ones
            again.
        on_progress: Called with the pictures done and those to do, and not with those reused.
        should_stop: Asked between batches, and while looking at the entries there are.

    Raises:
        CacheError: if the cache cannot be read or written.
    """
    by_key = latent_keys(items, spec)
    tally = CacheTally(store, by_key, verify=verify, should_stop=should_stop)
    todo = {key: by_key[key][0] for key in tally.missing}
    problems: dict[str, str] = {}
    done = 0
    stopped = False
    with closing(_decoded_batches(todo, spec, batch_size, workers, max_pixels)) as batches:
        for batch in batches:
            problems.update((key, pixels) for key, pixels in batch if isinstance(pixels, str))
            good = {key: pixels for key, pixels in batch if isinstance(pixels, Tensor)}
            if good:
                problems.update(_encode_and_write(good, encode, tally, spec.dtype))
            done += len(batch)
            if on_progress:
                on_progress(done, len(todo))
            if should_stop and should_stop():
                stopped = done < len(todo)
                break
    skipped = [
        SkippedItem(item.record.relative, reason)
        for key, reason in problems.items()
        for item in by_key[key]
    ]
    changed = [todo[key].record.path for key, reason in problems.items() if reason == _CHANGED]
    return tally.report(skipped, changed, stopped=stopped)


def _encode_and_write(
    pixels: dict[str, Tensor], encode: EncodeImages, tally: CacheTally, dtype: StoredDtype
) -> dict[str, str]:
    """Encode one batch and write what is finite; return the reasons for the rest by key."""
    with torch.no_grad():
        latents = encode(torch.stack(list(pixels.values()))).detach().to("cpu", torch.float32)
    if latents.ndim != 4 or len(latents) != len(pixels):
        raise ValueError(f"{len(pixels)} pictures were encoded to {tuple(latents.shape)}")
    problems = {}
    for key, latent in zip(pixels, latents, strict=True):
        if torch.isfinite(latent).all():
            tally.write(key, {"latents": latent}, dtype)
        else:
            problems[key] = "the VAE gives values for it that are not finite"
    return problems


def _decoded_batches(
    todo: dict[str, DatasetItem],
    spec: LatentSpec,
    batch_size: int,
    workers: int | None,
    max_pixels: int,
) -> Generator[list[_Decoded]]:
    """Yield batches of one shape; a bounded number of pictures is decoded ahead."""
    workers = workers or min(4, os.cpu_count() or 1)
    waiting = deque(_same_shape_batches(todo, batch_size))
    running: deque[list[Future[_Decoded]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    with quiet_pillow():
        try:
            while waiting or running:
                while waiting and sum(map(len, running)) < batch_size + workers:
                    keys = waiting.popleft()
                    running.append(
                        [pool.submit(_decode, k, todo[k], spec, max_pixels) for k in keys]
                    )
                yield [future.result() for future in running.popleft()]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _same_shape_batches(todo: dict[str, DatasetItem], batch_size: int) -> list[list[str]]:
    groups: dict[Shape, list[str]] = {}
    for key, item in todo.items():
        groups.setdefault(Shape(item.fit.height, item.fit.width), []).append(key)
    return [
        keys[start : start + batch_size]
        for keys in groups.values()
        for start in range(0, len(keys), batch_size)
    ]


def _decode(key: str, item: DatasetItem, spec: LatentSpec, max_pixels: int) -> _Decoded:
    record = item.record
    try:
        picture = read_picture(record.path, spec.background, max_pixels=max_pixels)
        if picture.content_hash != record.content_hash:
            return key, _CHANGED
        return key, prepare(picture.image, item.fit)
    except DatasetError as error:
        return key, error.message
    except MemoryError as error:
        return key, describe_failure(error)
