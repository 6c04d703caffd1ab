"""Opening a model as the user named it: a base, perhaps with parts from elsewhere.

Only headers are read here. What comes back knows where every parameter lies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from aozora.errors import ModelFileError
from aozora.model.diffusers_folder import (
    SUBFOLDERS,
    collect_component,
    collect_folder,
    read_json,
)
from aozora.model.facts import (
    SDXL_VAE_SCALING,
    ComponentFacts,
    Layout,
    ModelFacts,
    PredictionFacts,
    component_facts,
    hint_of_v_prediction,
    prediction_of_header,
    prediction_of_scheduler,
)
from aozora.model.identify import ModelKind, identify, refuse_kind, unet_channels
from aozora.model.key_map import Component
from aozora.model.single_file import Collected, Stored, collect_single_file, collect_vae
from aozora.model.sizes import derive_config, pooled_width
from aozora.model.source import COMPONENT_NAMES, ModelSource, listed
from aozora.model.tensor_file import FLOAT_DTYPES, TensorFile

LATENT_CHANNELS = 4


def open_model(
    base: Path | str,
    vae: Path | str | None = None,
    text_encoders: Path | str | None = None,
    *,
    verify: bool = True,
) -> ModelSource:
    """Open an SDXL model: read its headers, find out what it is and where everything lies.

    Args:
        base: A single .safetensors file, or a diffusers folder.
        vae: Another file or folder to take the VAE from; None or empty for the base's own.
        text_encoders: Another file or folder to take both text encoders from; empty likewise.
        verify: Also compare every name and shape with what a model of these sizes has. Takes the
            seconds that importing the models takes; without, only what decides sizes is checked.

    Raises:
        ModelFileError: if it is something else, damaged, or its parts do not fit together.
    """
    base = Path(base)
    collected, files, template = _open_base(base)
    base_files = tuple(files)
    if collected.unexpected_keys:
        # Quantised models come with keys of their own.
        for component, held in collected.components.items():
            _refuse_formats(component, base, held)
        raise ModelFileError(
            f"{base} has tensors that no SDXL model has:\n  " + listed(collected.unexpected_keys),
            "it may be another architecture; use an SDXL base model",
        )
    tensors: dict[Component, Stored] = dict(collected.components)
    paths: dict[Component, Path] = dict.fromkeys(tensors, base)
    if "unet" not in tensors:
        raise ModelFileError(f"{base} has no UNet", "name an SDXL base model in model.base")
    if vae:
        found, more = _open_vae(Path(vae))
        tensors["vae"], paths["vae"] = found, Path(vae)
        files += more
    if text_encoders:
        pair, more = _open_text_encoders(Path(text_encoders))
        tensors |= pair
        paths |= dict.fromkeys(pair, Path(text_encoders))
        files += more
    components = {c: _describe(c, paths[c], held) for c, held in tensors.items()}
    _check_fit(components)
    facts = _facts(base, base_files, files, template, collected, components)
    source = ModelSource(facts, tensors, files, template, base_files)
    for component in tensors if verify else ():
        source.verify(component)
    return source


def _open_base(base: Path) -> tuple[Collected, list[TensorFile], TensorFile | None]:
    if base.is_dir():
        collected, files = collect_folder(base)
        # An EDM model has the tensors of plain SDXL; only the scheduler tells it apart.
        if "EDM" in str(_scheduler_config(base).get("_class_name", "")):
            raise refuse_kind(base, ModelKind.PLAYGROUND)
        return collected, files, None
    file = TensorFile(base)
    kind = identify(file.header)
    if kind is not ModelKind.SDXL:
        taken, given = unet_channels(file.header)
        detail = f"its UNet has {taken} input and {given} output channels" if taken else ""
        raise refuse_kind(base, kind, detail if kind is ModelKind.SDXL_OTHER_LATENTS else "")
    return collect_single_file(file), [file], file


def _open_vae(path: Path) -> tuple[Stored, list[TensorFile]]:
    if path.is_dir():
        collected = Collected()
        folder = path / SUBFOLDERS["vae"] if (path / "model_index.json").is_file() else path
        files = collect_component("vae", folder, collected)
        return collected.components["vae"], files
    file = TensorFile(path)
    return collect_vae(file), [file]


def _open_text_encoders(path: Path) -> tuple[dict[Component, Stored], list[TensorFile]]:
    if path.is_dir():
        collected, files = collect_folder(path)
    else:
        file = TensorFile(path)
        collected, files = collect_single_file(file), [file]
    pair: tuple[Component, Component] = ("te1", "te2")
    for component in pair:
        if component not in collected.components:
            raise ModelFileError(
                f"{path} has no {COMPONENT_NAMES[component]}",
                "name an SDXL model that holds both text encoders in model.text_encoders",
            )
    return {c: collected.components[c] for c in pair}, files


def _describe(component: Component, path: Path, tensors: Stored) -> ComponentFacts:
    _refuse_formats(component, path, tensors)
    shapes = {name: stored.shape for name, stored in tensors.items()}
    try:
        return component_facts(path, tensors, derive_config(component, shapes))
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error.message}", error.hint) from error


def _refuse_formats(component: Component, path: Path, tensors: Stored) -> None:
    odd = [s for s in tensors.values() if s.dtype not in FLOAT_DTYPES]
    if odd:
        raise ModelFileError(
            f"{path}: {len(odd)} tensors of the {COMPONENT_NAMES[component]} are in the format "
            f"{odd[0].dtype}, such as {odd[0].key}",
            "quantised models cannot be trained; use a float16, bfloat16 or float32 version",
        )


def _check_fit(components: Mapping[Component, ComponentFacts]) -> None:
    """Raise unless the components can work together."""
    unet = components["unet"]
    taken, given = unet.config["in_channels"], unet.config["out_channels"]
    if (taken, given) == (9, LATENT_CHANNELS):
        raise refuse_kind(unet.path, ModelKind.SDXL_INPAINTING)
    if (taken, given) != (LATENT_CHANNELS, LATENT_CHANNELS):
        detail = f"its UNet has {taken} input and {given} output channels"
        raise refuse_kind(unet.path, ModelKind.SDXL_OTHER_LATENTS, detail)
    vae = components.get("vae")
    if vae is not None and vae.config["latent_channels"] != LATENT_CHANNELS:
        raise ModelFileError(
            f"{vae.path} has a VAE with {vae.config['latent_channels']} latent channels",
            "SDXL's VAE has 4; name one in model.vae",
        )
    te1, te2 = components.get("te1"), components.get("te2")
    if te1 is None or te2 is None:
        return
    width = te1.config["hidden_size"] + te2.config["hidden_size"]
    if unet.config["cross_attention_dim"] != width:
        raise ModelFileError(
            f"the text encoders of {te1.path} are {width} wide together, "
            f"the UNet takes {unet.config['cross_attention_dim']}",
            "use the text encoders of an SDXL model",
        )
    if pooled_width(unet.config) != te2.config["projection_dim"]:
        raise ModelFileError(
            f"the pooled text embedding of {te2.path} is {te2.config['projection_dim']} wide, "
            f"the UNet takes {pooled_width(unet.config)}",
            "use the text encoders of an SDXL model",
        )


def _facts(
    base: Path,
    base_files: Sequence[TensorFile],
    files: Sequence[TensorFile],
    template: TensorFile | None,
    collected: Collected,
    components: Mapping[Component, ComponentFacts],
) -> ModelFacts:
    layout: Layout = "diffusers" if template is None else "single_file"
    prediction = (
        prediction_of_header(template.header)
        if template
        else prediction_of_scheduler(_scheduler_config(base))
    )
    hint = hint_of_v_prediction(base) if prediction.source == "none" else None
    if hint:
        prediction = replace(prediction, notes=(*prediction.notes, hint))
    digest = hashlib.blake2b(digest_size=16)
    for file in base_files:
        digest.update(file.stamp.header_hash.encode())
    return ModelFacts(
        path=base,
        layout=layout,
        kind=ModelKind.SDXL,
        prediction=prediction,
        components=components,
        vae_scaling_factor=_vae_scaling(components),
        metadata=dict(template.header.metadata) if template else {},
        extra_keys=tuple(collected.extra_keys),
        num_bytes=sum(file.stamp.num_bytes for file in base_files),
        header_hash=digest.hexdigest(),
        notes=tuple(_notes(files, collected, components, prediction)),
    )


def _notes(
    files: Sequence[TensorFile],
    collected: Collected,
    components: Mapping[Component, ComponentFacts],
    prediction: PredictionFacts,
) -> list[str]:
    notes = list(prediction.notes)
    for file in files:
        if file.header.trailing_bytes:
            count = file.header.trailing_bytes
            notes.append(f"{file.path.name}: {count} bytes after the last tensor are left out")
    averaged = [key for key in collected.extra_keys if key.startswith("model_ema.")]
    others = [key for key in collected.extra_keys if not key.startswith("model_ema.")]
    if averaged:
        notes.append(f"{len(averaged)} averaged weights (model_ema.) are kept but not trained")
    if others:
        shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        notes.append(f"{len(others)} tensors of no known component are kept: {shown}")
    missing = [COMPONENT_NAMES[c] for c in COMPONENT_NAMES if c not in components]
    if missing:
        notes.append("missing: " + ", ".join(missing))
    return notes


def _scheduler_config(folder: Path) -> dict[str, Any]:
    """Return the scheduler's configuration of a diffusers folder; empty when it has none."""
    path = folder / "scheduler" / "scheduler_config.json"
    return read_json(path) if path.is_file() else {}


def _vae_scaling(components: Mapping[Component, ComponentFacts]) -> float:
    """Return the scaling factor: SDXL's, unless a diffusers folder names its own."""
    vae = components.get("vae")
    if vae is None or not vae.path.is_dir():
        return SDXL_VAE_SCALING
    subfolder = vae.path / SUBFOLDERS["vae"]
    path = (subfolder if subfolder.is_dir() else vae.path) / "config.json"
    value = read_json(path).get("scaling_factor") if path.is_file() else None
    return float(value) if isinstance(value, int | float) else SDXL_VAE_SCALING
