"""The free text entries of a saved model: what modelspec asks for, and what the base had."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from aozora.model.facts import (
    FLOW_RESOLUTION_SHIFT_KEY,
    FLOW_SHIFT_KEY,
    MODELSPEC_PREDICTION_KEY,
    OWN_PREDICTION_KEY,
    PREDICTION_KEYS,
    Prediction,
)

# True of the base's weights, no longer of ours.
_STALE = (
    "modelspec.hash_sha256",
    "modelspec.unet_dtype",
    "modelspec.date",
    "sshs_model_hash",
    "sshs_legacy_hash",
    *PREDICTION_KEYS,
    FLOW_SHIFT_KEY,
    FLOW_RESOLUTION_SHIFT_KEY,
)
_VAE_DTYPE_KEY = "modelspec.vae_dtype"


def saved_metadata(
    base: Mapping[str, str],
    prediction: Prediction,
    title: str,
    own: Mapping[str, str],
    *,
    zero_terminal_snr: bool,
    has_own_vae: bool,
) -> dict[str, str]:
    """Return the metadata of a model trained from one with ``base``.

    Args:
        base: Metadata of the base; kept but for what training made untrue.
        prediction: What the UNet predicts now.
        title: Name of the model, unless ``own`` gives one.
        own: Further entries; they outrank all others.
        zero_terminal_snr: Whether its last timestep is pure noise.
        has_own_vae: Whether the VAE is that of the base.
    """
    stale = _STALE if has_own_vae else (*_STALE, _VAE_DTYPE_KEY)
    kept = {key: value for key, value in base.items() if key not in stale}
    spec = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-xl-v1-base",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": title,
        "modelspec.resolution": kept.get("modelspec.resolution", "1024x1024"),
        "modelspec.date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        OWN_PREDICTION_KEY: prediction,
    }
    word = _modelspec_word(prediction, zero_terminal_snr)
    if word:
        spec[MODELSPEC_PREDICTION_KEY] = word
    return kept | spec | dict(own)


def _modelspec_word(prediction: Prediction, zero_terminal_snr: bool) -> str:
    """Return the word for other programs, empty where they have none that is right.

    SwarmUI samples by it, against the markers: with zero terminal SNR only if the word says so, and
    flow with a shift of 3 or not at all. Of flow, our own entry tells.
    """
    if prediction == "flow":
        return ""
    if prediction == "epsilon":
        return "epsilon"
    return "v-zsnr" if zero_terminal_snr else "v"
