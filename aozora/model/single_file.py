"""The layout of an SDXL single file: which tensor belongs to which component, and the markers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aozora.errors import ModelFileError
from aozora.model.key_map import (
    COMPONENTS,
    FILE_PREFIXES,
    Component,
    TensorMapping,
    is_passenger,
    map_file_key,
)
from aozora.model.tensor_file import StoredTensor, TensorFile

V_PREDICTION_MARKER = "v_pred"
ZERO_TERMINAL_SNR_MARKER = "ztsnr"
MARKERS = (V_PREDICTION_MARKER, ZERO_TERMINAL_SNR_MARKER)

Stored = Mapping[str, StoredTensor]

# Written by some programs in place of the usual names.
_VARIANT_PREFIXES = (
    ("conditioner.embedders.0.transformer.embeddings.", FILE_PREFIXES["te1"] + "embeddings."),
    ("conditioner.embedders.0.transformer.encoder.", FILE_PREFIXES["te1"] + "encoder."),
    (
        "conditioner.embedders.0.transformer.final_layer_norm.",
        FILE_PREFIXES["te1"] + "final_layer_norm.",
    ),
    ("vae.", FILE_PREFIXES["vae"]),
)

# Of the same matrix, as a linear layer holds it: the other way round than the usual key.
_LINEAR_TEXT_PROJECTION = "conditioner.embedders.1.model.text_projection.weight"

_IGNORED_PREFIXES = ("first_stage_model.loss.", "first_stage_model.model_ema.")

_OLD_VAE_ATTENTION = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}


@dataclass
class Collected:
    """The tensors of a file, sorted into components.

    Attributes:
        components: By component and model name; a component without tensors is absent.
        extra_keys: Keys that belong to no component; they come through to what is written.
        unexpected_keys: Keys inside a component that SDXL does not have.
    """

    components: dict[Component, dict[str, StoredTensor]] = field(default_factory=dict)
    extra_keys: list[str] = field(default_factory=list)
    unexpected_keys: list[str] = field(default_factory=list)

    def add(self, component: Component, name: str, stored: StoredTensor) -> None:
        """Note that the parameter ``name`` of ``component`` lies at ``stored``."""
        held = self.components.setdefault(component, {})
        if name in held:
            raise ModelFileError(
                f"{stored.file.path} holds {held[name].key} and {stored.key}, "
                f"both for the parameter {name}"
            )
        held[name] = stored


def canonical_key(key: str) -> str:
    """Return the usual name of a tensor that some programs name differently."""
    for variant, usual in _VARIANT_PREFIXES:
        if key.startswith(variant):
            return usual + key.removeprefix(variant)
    return key


def component_of(key: str) -> Component | None:
    """Return the component that a usual file key belongs to, by its prefix."""
    return next((c for c in COMPONENTS if key.startswith(FILE_PREFIXES[c])), None)


def _mappings(component: Component, key: str) -> list[TensorMapping]:
    if key == _LINEAR_TEXT_PROJECTION:
        return [TensorMapping("text_projection.weight", key, "same")]
    return map_file_key(component, key)


def collect_single_file(file: TensorFile) -> Collected:
    """Sort the tensors of a single file into components."""
    collected = Collected()
    for key in file.header.tensors:
        usual = canonical_key(key)
        component = component_of(usual)
        if is_passenger(usual) or key in MARKERS:
            continue
        if component is None or usual.startswith(_IGNORED_PREFIXES):
            collected.extra_keys.append(key)
            continue
        mappings = _mappings(component, usual)
        if not mappings:
            collected.unexpected_keys.append(key)
        for mapping in mappings:
            stored = StoredTensor(file, key, mapping.transform)
            collected.add(component, mapping.model_name, stored)
    return collected


def model_name_in_folder(component: Component, key: str) -> str:
    """Return the model name of a key in a diffusers folder, of any release."""
    if component == "te1":
        return key.removeprefix("text_model.")
    if component == "vae" and ".attentions." in key:
        for old, new in _OLD_VAE_ATTENTION.items():
            key = key.replace(old, new)
    return key


def collect_model_names(component: Component, file: TensorFile, collected: Collected) -> None:
    """Sort the tensors of a file in diffusers' or transformers' own naming into ``collected``."""
    for key in file.header.tensors:
        name = model_name_in_folder(component, key)
        if name.endswith(("embeddings.position_ids", "logit_scale")):
            continue
        is_attention = component == "vae" and ".attentions.0.to_" in name
        convolved = is_attention and name.endswith(".weight")
        stored = StoredTensor(file, key, "conv1x1" if convolved else "same")
        collected.add(component, name, stored)


def collect_vae(file: TensorFile) -> Stored:
    """Return the VAE of a file that holds one: alone in any naming, or beside a whole model.

    Raises:
        ModelFileError: if there is none.
    """
    keys = file.header.tensors.keys()
    collected = Collected()
    if any(key.startswith(("first_stage_model.", "vae.")) for key in keys):
        collected = collect_single_file(file)
    elif any(key.startswith("encoder.down_blocks.") for key in keys):
        collect_model_names("vae", file, collected)
    elif "encoder.conv_in.weight" in keys:
        for key in keys:
            for mapping in map_file_key("vae", FILE_PREFIXES["vae"] + key):
                stored = StoredTensor(file, key, mapping.transform)
                collected.add("vae", mapping.model_name, stored)
    if "vae" not in collected.components:
        raise ModelFileError(f"{file.path} holds no VAE", "name a file with an SDXL VAE")
    return collected.components["vae"]
