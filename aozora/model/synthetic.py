"""Base models with random weights in the true layout, for tests, benchmarks and the demo.

The file is written tensor by tensor, so the full-size model needs little memory too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from aozora.config.chance import chance_key
from aozora.model.building import parameter_shapes
from aozora.model.key_map import COMPONENTS, LOGIT_SCALE, Component, file_tensors, map_name
from aozora.model.safetensors_writer import Entry, new_entry, write_entries
from aozora.model.sizes import (
    HEAD_CHANNELS,
    NUM_TIME_IDS,
    TIME_ID_CHANNELS,
    Config,
    standard_config,
)
from aozora.model.writer import LOGIT_SCALE_VALUE
from aozora.runtime import atomic_path


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """Sizes of an SDXL-shaped model; the default is small, for tests.

    Attributes:
        unet_channels: Channels of the three levels, multiples of 32; the attended ones of 64.
        unet_depths: Transformer blocks of the three levels; the first level has no attention.
        vae_channels: Channels of the four levels of the VAE, multiples of 32.
        te1_width: Width of the first text encoder, a multiple of 64.
        te1_layers: Its number of layers.
        te2_width: Width of the second text encoder and of the pooled embedding, a multiple of 64.
            Differs from ``te1_width``: diffusers would load the first encoder twice otherwise.
        te2_layers: Its number of layers.
        vocabulary: Number of tokens; 49408 for real captions.
    """

    unet_channels: tuple[int, int, int] = (32, 64, 128)
    unet_depths: tuple[int, int, int] = (1, 1, 2)
    vae_channels: tuple[int, int, int, int] = (32, 32, 32, 32)
    te1_width: int = 64
    te1_layers: int = 2
    te2_width: int = 128
    te2_layers: int = 2
    vocabulary: int = 49408

    def __post_init__(self) -> None:
        if self.te1_width == self.te2_width:
            raise ValueError(
                "te1_width and te2_width must differ: diffusers tells the text encoders of a single"
                " file apart by their widths alone"
            )


FULL_SIZES = ModelSizes(
    unet_channels=(320, 640, 1280),
    unet_depths=(1, 2, 10),
    vae_channels=(128, 256, 512, 512),
    te1_width=768,
    te1_layers=12,
    te2_width=1280,
    te2_layers=32,
)


def configs_of(sizes: ModelSizes) -> dict[Component, Config]:
    """Return the configuration of every component of a model of ``sizes``."""
    unet = standard_config("unet") | {
        "block_out_channels": list(sizes.unet_channels),
        "attention_head_dim": [max(1, c // HEAD_CHANNELS) for c in sizes.unet_channels],
        "transformer_layers_per_block": list(sizes.unet_depths),
        "cross_attention_dim": sizes.te1_width + sizes.te2_width,
        "projection_class_embeddings_input_dim": NUM_TIME_IDS * TIME_ID_CHANNELS + sizes.te2_width,
    }
    vae = standard_config("vae") | {"block_out_channels": list(sizes.vae_channels)}
    te1 = _text_config("te1", sizes.te1_width, sizes.te1_layers, sizes.vocabulary)
    te2 = _text_config("te2", sizes.te2_width, sizes.te2_layers, sizes.vocabulary)
    return {
        "unet": unet,
        "vae": vae,
        "te1": te1 | {"projection_dim": sizes.te1_width},
        "te2": te2 | {"projection_dim": sizes.te2_width},
    }


def _text_config(component: Component, width: int, layers: int, vocabulary: int) -> Config:
    return standard_config(component) | {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_attention_heads": max(1, width // HEAD_CHANNELS),
        "num_hidden_layers": layers,
        "vocab_size": vocabulary,
    }


def random_parameter(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return plausible initial values of a parameter: activations keep their scale through it."""
    is_norm = "norm" in name.rsplit(".", 2)[-2]
    if name.endswith("bias"):
        return torch.zeros(shape)
    if is_norm or len(shape) < 2:
        return torch.ones(shape)
    if "embedding.weight" in name:
        return torch.randn(shape, generator=generator) * 0.02
    fan_in = math.prod(shape[1:])
    # Half of a variance-keeping scale: residual branches add up over the depth.
    return torch.randn(shape, generator=generator) * (0.5 / math.sqrt(fan_in))


def write_random_base(
    path: Path,
    sizes: ModelSizes | None = None,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float16,
    vae_dtype: torch.dtype | None = None,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write a single file of the true SDXL layout with random weights.

    Args:
        path: The file to write.
        sizes: Sizes of the model; None for the small one. `FULL_SIZES` writes 6.9 GB in float16.
        seed: Same seed, same file.
        dtype: Number format of the weights.
        vae_dtype: That of the VAE if it differs.
        metadata: Free text entries.
    """
    sizes = sizes or ModelSizes()
    configs = configs_of(sizes)
    shapes = {c: parameter_shapes(c, configs[c]) for c in COMPONENTS}
    formats: dict[Component, torch.dtype] = dict.fromkeys(COMPONENTS, dtype)
    formats["vae"] = vae_dtype or dtype
    entries = [
        _random_entry(component, group, formats[component], seed)
        for component in COMPONENTS
        for group in _groups(component, shapes[component])
    ]
    _write(path, entries, dtype, metadata or {})


def write_models(
    path: Path,
    models: Mapping[Component, nn.Module],
    *,
    dtype: torch.dtype = torch.float16,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write whole models as one single file of the true SDXL layout.

    Args:
        path: The file to write.
        models: UNet, VAE and text encoders, as diffusers and transformers build them.
        dtype: Number format of the weights.
        metadata: Free text entries.
    """
    entries: list[Entry] = []
    for component, model in models.items():
        parameters = {name: p.detach().to("cpu", dtype) for name, p in model.named_parameters()}
        for key, tensor in file_tensors(component, parameters).items():
            entries.append(new_entry(key, tensor.shape, dtype, partial(_same, tensor)))
    _write(path, entries, dtype, metadata or {})


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _write(path: Path, entries: list[Entry], dtype: torch.dtype, metadata: dict[str, str]) -> None:
    scale = torch.tensor(LOGIT_SCALE_VALUE, dtype=dtype)
    logit_scale = new_entry(LOGIT_SCALE, (), dtype, lambda: scale)
    with atomic_path(path) as unfinished:
        write_entries(unfinished, [*entries, logit_scale], metadata)


def _groups(
    component: Component, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[dict[str, tuple[int, ...]]]:
    """Yield parameters together that one tensor of the file holds together."""
    groups: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        groups.setdefault(map_name(component, name).file_key, {})[name] = shape
    yield from groups.values()


def _random_entry(
    component: Component, group: Mapping[str, tuple[int, ...]], dtype: torch.dtype, seed: int
) -> Entry:
    def make() -> Tensor:
        generator = torch.Generator()
        parameters = {}
        for name, shape in group.items():
            generator.manual_seed(chance_key(seed, "weights", component, name))
            parameters[name] = random_parameter(name, shape, generator)
        (tensor,) = file_tensors(component, parameters).values()
        return tensor.to(dtype)

    empty = {name: torch.empty(shape, device="meta") for name, shape in group.items()}
    ((key, tensor),) = file_tensors(component, empty).items()
    return new_entry(key, tensor.shape, dtype, make)
