"""What a file is, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aozora.errors import ModelFileError
from aozora.model.opening import open_model
from aozora.model.source import COMPONENT_NAMES
from aozora.training.checkpointing import read_state


def inspect(path: Path) -> dict[str, Any]:
    """Return the facts of a model file, a model folder, or a state file.

    Raises:
        AozoraError: if it is none of these, or cannot be read.
    """
    if not path.exists():
        raise ModelFileError(f"{path}: there is no such file", "check the path")
    return _state_facts(path) if path.suffix == ".pt" else _model_facts(path)


def layers(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every UNet parameter of a model by its diffusers name.

    Only headers are read, so that a window can ask at every change.

    Raises:
        ModelFileError: if it is no SDXL model, or cannot be read.
    """
    with open_model(path, verify=False) as source:
        return source.unet_shapes()


def _model_facts(path: Path) -> dict[str, Any]:
    with open_model(path) as source:
        facts = source.facts
        result: dict[str, Any] = {
            "file": str(path),
            "kind": facts.kind.value,
            "layout": facts.layout,
            "size": f"{facts.num_bytes / 1e9:.2f} GB",
            "prediction": facts.prediction.prediction,
            "zero terminal SNR": facts.prediction.zero_terminal_snr,
            "known from": facts.prediction.source,
            "fingerprint": source.fingerprint(),
        }
        for component, name in COMPONENT_NAMES.items():
            part = facts.components.get(component)
            if part is None:
                result[name] = "missing"
                continue
            formats = ", ".join(f"{count} x {dtype}" for dtype, count in part.dtypes.items())
            result[name] = f"{part.num_params:,} parameters ({formats})"
        for key, value in facts.metadata.items():
            result[key] = value if len(value) <= 200 else value[:200] + "..."
        for number, note in enumerate(facts.notes, 1):
            result[f"note {number}"] = note
        return result


def _state_facts(path: Path) -> dict[str, Any]:
    state = read_state(path)
    config = state["config"]
    return {
        "file": str(path),
        "kind": "training state",
        "run": state["run_id"],
        "name": state["name"],
        "step": state["step"],
        "samples": state["samples"],
        "skipped steps": state["skipped"],
        "optimizer": state["optimizer"]["kind"],
        "trained tensors": len(state["weights"]),
        "objective": state["identity"]["objective"],
        "base model": config["model"]["base"],
        "precision": config["training"]["precision"],
        "versions": ", ".join(f"{k} {v}" for k, v in state["versions"].items()),
    }
