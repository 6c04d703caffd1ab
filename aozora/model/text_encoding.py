"""Captions to the states that SDXL's UNet attends to.

Dimensions: B captions, n chunks, 77 tokens a chunk, D width of both encoders' states together,
P width of the pooled state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection


@torch.no_grad()
def encode_text(
    te1: CLIPTextModel, te2: CLIPTextModelWithProjection, ids: Tensor, ids_2: Tensor
) -> tuple[Tensor, Tensor]:
    """Return ``prompt_embeds`` (B, 77 n, D) and ``pooled_prompt_embeds`` (B, P).

    The states are those before the last layer of each encoder, without the final normalisation;
    chunks are encoded apart and put one after the other; the pooled state is the projected one of
    the first chunk.

    Args:
        te1: First encoder (CLIP-L).
        te2: Second encoder (CLIP-G).
        ids: Tokens for the first, (B, n, 77).
        ids_2: Tokens for the second, (B, n, 77).
    """
    batch, chunks, length = ids.shape
    out_1 = te1(ids.reshape(batch * chunks, length), output_hidden_states=True)
    out_2 = te2(ids_2.reshape(batch * chunks, length), output_hidden_states=True)
    states = torch.cat([out_1.hidden_states[-2], out_2.hidden_states[-2]], dim=-1)
    prompt_embeds = states.reshape(batch, chunks * length, states.shape[-1])
    pooled = out_2.text_embeds.reshape(batch, chunks, -1)[:, 0]
    return prompt_embeds, pooled
