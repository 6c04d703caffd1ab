"""What a file or folder that is dropped on the window is; free of Qt."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

DropKind = Literal["config", "state", "model", "pictures", "run", "unknown"]

_MODEL_PARTS = ("model_index.json", "unet")


def kind_of_drop(path: Path) -> DropKind:
    """Return what ``path`` is, by its name and what lies in it; nothing is read."""
    if path.is_dir():
        return _kind_of_folder(path)
    if not path.is_file():
        return "unknown"
    suffix = path.suffix.lower()
    if suffix == ".json":
        return "config"
    if suffix == ".pt":
        return "state"
    return "model" if suffix == ".safetensors" else "unknown"


def _kind_of_folder(path: Path) -> DropKind:
    if any((path / part).exists() for part in _MODEL_PARTS):
        return "model"
    if (path / "run.json").is_file():
        return "run"
    return "pictures"
