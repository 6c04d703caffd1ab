"""The free text entries of a saved model: what modelspec asks for, and what the base had."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from aozora.model.facts import MODELSPEC_PREDICTION_KEY, OWN_PREDICTION_KEY, Prediction

_MODELSPEC_WORDS: dict[Prediction, str] = {
    "epsilon": "epsilon",
    "v_prediction": "v",
    "flow": "flow",
}

# True of the base's weights, no longer of ours.
_STALE = (
    "modelspec.hash_sha256",
    "modelspec.unet_dtype",
    "modelspec.date",
    "sshs_model_hash",
    "sshs_legacy_hash",
    OWN_PREDICTION_KEY,
    "aozora.flow_shift",
)


def saved_metadata(
    base: Mapping[str, str], prediction: Prediction, title: str, own: Mapping[str, str]
) -> dict[str, str]:
    """Return the metadata of a model trained from one with ``base``.

    Args:
        base: Metadata of the base; kept but for what training made untrue.
        prediction: What the UNet predicts now.
        title: Name of the model, unless ``own`` gives one.
        own: Further entries; they outrank all others.
    """
    kept = {key: value for key, value in base.items() if key not in _STALE}
    spec = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-xl-v1-base",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": title,
        "modelspec.resolution": kept.get("modelspec.resolution", "1024x1024"),
        "modelspec.date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        MODELSPEC_PREDICTION_KEY: _MODELSPEC_WORDS[prediction],
        # No program reads a marker for flow, so ours is the only one that says it for certain.
        OWN_PREDICTION_KEY: prediction,
    }
    return kept | spec | dict(own)
