"""The attention kernel of the UNet: chosen by name, and the one in use told truly.

diffusers' ``set_attention_backend`` changes nothing on this UNet, whose attention calls PyTorch
directly, and says nothing about it. So other kernels get a processor of our own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from aozora.errors import AozoraError
from aozora.runtime import set_up_with

AttentionChoice = Literal["auto", "sdpa", "flash", "xformers"]
AttentionKernel = Literal["sdpa", "flash", "xformers"]
OptionalKernel = Literal["flash", "xformers"]

# Queries, keys and values of shape (batch, tokens, heads, channels), and so the result.
Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]


class AttendingUNet(Protocol):
    """What is needed of diffusers' UNet, whose own types do not say it."""

    @property
    def attn_processors(self) -> dict[str, Any]:
        """The processor of every attention layer, by name."""
        ...

    def set_attn_processor(self, processor: Any) -> None:
        """Give every attention layer ``processor``."""
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """All parameters."""
        ...


_FLASH_CAPABILITY = (8, 0)
_HALF = (torch.float16, torch.bfloat16)


class KernelProcessor:
    """Attention of the SDXL UNet by a given kernel; no masks, no norms of queries or keys."""

    def __init__(self, kernel: Kernel, name: AttentionKernel) -> None:
        self.kernel = kernel
        self.name = name

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Return the attention layer's output for ``hidden_states``, shape (B, T, C)."""
        if attention_mask is not None:
            raise ValueError(f"the attention kernel {self.name} takes no mask")
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        split = (attn.heads, -1)
        query = attn.to_q(hidden_states).unflatten(-1, split)
        key = attn.to_k(context).unflatten(-1, split)
        value = attn.to_v(context).unflatten(-1, split)
        mixed = self.kernel(query, key, value).flatten(-2).to(query.dtype)
        projected: Tensor = attn.to_out[1](attn.to_out[0](mixed))
        return projected


def use_attention(unet: AttendingUNet, wanted: AttentionChoice) -> AttentionKernel:
    """Set the attention kernel of ``unet`` and return which one it now uses.

    Args:
        unet: The UNet, on its device and in its dtype.
        wanted: A kernel, or ``auto`` for PyTorch's own, which works everywhere and picks a fused
            kernel by itself.

    Raises:
        AozoraError: if the kernel is not installed or does not work here.
    """
    from diffusers.models.attention_processor import AttnProcessor2_0

    parameter = next(unet.parameters())
    if wanted == "flash":
        kernel = _flash_kernel(parameter.device, parameter.dtype)
        unet.set_attn_processor(KernelProcessor(kernel, "flash"))
    elif wanted == "xformers":
        kernel = _xformers_kernel(parameter.device)
        unet.set_attn_processor(KernelProcessor(kernel, "xformers"))
    else:
        unet.set_attn_processor(AttnProcessor2_0())  # type: ignore[no-untyped-call]
    return attention_in_use(unet)


def attention_in_use(unet: AttendingUNet) -> AttentionKernel:
    """Return the kernel that every attention layer of ``unet`` uses, read off the layers."""
    processors = list(unet.attn_processors.values())
    names: set[AttentionKernel] = {
        processor.name if isinstance(processor, KernelProcessor) else "sdpa"
        for processor in processors
    }
    if len(names) != 1:
        raise AozoraError(f"the UNet's layers use different attention kernels: {sorted(names)}")
    return names.pop()


def available_kernels(device: torch.device) -> dict[AttentionKernel, str]:
    """Return for each kernel why it cannot be used on ``device``; empty where it can."""
    reasons: dict[AttentionKernel, str] = {"sdpa": ""}
    checks: tuple[tuple[AttentionKernel, Callable[[], Kernel]], ...] = (
        ("flash", lambda: _flash_kernel(device, torch.bfloat16)),
        ("xformers", lambda: _xformers_kernel(device)),
    )
    for name, check in checks:
        try:
            check()
        except AozoraError as error:
            reasons[name] = str(error)
        else:
            reasons[name] = ""
    return reasons


def setup_command(kernel: OptionalKernel) -> str:
    """Return what users type to install ``kernel``.

    Not pip: outside of ``.venv``, which nobody activates, it would install where we never look.
    """
    choice = f"--attention {kernel}"
    # There is no FlashAttention for Windows in pip's index.
    on_windows = f"{choice} --wheel FILE" if kernel == "flash" else choice
    return set_up_with(choice, on_windows)


def _flash_kernel(device: torch.device, dtype: torch.dtype) -> Kernel:
    module = _optional("flash_attn", "FlashAttention 2", "flash")
    _need_cuda(device, "FlashAttention 2")
    if torch.cuda.get_device_capability(device) < _FLASH_CAPABILITY:
        raise AozoraError(
            "FlashAttention 2 does not support this card (it needs an RTX 30 or newer)",
            "set model.attention to sdpa",
        )
    if dtype not in _HALF:
        raise AozoraError(
            f"FlashAttention 2 works in bf16 and fp16 only, the UNet is in {dtype}",
            "set training.precision to bf16, or model.attention to sdpa",
        )
    kernel: Kernel = module.flash_attn_func
    return kernel


def _xformers_kernel(device: torch.device) -> Kernel:
    module = _optional("xformers.ops", "xformers", "xformers")
    _need_cuda(device, "xformers")
    kernel: Kernel = module.memory_efficient_attention
    return kernel


def _optional(module: str, title: str, kernel: OptionalKernel) -> Any:
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        # A build for another torch or CUDA fails with either, at the first import.
        raise AozoraError(
            f"model.attention asks for {title}, which cannot be used here: {error}",
            f"run {setup_command(kernel)}, or set model.attention to sdpa",
        ) from error


def _need_cuda(device: torch.device, title: str) -> None:
    if device.type != "cuda":
        raise AozoraError(
            f"{title} works on NVIDIA cards only, the UNet is on {device.type}",
            "set model.attention to sdpa",
        )
