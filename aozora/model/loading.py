"""Loading weights: an empty model is filled tensor by tensor, straight to its device.

At no time is there a second copy of the weights: one tensor is in host memory while it is moved.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from aozora.errors import ModelFileError
from aozora.model.building import empty_model
from aozora.model.key_map import Component
from aozora.model.source import COMPONENT_NAMES, ModelSource, listed

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

log = logging.getLogger(__name__)

# Of a component's matrices. Layers that begin as zeros are few and small; a downloader reserves the
# whole file at first, and what never arrived is zeros.
_MOST_ZEROS = 0.05

Warn = Callable[[str], None]


def _warn(text: str) -> None:
    log.warning("%s", text)


def load_unet(
    source: ModelSource,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    *,
    on_host: Collection[str] = (),
    warn: Warn = _warn,
) -> UNet2DConditionModel:
    """Return the UNet, in training mode, with weights of ``dtype`` on ``device``.

    Args:
        source: The model's file.
        dtype: Format of the weights.
        device: Where it will compute.
        on_host: Parameters that stay in host memory, for whoever places them.
        warn: Receives what the user should know.

    Raises:
        ModelFileError: if tensors are missing, unexpected, wrong-shaped or not finite, or if so
            many are zero that the file cannot be whole.
    """
    unet = load_component(source, "unet", dtype, device, on_host=on_host, warn=warn)
    return cast("UNet2DConditionModel", unet.train())


def load_vae(
    source: ModelSource,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    *,
    warn: Warn = _warn,
) -> AutoencoderKL:
    """Return the VAE, frozen; float32 by default, because SDXL's overflows in float16.

    Raises:
        ModelFileError: if there is none, or tensors are missing, wrong-shaped or not finite.
    """
    vae = load_component(source, "vae", dtype, device, warn=warn)
    return cast("AutoencoderKL", vae.eval().requires_grad_(False))


def load_text_encoders(
    source: ModelSource,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    *,
    warn: Warn = _warn,
) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """Return both text encoders, frozen.

    Raises:
        ModelFileError: if one is not there, or tensors are missing, wrong-shaped or not finite.
    """
    te1 = load_component(source, "te1", dtype, device, warn=warn).eval().requires_grad_(False)
    te2 = load_component(source, "te2", dtype, device, warn=warn).eval().requires_grad_(False)
    return cast("CLIPTextModel", te1), cast("CLIPTextModelWithProjection", te2)


def load_component(
    source: ModelSource,
    component: Component,
    dtype: torch.dtype,
    device: torch.device | str,
    *,
    on_host: Collection[str] = (),
    warn: Warn = _warn,
) -> nn.Module:
    """Return a component with its weights; see `load_unet`."""
    source.verify(component)
    model = empty_model(component, source.facts.components[component].config)
    faults: list[str] = []
    zeros: list[str] = []
    num_zeros = num_matrices = 0
    with source:
        for name, stored in source.component(component).items():
            tensor = stored.read()
            value = tensor.to(device="cpu" if name in on_host else device, dtype=dtype)
            if not bool(torch.isfinite(value).all()):
                faults.append(f"{stored.key}: {_why_not_finite(tensor, dtype)}")
            elif value.ndim > 1:
                num_matrices += value.numel()
                if not bool(value.any()):
                    zeros.append(stored.key)
                    num_zeros += value.numel()
            _set_parameter(model, name, value)
    if faults:
        raise ModelFileError(
            f"{source.facts.components[component].path}: the {COMPONENT_NAMES[component]} has "
            f"weights that cannot be used:\n  " + listed(faults),
            "use another copy of the model; one in float32 or bfloat16 if values are too large",
        )
    if num_zeros > _MOST_ZEROS * num_matrices:
        raise ModelFileError(
            f"{source.facts.components[component].path}: {num_zeros / num_matrices:.0%} of the"
            f" {COMPONENT_NAMES[component]} is nothing but zeros, such as {zeros[0]}, so its"
            " download or copy was not finished",
            "get the file again",
        )
    if zeros:
        warn(
            f"{len(zeros)} weights of the {COMPONENT_NAMES[component]} are all zero: "
            + ", ".join(zeros[:5])
        )
    _finish(model, device)
    return model


def _why_not_finite(tensor: Tensor, dtype: torch.dtype) -> str:
    if bool(torch.isfinite(tensor).all()):
        return f"too large for {str(dtype).removeprefix('torch.')}"
    return "has values that are not a number" if bool(tensor.isnan().any()) else "is infinite"


def _set_parameter(model: nn.Module, name: str, value: Tensor) -> None:
    parent, _, leaf = name.rpartition(".")
    module = model.get_submodule(parent)
    module.register_parameter(leaf, nn.Parameter(value))


def _finish(model: nn.Module, device: torch.device | str) -> None:
    """Move the buffers, which are computed rather than loaded, and look for what was left empty."""
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    left = [name for name, value in model.named_parameters() if value.is_meta]
    left += [name for name, value in model.named_buffers() if value.is_meta]
    assert not left, f"not loaded: {left}"
