"""What is known of a model before its weights are read: sizes, formats, prediction type."""

from __future__ import annotations

import math
import re
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
from aozora.runtime import long_path

Prediction = Literal["epsilon", "v_prediction", "flow"]
Layout = Literal["single_file", "diffusers"]
PredictionSource = Literal["markers", "modelspec", "scheduler", "none"]

OWN_PREDICTION_KEY = "aozora.prediction"
MODELSPEC_PREDICTION_KEY = "modelspec.prediction_type"
FLOW_SHIFT_KEY = "aozora.flow_shift"
FLOW_RESOLUTION_SHIFT_KEY = "aozora.flow_resolution_shift"
SDXL_VAE_SCALING = 0.13025

# The first of these whose word is known counts. ComfyUI wrote predict_key before it had markers.
PREDICTION_KEYS = (
    OWN_PREDICTION_KEY,
    MODELSPEC_PREDICTION_KEY,
    "modelspec.predict_key",
    "prediction_type",
)

# Without regard to case and with "-" for "_" and spaces.
_WORDS: dict[str, Prediction] = {
    **dict.fromkeys(("epsilon", "eps", "epsilon-prediction"), "epsilon"),
    **dict.fromkeys(("v", "v-pred", "vpred", "v-prediction", "velocity"), "v_prediction"),
    # SwarmUI calls flow after the first model that it had it for.
    **dict.fromkeys(("flow", "flow-prediction", "rectified-flow", "sd3"), "flow"),
}
_ZERO_SNR_ENDING = re.compile(r"-z(t|ero-terminal-)?snr$")
_NAME_OF_V = re.compile(r"v[-_. ]?pred", re.IGNORECASE)
_SIDECAR_OF_V = re.compile(r"""^\s*parameterization:\s*["']?v["']?\s*$""", re.MULTILINE)
_SIDECAR_BYTES = 65_536
_SHIFTS = (0.01, 100.0)


@dataclass(frozen=True)
class PredictionFacts:
    """What a model was trained to predict, as far as its files tell.

    Attributes:
        prediction: What the UNet predicts; epsilon when nothing says otherwise.
        zero_terminal_snr: Whether its last timestep is pure noise.
        source: Where that is written: tensors ``v_pred`` and ``ztsnr``, modelspec metadata, the
            scheduler of a diffusers folder, or nowhere (``none``).
        notes: What contradicts itself, in words.
        flow_shift: The shift of a flow model; None when nothing says it.
        flow_resolution_shift: Whether it follows the picture's size; None likewise.
    """

    prediction: Prediction
    zero_terminal_snr: bool
    source: PredictionSource
    notes: tuple[str, ...] = ()
    flow_shift: float | None = None
    flow_resolution_shift: bool | None = None


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


def _meaning(word: str) -> tuple[Prediction | None, bool]:
    """Return what a word says is predicted, if it is known, and whether with zero terminal SNR."""
    plain = re.sub(r"[_ ]", "-", word.strip().lower())
    bare = _ZERO_SNR_ENDING.sub("", plain)
    prediction = _WORDS.get(bare)
    if bare != plain and prediction != "v_prediction":
        return None, False
    return prediction, bare != plain


def prediction_of_header(header: Header) -> PredictionFacts:
    """Return what the markers and metadata of a single file say it predicts."""
    notes: list[str] = []
    written, has_zero_snr = None, False
    for word in filter(None, map(header.metadata.get, PREDICTION_KEYS)):
        written, has_zero_snr = _meaning(word)
        if written is not None:
            break
        notes.append(f"the metadata names an unknown prediction type, {word!r}")
    if V_PREDICTION_MARKER in header.tensors:
        if written not in (None, "v_prediction"):
            notes.append(f"the metadata says {written}, the marker v_pred v_prediction; it counts")
        has_zero_snr = ZERO_TERMINAL_SNR_MARKER in header.tensors
        return PredictionFacts("v_prediction", has_zero_snr, "markers", tuple(notes))
    if ZERO_TERMINAL_SNR_MARKER in header.tensors:
        notes.append("the marker ztsnr stands alone; without v_pred no program heeds it")
    if written is None:
        return PredictionFacts("epsilon", False, "none", tuple(notes))
    shift, by_resolution = None, None
    if written == "flow":
        shift = _as_shift(header.metadata.get(FLOW_SHIFT_KEY))
        words = {"true": True, "false": False}
        by_resolution = words.get(header.metadata.get(FLOW_RESOLUTION_SHIFT_KEY, ""))
    return PredictionFacts(written, has_zero_snr, "modelspec", tuple(notes), shift, by_resolution)


def prediction_of_scheduler(config: Mapping[str, Any]) -> PredictionFacts:
    """Return what the scheduler's configuration of a diffusers folder says the model predicts.

    Args:
        config: Empty when the folder has no scheduler.
    """
    if not config:
        return PredictionFacts("epsilon", False, "none")
    if "FlowMatch" in str(config.get("_class_name", "")):
        # A dynamic shift is worked out from the picture's size; the number beside it is not used.
        shift = None if config.get("use_dynamic_shifting") else _as_shift(config.get("shift"))
        return PredictionFacts("flow", False, "scheduler", flow_shift=shift)
    word = str(config.get("prediction_type", "epsilon"))
    prediction, _ = _meaning(word)
    if prediction is None:
        note = f"the scheduler names an unknown prediction type, {word!r}"
        return PredictionFacts("epsilon", False, "none", (note,))
    # Some sample other models so as well, but they cannot be trained so.
    has_zero_snr = prediction == "v_prediction" and bool(config.get("rescale_betas_zero_snr"))
    return PredictionFacts(prediction, has_zero_snr, "scheduler")


def _as_shift(value: Any) -> float | None:
    """Return the shift that is written, if it is one that can be set."""
    try:
        shift = float(value)
    except (TypeError, ValueError):
        return None
    return shift if _SHIFTS[0] <= shift <= _SHIFTS[1] else None


def hint_of_v_prediction(path: Path) -> str | None:
    """Return in words what beside the file itself suggests v-prediction, if something does.

    Args:
        path: A model that does not say itself what it predicts.
    """
    sidecar = path.with_suffix(".yaml")
    try:
        with long_path(sidecar).open("rb") as file:
            text = file.read(_SIDECAR_BYTES).decode("utf-8", "replace")
    except OSError:
        text = ""
    if _SIDECAR_OF_V.search(text):
        where = f"{sidecar.name} beside it says v-prediction"
    elif _NAME_OF_V.search(path.name):
        where = "its name suggests v-prediction"
    else:
        return None
    return (
        f"nothing in {path.name} says what it predicts, but {where}; objective.prediction decides"
    )
