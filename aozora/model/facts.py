"""What is known of a model before its weights are read: sizes, formats, prediction type."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from aozora.model.identify import ModelKind
from aozora.model.key_map import Component
from aozora.model.safetensors_header import Header
from aozora.model.single_file import V_PREDICTION_MARKER, ZERO_TERMINAL_SNR_MARKER, Stored
from aozora.model.sizes import Config

Prediction = Literal["epsilon", "v_prediction", "flow"]
Layout = Literal["single_file", "diffusers"]
PredictionSource = Literal["markers", "modelspec", "scheduler", "none"]

OWN_PREDICTION_KEY = "aozora.prediction"
MODELSPEC_PREDICTION_KEY = "modelspec.prediction_type"
SDXL_VAE_SCALING = 0.13025

_WORDS: dict[str, Prediction] = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
    "v-prediction": "v_prediction",
    "flow": "flow",
    "flow_prediction": "flow",
}


@dataclass(frozen=True)
class PredictionFacts:
    """What a model was trained to predict, as far as its files tell.

    Attributes:
        prediction: What the UNet predicts; epsilon when nothing says otherwise.
        zero_terminal_snr: Whether its last timestep is pure noise.
        source: Where that is written: tensors ``v_pred`` and ``ztsnr``, modelspec metadata, the
            scheduler of a diffusers folder, or nowhere (``none``).
        notes: What contradicts itself, in words.
    """

    prediction: Prediction
    zero_terminal_snr: bool
    source: PredictionSource
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ComponentFacts:
    """One component of a model.

    Attributes:
        path: The file or folder it comes from.
        config: Its configuration, derived from the shapes.
        num_params: How many numbers it holds.
        dtypes: Number of tensors by number format.
    """

    path: Path
    config: Config
    num_params: int
    dtypes: Mapping[str, int]


@dataclass(frozen=True)
class ModelFacts:
    """Everything known of a model without reading its weights.

    Attributes:
        path: The base as the user named it.
        layout: A single file or a diffusers folder.
        kind: What it is.
        prediction: What it was trained to predict.
        components: What there is of UNet, VAE and both text encoders, wherever it comes from.
        vae_scaling_factor: What latents are multiplied by.
        metadata: Free text entries of a single file.
        extra_keys: Tensors that belong to no component.
        num_bytes: Size of the base on the disk.
        header_hash: Hash of the base's headers.
        notes: What the user should know, in words.
    """

    path: Path
    layout: Layout
    kind: ModelKind
    prediction: PredictionFacts
    components: Mapping[Component, ComponentFacts]
    vae_scaling_factor: float
    metadata: Mapping[str, str]
    extra_keys: tuple[str, ...]
    num_bytes: int
    header_hash: str
    notes: tuple[str, ...]

    @property
    def has_vae(self) -> bool:
        """Whether a VAE is there."""
        return "vae" in self.components

    @property
    def has_te1(self) -> bool:
        """Whether the first text encoder is there."""
        return "te1" in self.components

    @property
    def has_te2(self) -> bool:
        """Whether the second text encoder is there."""
        return "te2" in self.components


def component_facts(path: Path, tensors: Stored, config: Config) -> ComponentFacts:
    """Return the facts of a component that consists of ``tensors``."""
    return ComponentFacts(
        path=path,
        config=config,
        num_params=sum(math.prod(stored.shape) for stored in tensors.values()),
        dtypes=dict(Counter(stored.dtype for stored in tensors.values())),
    )


def prediction_of_header(header: Header) -> PredictionFacts:
    """Return what the markers and metadata of a single file say it predicts."""
    word = header.metadata.get(OWN_PREDICTION_KEY) or header.metadata.get(MODELSPEC_PREDICTION_KEY)
    written = _WORDS.get(word.strip().lower()) if word else None
    notes: list[str] = []
    if word and written is None:
        notes.append(f"the metadata names an unknown prediction type, {word!r}")
    if V_PREDICTION_MARKER in header.tensors:
        if written not in (None, "v_prediction"):
            notes.append(f"the metadata says {written}, the marker v_pred v_prediction; it counts")
        has_zero_snr = ZERO_TERMINAL_SNR_MARKER in header.tensors
        return PredictionFacts("v_prediction", has_zero_snr, "markers", tuple(notes))
    if ZERO_TERMINAL_SNR_MARKER in header.tensors:
        notes.append("the marker ztsnr stands alone; without v_pred no program heeds it")
    if written is not None:
        return PredictionFacts(written, False, "modelspec", tuple(notes))
    return PredictionFacts("epsilon", False, "none", tuple(notes))


def prediction_of_scheduler(config: Mapping[str, Any]) -> PredictionFacts:
    """Return what the scheduler's configuration of a diffusers folder says the model predicts."""
    if "FlowMatch" in str(config.get("_class_name", "")):
        return PredictionFacts("flow", False, "scheduler")
    word = str(config.get("prediction_type", "epsilon"))
    prediction = _WORDS.get(word)
    if prediction is None:
        note = f"the scheduler names an unknown prediction type, {word!r}"
        return PredictionFacts("epsilon", False, "none", (note,))
    return PredictionFacts(prediction, bool(config.get("rescale_betas_zero_snr")), "scheduler")
