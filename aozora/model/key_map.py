"""Names: which tensor of an SDXL single file is which parameter of the models that train.

Two namings of the same weights exist. A *file key* is the name in an SDXL single file, such as
``model.diffusion_model.input_blocks.0.0.weight``. A *model name* is the name of the parameter in
the diffusers or transformers model, such as ``conv_in.weight``. One table of prefixes for each
component holds everything; both directions are read from it. Model names of the first text encoder
carry no ``text_model.``, as in transformers 5.6 and later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

Component = Literal["unet", "vae", "te1", "te2"]
COMPONENTS: tuple[Component, ...] = get_args(Component)

Transform = Literal["same", "transposed", "query", "key", "value", "conv1x1"]
"""How the tensor in the file becomes the parameter.

``transposed``: swap both dimensions. ``query``, ``key``, ``value``: that third of the rows of a
fused tensor. ``conv1x1``: a 1x1 convolution in the file, a linear layer in the model (some files
hold the linear form already).
"""

FUSED: tuple[Transform, ...] = ("query", "key", "value")

FILE_PREFIXES: dict[Component, str] = {
    "unet": "model.diffusion_model.",
    "te1": "conditioner.embedders.0.transformer.text_model.",
    "te2": "conditioner.embedders.1.model.",
    "vae": "first_stage_model.",
}

LOGIT_SCALE = "conditioner.embedders.1.model.logit_scale"

PASSENGERS: frozenset[str] = frozenset(
    {
        LOGIT_SCALE,
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids",
        "conditioner.embedders.0.transformer.text_projection.weight",
        "conditioner.embedders.0.logit_scale",
    }
)
"""File keys that no model holds and that come through from the base untouched."""

# Buffers that some programs write out, of any module.
_COMPUTED_BUFFERS = ("position_ids", "attn_mask")

_LEVELS = 3
_UNET_RESNETS = 2
_VAE_LEVELS = 4
_VAE_RESNETS = 2


@dataclass(frozen=True)
class TensorMapping:
    """Where a parameter lies in a file.

    Attributes:
        model_name: Name in the diffusers or transformers model.
        file_key: Name in the single file.
        transform: How the one becomes the other.
    """

    model_name: str
    file_key: str
    transform: Transform = "same"


class _PrefixTable:
    """Pairs of dotted prefixes (model, file); the longest that fits decides, the rest is kept."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._to_file: dict[str, str] = {}
        self._to_model: dict[str, str] = {}
        for model_prefix, file_prefix in pairs:
            self._to_file[model_prefix] = file_prefix
            self._to_model[file_prefix] = model_prefix

    def to_file(self, name: str) -> str | None:
        return _replace_prefix(self._to_file, name)

    def to_model(self, key: str) -> str | None:
        return _replace_prefix(self._to_model, key)


def _replace_prefix(table: Mapping[str, str], name: str) -> str | None:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        found = table.get(".".join(parts[:length]))
        if found is not None:
            return ".".join([found, *parts[length:]])
    return None


def is_passenger(file_key: str) -> bool:
    """Return whether no model holds ``file_key``; it comes through from the base untouched."""
    return file_key in PASSENGERS or file_key.rpartition(".")[2] in _COMPUTED_BUFFERS


def _nested(
    model_prefix: str, file_prefix: str, inner: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    return [(f"{model_prefix}.{a}", f"{file_prefix}.{b}") for a, b in inner]


_UNET_RESNET = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
)

_UNET_OUTER = (
    ("conv_in", "input_blocks.0.0"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
    ("mid_block.attentions.0", "middle_block.1"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
)


def _unet_pairs() -> list[tuple[str, str]]:
    pairs = list(_UNET_OUTER)
    for resnet, block in ((0, 0), (1, 2)):
        pairs += _nested(f"mid_block.resnets.{resnet}", f"middle_block.{block}", _UNET_RESNET)
    for level in range(_LEVELS):
        down, up = f"down_blocks.{level}", f"up_blocks.{level}"
        step = _UNET_RESNETS + 1
        for layer in range(_UNET_RESNETS):
            into = f"input_blocks.{step * level + layer + 1}"
            pairs += _nested(f"{down}.resnets.{layer}", f"{into}.0", _UNET_RESNET)
            pairs.append((f"{down}.attentions.{layer}", f"{into}.1"))
        for layer in range(step):
            out = f"output_blocks.{step * level + layer}"
            pairs += _nested(f"{up}.resnets.{layer}", f"{out}.0", _UNET_RESNET)
            pairs.append((f"{up}.attentions.{layer}", f"{out}.1"))
        if level < _LEVELS - 1:
            pairs.append((f"{down}.downsamplers.0.conv", f"input_blocks.{step * (level + 1)}.0.op"))
            pairs.append((f"{up}.upsamplers.0.conv", f"output_blocks.{step * level + 2}.2.conv"))
    return pairs


_VAE_RESNET = (
    *((name, name) for name in ("norm1", "conv1", "norm2", "conv2")),
    ("conv_shortcut", "nin_shortcut"),
)

_VAE_ATTENTION = (
    ("group_norm", "norm"),
    ("to_q", "q"),
    ("to_k", "k"),
    ("to_v", "v"),
    ("to_out.0", "proj_out"),
)


def _vae_pairs() -> list[tuple[str, str]]:
    pairs = [("quant_conv", "quant_conv"), ("post_quant_conv", "post_quant_conv")]
    for side in ("encoder", "decoder"):
        pairs += [(f"{side}.{name}", f"{side}.{name}") for name in ("conv_in", "conv_out")]
        pairs.append((f"{side}.conv_norm_out", f"{side}.norm_out"))
        for layer in range(2):
            resnet = f"{side}.mid_block.resnets.{layer}"
            pairs += _nested(resnet, f"{side}.mid.block_{layer + 1}", _VAE_RESNET)
        pairs += _nested(f"{side}.mid_block.attentions.0", f"{side}.mid.attn_1", _VAE_ATTENTION)
    for level in range(_VAE_LEVELS):
        down, file_down = f"encoder.down_blocks.{level}", f"encoder.down.{level}"
        # The file counts the decoder's levels from the picture inwards, diffusers in order of use.
        up, file_up = f"decoder.up_blocks.{level}", f"decoder.up.{_VAE_LEVELS - 1 - level}"
        for layer in range(_VAE_RESNETS):
            pairs += _nested(f"{down}.resnets.{layer}", f"{file_down}.block.{layer}", _VAE_RESNET)
        for layer in range(_VAE_RESNETS + 1):
            pairs += _nested(f"{up}.resnets.{layer}", f"{file_up}.block.{layer}", _VAE_RESNET)
        if level < _VAE_LEVELS - 1:
            pairs.append((f"{down}.downsamplers.0.conv", f"{file_down}.downsample.conv"))
            pairs.append((f"{up}.upsamplers.0.conv", f"{file_up}.upsample.conv"))
    return pairs


_TE2_LAYER = (
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("self_attn.out_proj", "attn.out_proj"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
)

_TE2_OUTER = (
    ("text_model.embeddings.token_embedding", "token_embedding"),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm", "ln_final"),
    ("text_projection.weight", "text_projection"),
)

_MAX_TEXT_LAYERS = 64


def _te2_pairs() -> list[tuple[str, str]]:
    pairs = list(_TE2_OUTER)
    for layer in range(_MAX_TEXT_LAYERS):
        model_layer = f"text_model.encoder.layers.{layer}"
        pairs += _nested(model_layer, f"transformer.resblocks.{layer}", _TE2_LAYER)
    return pairs


def _te1_pairs() -> list[tuple[str, str]]:
    names = ("embeddings", "encoder", "final_layer_norm")
    return [(name, name) for name in names]


_PAIRS = {"unet": _unet_pairs, "vae": _vae_pairs, "te1": _te1_pairs, "te2": _te2_pairs}


@cache
def _table(component: Component) -> _PrefixTable:
    return _PrefixTable(_PAIRS[component]())


_FUSED_NAMES: dict[str, Transform] = {"q_proj": "query", "k_proj": "key", "v_proj": "value"}


def _fused_mapping(name: str) -> TensorMapping | None:
    """Return the mapping of a query, key or value projection of the second text encoder."""
    head, _, kind = name.rpartition(".")
    layer, _, projection = head.rpartition(".self_attn.")
    transform = _FUSED_NAMES.get(projection)
    if transform is None or not layer.startswith("text_model.encoder.layers."):
        return None
    number = layer.rpartition(".")[2]
    key = f"{FILE_PREFIXES['te2']}transformer.resblocks.{number}.attn.in_proj_{kind}"
    return TensorMapping(name, key, transform)


def _transform_of(component: Component, name: str) -> Transform:
    if component == "te2" and name == "text_projection.weight":
        # The file's matrix is used as x @ P, the model's as x @ P.T. It is square, so no check of
        # shapes would notice.
        return "transposed"
    if component == "vae" and ".attentions.0.to_" in name and name.endswith(".weight"):
        return "conv1x1"
    return "same"


def map_name(component: Component, model_name: str) -> TensorMapping:
    """Return where the parameter ``model_name`` of a component lies in a single file.

    Raises:
        KeyError: if an SDXL model has no such parameter.
    """
    if component == "te2" and (fused := _fused_mapping(model_name)) is not None:
        return fused
    if component == "te1":
        model_name = model_name.removeprefix("text_model.")
    key = _table(component).to_file(model_name)
    if key is None:
        raise KeyError(model_name)
    return TensorMapping(
        model_name, FILE_PREFIXES[component] + key, _transform_of(component, model_name)
    )


def map_names(component: Component, model_names: Iterable[str]) -> list[TensorMapping]:
    """Return the mapping of every parameter in ``model_names``, in that order."""
    return [map_name(component, name) for name in model_names]


def map_file_key(component: Component, file_key: str) -> list[TensorMapping]:
    """Return the parameters that ``file_key`` holds: three of a fused tensor, none of a passenger.

    An empty list means that an SDXL component has no such tensor.
    """
    prefix = FILE_PREFIXES[component]
    if not file_key.startswith(prefix) or is_passenger(file_key):
        return []
    key = file_key.removeprefix(prefix)
    head, _, kind = key.partition(".attn.in_proj_")
    if component == "te2" and kind in ("weight", "bias"):
        layer = head.removeprefix("transformer.resblocks.")
        stem = f"text_model.encoder.layers.{layer}.self_attn"
        return [
            TensorMapping(f"{stem}.{projection}.{kind}", file_key, transform)
            for projection, transform in _FUSED_NAMES.items()
        ]
    name = _table(component).to_model(key)
    if name is None:
        return []
    return [TensorMapping(name, file_key, _transform_of(component, name))]


def unet_name_to_file_key(name: str) -> str:
    """Return the single-file key of the UNet parameter ``name``, as ``conv_in.weight``."""
    return map_name("unet", name).file_key


def unet_file_key_to_name(file_key: str) -> str | None:
    """Return the UNet parameter that ``file_key`` holds, or None if it holds none."""
    mappings = map_file_key("unet", file_key)
    return mappings[0].model_name if mappings else None


def shape_in_model(shape: Sequence[int], transform: Transform) -> tuple[int, ...]:
    """Return the shape a parameter has when its tensor in the file has ``shape``."""
    found = tuple(shape)
    if transform == "transposed":
        return found[::-1]
    if transform in FUSED and found and found[0] % 3 == 0:
        return (found[0] // 3, *found[1:])
    if transform == "conv1x1" and len(found) == 4 and found[2:] == (1, 1):
        return found[:2]
    return found


def file_tensors(component: Component, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``parameters`` (by model name) as the tensors of a single file (by file key).

    Fuses queries, keys and values; transposes; gives 1x1 convolutions their four dimensions.
    """
    tensors: dict[str, Tensor] = {}
    fused: dict[str, dict[Transform, Tensor]] = {}
    for name, tensor in parameters.items():
        mapping = map_name(component, name)
        if mapping.transform in FUSED:
            fused.setdefault(mapping.file_key, {})[mapping.transform] = tensor
            tensors.setdefault(mapping.file_key, tensor)
        elif mapping.transform == "transposed":
            tensors[mapping.file_key] = tensor.T.contiguous()
        elif mapping.transform == "conv1x1":
            tensors[mapping.file_key] = tensor.reshape(*tensor.shape[:2], 1, 1)
        else:
            tensors[mapping.file_key] = tensor
    for key, thirds in fused.items():
        tensors[key] = torch.cat([thirds[third] for third in FUSED])
    return tensors
