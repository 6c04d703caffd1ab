"""Attention of diffusers' UNet through the flash-attn package.

Dimensions: B samples, T tokens, H heads, C channels of a head.
"""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor


class FlashProcessor:
    """A processor for `diffusers.models.attention_processor.Attention` without masks."""

    def __init__(self) -> None:
        self._attend: Any = importlib.import_module("flash_attn").flash_attn_func

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Return the attended states, of the shape of ``hidden_states`` (B, T, H * C)."""
        assert attention_mask is None, "SDXL is trained without attention masks"
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1))
        key = attn.to_k(context).unflatten(-1, (attn.heads, -1))
        value = attn.to_v(context).unflatten(-1, (attn.heads, -1))
        attended: Tensor = self._attend(query, key, value).flatten(-2)
        out: Tensor = attn.to_out[0](attended)
        return out
