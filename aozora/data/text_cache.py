"""Embeddings of all captions, made once and kept; identical captions share one entry.

An embedding is made again only when the caption, an encoder, the tokenizer or the stored precision
changes. Dimensions: B captions, T tokens (77 a chunk), D widths of both encoders, P pooled width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from aozora.data.cache_build import CacheReport, CacheTally, StoredDtype
from aozora.data.cache_store import CacheStore, make_key
from aozora.errors import NumericsError

KIND = "text"
NULL_CAPTION = ""
TOKENS_PER_CHUNK = 77
_FORMAT = 1
_SHOWN = 80

EncodeText = Callable[[list[str]], tuple[Tensor, Tensor]]
CountChunks = Callable[[str], int]


@dataclass(frozen=True)
class TextSpec:
    """What embeddings depend on besides the caption.

    Attributes:
        encoder_hash: Hash of the first encoder's tensors.
        encoder_2_hash: Hash of the second encoder's tensors.
        tokenizer_hash: Hash of the vocabulary.
        dtype: Precision they are stored in.
        chunk_mode: How captions of more than 75 tokens are encoded.
    """

    encoder_hash: str
    encoder_2_hash: str
    tokenizer_hash: str
    dtype: StoredDtype = "fp16"
    chunk_mode: str = "comfy"


def text_key(caption: str, num_chunks: int, spec: TextSpec) -> str:
    """Return the cache key of the embeddings of ``caption``."""
    return make_key(
        {
            "format": _FORMAT,
            "caption": caption,
            "encoders": [spec.encoder_hash, spec.encoder_2_hash],
            "tokenizer": spec.tokenizer_hash,
            "chunks": [spec.chunk_mode, num_chunks],
            "dtype": spec.dtype,
        }
    )


def one_chunk(caption: str) -> int:
    """Return 1: every caption is cut to 75 tokens."""
    del caption
    return 1


def text_keys(captions: Iterable[str], spec: TextSpec, count_chunks: CountChunks) -> dict[str, str]:
    """Return each different caption by its key, and always the empty one.

    Args:
        captions: What pictures are trained with.
        spec: What the embeddings depend on besides the captions.
        count_chunks: How many chunks a caption is encoded in.
    """
    unique = dict.fromkeys([NULL_CAPTION, *captions])
    return {text_key(caption, count_chunks(caption), spec): caption for caption in unique}


def build_text(
    captions: Iterable[str],
    store: CacheStore,
    encode: EncodeText,
    spec: TextSpec,
    *,
    count_chunks: CountChunks = one_chunk,
    batch_size: int = 8,
    verify: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> CacheReport:
    """Make the embeddings that ``store`` does not have, always with those of the empty caption.

    Args:
        captions: Captions of the dataset, in any number of copies.
        store: Where embeddings are kept.
        encode: Takes captions of equal chunk count, and returns the hidden states (B, T, D) and the
            pooled embeddings (B, P).
        spec: What the embeddings depend on besides the captions.
        count_chunks: How many chunks a caption is encoded in.
        batch_size: Captions encoded at once.
        verify: Read all of the entries there are, and not only their headers, to make damaged ones
            again.
        on_progress: Called with the captions done and those to do, and not with those reused.
        should_stop: Asked between batches, and while looking at the entries there are.

    Raises:
        CacheError: if the cache cannot be read or written.
        NumericsError: if an encoder gives values that are not finite.
    """
    by_key = text_keys(captions, spec, count_chunks)
    tally = CacheTally(store, by_key, verify=verify, should_stop=should_stop)
    groups: dict[int, list[str]] = {}
    for key in tally.missing:
        groups.setdefault(count_chunks(by_key[key]), []).append(key)
    done = 0
    for count, keys in groups.items():
        for start in range(0, len(keys), batch_size):
            batch = {key: by_key[key] for key in keys[start : start + batch_size]}
            _encode_and_write(batch, count, encode, tally, spec.dtype)
            done += len(batch)
            if on_progress:
                on_progress(done, len(tally.missing))
            if should_stop and should_stop():
                return tally.report(stopped=done < len(tally.missing))
    return tally.report()


def _encode_and_write(
    batch: dict[str, str],
    num_chunks: int,
    encode: EncodeText,
    tally: CacheTally,
    dtype: StoredDtype,
) -> None:
    with torch.no_grad():
        hidden, pooled = encode(list(batch.values()))
    hidden, pooled = (t.detach().to("cpu", torch.float32) for t in (hidden, pooled))
    expected = (len(batch), TOKENS_PER_CHUNK * num_chunks)
    if hidden.ndim != 3 or tuple(hidden.shape[:2]) != expected or len(pooled) != len(batch):
        raise ValueError(
            f"captions were encoded to {tuple(hidden.shape)} and {tuple(pooled.shape)}, "
            f"which does not begin with {expected}"
        )
    for (key, caption), states, pool in zip(batch.items(), hidden, pooled, strict=True):
        if not (torch.isfinite(states).all() and torch.isfinite(pool).all()):
            raise NumericsError(
                f"the text encoders give values that are not finite for {caption[:_SHOWN]!r}",
                "the model file is probably damaged: check it with 'aozora inspect'",
            )
        tally.write(key, {"prompt_embeds": states, "pooled_prompt_embeds": pool}, dtype)
