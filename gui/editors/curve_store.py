"""Curves the user keeps: one small file each in the user's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aozora.config.codec import read_json
from aozora.config.lr_schedule import LrSchedule
from aozora.errors import ConfigError, Problem
from aozora.runtime import config_folder, is_safe_name, write_json_atomic


def curves_folder() -> Path:
    """Return the folder the user's curves are in."""
    return config_folder() / "curves"


def kept_curves() -> list[str]:
    """Return the names of the user's curves."""
    folder = curves_folder()
    return sorted(path.stem for path in folder.glob("*.json")) if folder.is_dir() else []


def keep_curve(name: str, schedule: LrSchedule) -> Path:
    """Keep ``schedule`` as ``name``, in the place of one of that name; return its file.

    Raises:
        ValueError: if the name cannot be part of a file name.
        OSError: if the file cannot be written.
    """
    if not is_safe_name(name):
        raise ValueError("use letters, digits, spaces, '.', '-' and '_' in the name")
    path = curves_folder() / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(path, {"learning_rate": schedule.to_json()})
    return path


def read_curve(path: Path) -> LrSchedule:
    """Return the curve in a kept file, a configuration or a preset.

    Raises:
        ConfigError: if the file cannot be read or holds no curve.
    """
    data = read_json(path)
    try:
        schedule = LrSchedule.from_json(_points(data))
    except (KeyError, TypeError, ValueError) as error:
        reason = "no learning-rate curve in it" if isinstance(error, KeyError) else str(error)
        raise ConfigError([Problem("", f"{path.name}: {reason}", "choose another file")]) from error
    for issue in schedule.validate():
        if issue.severity == "error":
            raise ConfigError([Problem("", f"{path.name}: {issue.text}", issue.fix)])
    return schedule


def _points(data: Any) -> Any:
    if isinstance(data, dict):
        if "learning_rate" in data:
            return data["learning_rate"]
        if isinstance(data.get("schedule"), dict) and "learning_rate" in data["schedule"]:
            return data["schedule"]["learning_rate"]
    raise KeyError("learning_rate")
