"""Training some samples without their caption, which guidance (CFG) relies on.

Dimensions: B samples, T tokens, D features of a token, P features of the pooled embedding.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from aozora.config.chance import chance_uniform

NullKind = Literal["empty", "zeros"]


def is_dropped(seed: int, sample: int, probability: float) -> bool:
    """Return whether sample number ``sample`` is trained without its caption."""
    return chance_uniform(seed, "dropout", sample) < probability


def dropped_mask(seed: int, samples: Iterable[int], probability: float) -> Tensor:
    """Return `is_dropped` of several samples, bool, shape (B,), on the CPU."""
    marks = [is_dropped(seed, sample, probability) for sample in samples]
    return torch.tensor(marks, dtype=torch.bool)


def drop_conditioning(
    prompt_embeds: Tensor,
    pooled_prompt_embeds: Tensor,
    dropped: Tensor,
    *,
    kind: NullKind,
    null_prompt_embeds: Tensor | None = None,
    null_pooled_prompt_embeds: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return both embeddings with those of dropped samples replaced; the time ids stay theirs.

    Args:
        prompt_embeds: Embeddings of the captions, shape (B, T, D).
        pooled_prompt_embeds: Their pooled embeddings, shape (B, P).
        dropped: Which samples lose their caption, bool, shape (B,).
        kind: What stands in: the embeddings of the ``empty`` caption, or ``zeros``.
        null_prompt_embeds: Of the empty caption, shape (T, D); not needed for zeros.
        null_pooled_prompt_embeds: Of the empty caption, shape (P,); not needed for zeros.

    Raises:
        ValueError: if shapes do not fit or the empty caption's embeddings are missing.
    """
    if dropped.shape != prompt_embeds.shape[:1]:
        raise ValueError(f"{tuple(dropped.shape)} marks for {prompt_embeds.shape[0]} samples")
    null_prompt = _null(kind, null_prompt_embeds, prompt_embeds)
    null_pooled = _null(kind, null_pooled_prompt_embeds, pooled_prompt_embeds)
    mask = dropped.to(prompt_embeds.device)
    return (
        torch.where(mask.view(-1, 1, 1), null_prompt, prompt_embeds),
        torch.where(mask.view(-1, 1), null_pooled, pooled_prompt_embeds),
    )


def _null(kind: NullKind, null: Tensor | None, like: Tensor) -> Tensor:
    if kind == "zeros":
        return torch.zeros((), dtype=like.dtype, device=like.device)
    if null is None:
        raise ValueError("the embeddings of the empty caption are needed to drop captions")
    if null.shape != like.shape[1:]:
        raise ValueError(
            f"the empty caption has shape {tuple(null.shape)}, captions {tuple(like.shape[1:])}"
        )
    return null.to(device=like.device, dtype=like.dtype)
