"""A local folder of configurations, with which diffusers loads our single files offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aozora.model.diffusers_folder import SUBFOLDERS
from aozora.model.facts import Prediction
from aozora.model.sizes import packaged_config
from aozora.model.source import ModelSource
from aozora.model.tokenizers import ClipTokenizer
from aozora.runtime import write_json_atomic

_PREDICTION_WORDS: dict[Prediction, str] = {
    "epsilon": "epsilon",
    "v_prediction": "v_prediction",
    # No scheduler of this family samples flow models; the UNet is shaped like an epsilon one.
    "flow": "epsilon",
}


def write_diffusers_config_folder(
    source: ModelSource, folder: Path, tokenizer: ClipTokenizer
) -> None:
    """Write what ``from_single_file(file, config=folder)`` needs for a model of these sizes.

    That is model_index.json, the configurations of all components the model has, the scheduler
    with the model's prediction type, and both tokenizers.
    """
    write_json_atomic(folder / "model_index.json", packaged_config("model_index.json"))
    for component, facts in source.facts.components.items():
        write_json_atomic(folder / SUBFOLDERS[component] / "config.json", facts.config)
    write_json_atomic(folder / "scheduler" / "scheduler_config.json", _scheduler(source))
    tokenizer.write_folder(folder / "tokenizer")
    tokenizer.write_folder(folder / "tokenizer_2", second=True)


def _scheduler(source: ModelSource) -> dict[str, Any]:
    facts = source.facts.prediction
    config = packaged_config("scheduler_config.json")
    config["prediction_type"] = _PREDICTION_WORDS[facts.prediction]
    if facts.zero_terminal_snr:
        # Sampling must then begin at the last timestep, or the model never sees pure noise.
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return config
