"""Which attention kernel the UNet runs, checked rather than assumed."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Literal

import torch

from aozora.errors import ConfigError, Problem

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

Attention = Literal["auto", "sdpa", "flash", "xformers"]

_MODULES = {"flash": "flash_attn", "xformers": "xformers"}
_INSTALL = {"flash": "pip install aozora[flash]", "xformers": "pip install aozora[xformers]"}
_HEAD_CHANNELS = 64


def use_attention(unet: UNet2DConditionModel, wanted: Attention) -> str:
    """Make ``unet`` use the kernel ``wanted`` and return the one in use.

    Raises:
        ConfigError: if it is not installed or does not run on this device in this precision.
    """
    if wanted in ("auto", "sdpa"):
        from diffusers.models.attention_processor import AttnProcessor2_0

        unet.set_attn_processor(AttnProcessor2_0())
        return _sdpa_name(unet)
    if importlib.util.find_spec(_MODULES[wanted]) is None:
        raise _refusal(wanted, "is not installed", _INSTALL[wanted])
    if unet.device.type != "cuda" or unet.dtype not in (torch.float16, torch.bfloat16):
        raise _refusal(
            wanted,
            f"does not run on {unet.device.type} in {str(unet.dtype).removeprefix('torch.')}",
            "set it to sdpa, or train on a graphics card in bf16 or fp16",
        )
    if wanted == "xformers":
        unet.enable_xformers_memory_efficient_attention()
    else:
        from aozora.model.flash_processor import FlashProcessor

        unet.set_attn_processor(FlashProcessor())
    return wanted


def _refusal(wanted: str, text: str, remedy: str) -> ConfigError:
    return ConfigError([Problem("model.attention", f"{wanted} {text}", remedy)])


def _sdpa_name(unet: UNet2DConditionModel) -> str:
    """Return ``sdpa`` with the kernel that torch takes for this device and precision."""
    if unet.device.type != "cuda":
        return "sdpa"
    backends = torch.backends.cuda
    query = torch.empty(1, 1, 128, _HEAD_CHANNELS, device=unet.device, dtype=unet.dtype)
    params = backends.SDPAParams(query, query, query, None, 0.0, False, False)
    if backends.flash_sdp_enabled() and backends.can_use_flash_attention(params):
        return "sdpa (flash)"
    if backends.mem_efficient_sdp_enabled() and backends.can_use_efficient_attention(params):
        return "sdpa (memory-efficient)"
    return "sdpa (math)"
