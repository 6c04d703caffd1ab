"""Model configurations derived from tensor shapes.

The standard SDXL configurations lie in ``configs/``; every size in them is replaced by what the
shapes say, so a small model and the full one take the same path. Shapes are given by model name
(see `key_map`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

from aozora.errors import ModelFileError
from aozora.model.key_map import Component, map_name

Shapes = Mapping[str, tuple[int, ...]]
Config = dict[str, Any]

HEAD_CHANNELS = 64
TIME_ID_CHANNELS = 256
NUM_TIME_IDS = 6
NUM_POSITIONS = 77

_STANDARD: dict[Component, str] = {
    "unet": "unet_config.json",
    "vae": "vae_config.json",
    "te1": "text_encoder_config.json",
    "te2": "text_encoder_2_config.json",
}


def packaged_config(name: str) -> Config:
    """Return one of the JSON files that came with SDXL, such as ``scheduler_config.json``."""
    text = resources.files("aozora.model").joinpath("configs", name).read_text(encoding="utf-8")
    config: Config = json.loads(text)
    return config


def standard_config(component: Component) -> Config:
    """Return the configuration of a component of the full-size SDXL base model."""
    return packaged_config(_STANDARD[component])


def derive_config(component: Component, shapes: Shapes) -> Config:
    """Return the configuration of a component whose parameters have ``shapes``.

    Raises:
        ModelFileError: if a tensor that decides a size is missing or has an impossible shape.
    """
    derive = {"unet": _unet, "vae": _vae, "te1": _text_encoder, "te2": _text_encoder_2}
    try:
        return derive[component](shapes)
    except _TensorFault as fault:
        key = map_name(component, fault.name).file_key
        raise ModelFileError(f"the tensor {key} ({fault.name}) {fault.text}", _REMEDY) from fault


_REMEDY = "the file is incomplete or no SDXL model; get it again from its source"


class _TensorFault(Exception):
    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text)
        self.name, self.text = name, text


def _shape(shapes: Shapes, name: str, num_dims: int) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None:
        raise _TensorFault(name, "is missing")
    if len(shape) != num_dims or 0 in shape:
        raise _TensorFault(name, f"has the shape {list(shape)}; {num_dims} dimensions needed")
    return shape


def _count(shapes: Shapes, pattern: str) -> int:
    """Return how many different numbers the group of ``pattern`` takes in the names."""
    return len({m[1] for name in shapes if (m := re.match(pattern, name))})


def _num_heads(channels: int) -> int:
    # Head counts are not in the shapes: SDXL has 64 channels a head everywhere.
    return max(1, channels // HEAD_CHANNELS)


def _unet(shapes: Shapes) -> Config:
    config = standard_config("unet")
    conv_in = _shape(shapes, "conv_in.weight", 4)
    levels = range(len(config["block_out_channels"]))
    channels = [_shape(shapes, f"down_blocks.{i}.resnets.0.conv1.weight", 4)[0] for i in levels]
    depths = [
        _count(shapes, rf"down_blocks\.{i}\.attentions\.0\.transformer_blocks\.(\d+)\.")
        for i in levels
    ]
    attended = next(
        (n for n in shapes if re.match(r"mid_block\..*\.attn2\.to_k\.weight$", n)),
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
    )
    config.update(
        in_channels=conv_in[1],
        out_channels=_shape(shapes, "conv_out.weight", 4)[0],
        block_out_channels=channels,
        attention_head_dim=[_num_heads(c) for c in channels],
        transformer_layers_per_block=[max(1, depth) for depth in depths],
        cross_attention_dim=_shape(shapes, attended, 2)[1],
        addition_time_embed_dim=TIME_ID_CHANNELS,
        projection_class_embeddings_input_dim=_shape(shapes, "add_embedding.linear_1.weight", 2)[1],
    )
    _check_unet(config)
    return config


def _check_unet(config: Config) -> None:
    groups = config["norm_num_groups"]
    if any(c % groups for c in config["block_out_channels"]):
        raise ModelFileError(
            f"the UNet's channels {config['block_out_channels']} are not multiples of {groups}"
        )
    if pooled_width(config) <= 0:
        width = config["projection_class_embeddings_input_dim"]
        raise ModelFileError(f"the UNet's size conditioning is {width} wide, too narrow for SDXL")


def pooled_width(unet_config: Config) -> int:
    """Return how wide a pooled text embedding the UNet takes."""
    width: int = unet_config["projection_class_embeddings_input_dim"]
    return width - NUM_TIME_IDS * TIME_ID_CHANNELS


def _vae(shapes: Shapes) -> Config:
    config = standard_config("vae")
    levels = range(len(config["block_out_channels"]))
    config.update(
        in_channels=_shape(shapes, "encoder.conv_in.weight", 4)[1],
        out_channels=_shape(shapes, "decoder.conv_out.weight", 4)[0],
        latent_channels=_shape(shapes, "decoder.conv_in.weight", 4)[1],
        block_out_channels=[
            _shape(shapes, f"encoder.down_blocks.{i}.resnets.0.conv1.weight", 4)[0] for i in levels
        ],
    )
    if any(c % config["norm_num_groups"] for c in config["block_out_channels"]):
        raise ModelFileError(
            f"the VAE's channels {config['block_out_channels']} are not multiples of 32"
        )
    return config


def _text_config(component: Component, shapes: Shapes, prefix: str) -> Config:
    config = standard_config(component)
    vocabulary, hidden = _shape(shapes, f"{prefix}embeddings.token_embedding.weight", 2)
    layer = rf"{re.escape(prefix)}encoder\.layers\.(\d+)\."
    config.update(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_attention_heads=_num_heads(hidden),
        num_hidden_layers=_count(shapes, layer),
        intermediate_size=_shape(shapes, f"{prefix}encoder.layers.0.mlp.fc1.weight", 2)[0],
        max_position_embeddings=_shape(shapes, f"{prefix}embeddings.position_embedding.weight", 2)[
            0
        ],
    )
    if hidden % config["num_attention_heads"]:
        raise ModelFileError(f"the text encoder's width {hidden} is not a multiple of 64")
    if config["max_position_embeddings"] != NUM_POSITIONS:
        raise ModelFileError(
            f"the text encoder has {config['max_position_embeddings']} positions instead of 77"
        )
    return config


def _text_encoder(shapes: Shapes) -> Config:
    config = _text_config("te1", shapes, "")
    config["projection_dim"] = config["hidden_size"]
    return config


def _text_encoder_2(shapes: Shapes) -> Config:
    config = _text_config("te2", shapes, "text_model.")
    config["projection_dim"] = _shape(shapes, "text_projection.weight", 2)[0]
    return config
