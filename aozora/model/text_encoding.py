"""Token ids to what the UNet is conditioned on.

Dimensions: B captions, n chunks, T = 77 n tokens, D widths of both encoders together, P pooled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

# Both encoders give the states before their last layer; no final norm is applied to them.
_PENULTIMATE = -2


@torch.no_grad()
def encode_text(
    te1: CLIPTextModel, te2: CLIPTextModelWithProjection, ids: Tensor, ids_2: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the states of both encoders side by side, and the pooled embedding.

    Chunks are encoded each by itself and laid end to end; pooled is that of the first chunk.

    Args:
        te1: First text encoder.
        te2: Second text encoder.
        ids: Token ids for the first, shape (B, n, 77).
        ids_2: Token ids for the second, same shape.

    Returns:
        Prompt embeddings (B, T, D) and pooled embeddings (B, P), in the encoders' dtype.
    """
    num_captions, num_chunks, length = ids.shape
    first = te1(ids.reshape(-1, length), output_hidden_states=True)
    second = te2(ids_2.reshape(-1, length), output_hidden_states=True)
    states = [first.hidden_states[_PENULTIMATE], second.hidden_states[_PENULTIMATE]]
    prompt_embeds = torch.cat(states, dim=-1).reshape(num_captions, num_chunks * length, -1)
    pooled = second.text_embeds.reshape(num_captions, num_chunks, -1)[:, 0]
    return prompt_embeds, pooled.contiguous()
