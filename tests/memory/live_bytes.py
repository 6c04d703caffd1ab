"""Counts the memory of a forward and backward pass without doing it, on the meta device."""

from __future__ import annotations

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

META = torch.device("meta")


class LiveBytes(TorchDispatchMode):
    """Follows every storage that an operation makes until it is freed."""

    def __init__(self, besides):
        super().__init__()
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in besides}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._follow(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return out

    def _follow(self, storage):
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self.now += storage.nbytes()
            weakref.finalize(storage, self._drop, storage._cdata, storage.nbytes())

    def _drop(self, key, num_bytes):
        self._known.discard(key)
        self.now -= num_bytes


class FlashAttention:
    """Attention with the kernel that CUDA has, which keeps what the table says."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            tokens.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for tokens in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        mixed = flash(query, key, value, 0.0, False)[0].transpose(1, 2).flatten(-2)
        return attn.to_out[1](attn.to_out[0](mixed)) / attn.rescale_output_factor


def _gradients_dropped(unet):
    """Let gradients be freed as soon as they are there; return what undoes it."""
    return [
        parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
        for parameter in unet.parameters()
    ]


def _inputs(unet, side, batch, text_tokens):
    def new(*shape):
        return torch.empty(*shape, device=META, dtype=torch.bfloat16)

    pooled = unet.config.projection_class_embeddings_input_dim - 6 * 256
    return {
        "sample": new(batch, 4, side, side),
        "timestep": torch.empty(batch, device=META),
        "encoder_hidden_states": new(batch, text_tokens, unet.config.cross_attention_dim),
        "added_cond_kwargs": {"text_embeds": new(batch, pooled), "time_ids": new(batch, 6)},
        "return_dict": False,
    }


def measure_bytes(unet, side, batch, text_tokens):
    """Return what is kept for backward, and the peak, beside weights and inputs."""
    inputs = _inputs(unet, side, batch, text_tokens)
    tensors = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, torch.Tensor)]
    handles = _gradients_dropped(unet)
    with LiveBytes(besides=[*unet.parameters(), *tensors]) as live:
        loss = unet(**inputs)[0].float().square().mean()
        kept = live.now
        loss.backward()
    for handle in handles:
        handle.remove()
    return kept, live.peak


def measure_backward_flops(unet, side, batch, text_tokens):
    """Return the work of backward, with all that is done a second time."""
    handles = _gradients_dropped(unet)
    loss = unet(**_inputs(unet, side, batch, text_tokens))[0].float().square().mean()
    with FlopCounterMode(display=False) as counted:
        loss.backward()
    for handle in handles:
        handle.remove()
    return counted.get_total_flops()
