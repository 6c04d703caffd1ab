"""Presets: sparse sets of settings laid over the defaults.

A preset is a JSON file with ``schema``, ``about`` (``title``, ``description``) and any settings of
a configuration. It holds no paths: model, pictures and output are the user's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from aozora.config.codec import decode_config, encode_config, overlay, parse_json, read_json
from aozora.config.schema import SCHEMA_VERSION, TrainConfig
from aozora.errors import ConfigError, Problem
from aozora.registry import did_you_mean
from aozora.runtime import config_folder


@dataclass(frozen=True)
class Preset:
    """One preset.

    Attributes:
        name: What it is asked for by.
        title: What users read.
        description: What it is for.
        settings: The settings it changes, as plain JSON.
        path: The file, or None for those that come with the program.
    """

    name: str
    title: str
    description: str
    settings: Mapping[str, Any]
    path: Path | None = None

    def applied_to(self, config: TrainConfig) -> TrainConfig:
        """Return ``config`` with this preset's settings."""
        return decode_config(overlay(encode_config(config), self.settings))


def parse_preset(name: str, data: Any, path: Path | None = None) -> Preset:
    """Return the preset that ``data`` describes, with its settings checked.

    Raises:
        ConfigError: when it is not a preset or its settings have faults.
    """
    about = data.get("about") if isinstance(data, Mapping) else None
    found = (about.get("title"), about.get("description")) if isinstance(about, Mapping) else ()
    texts = [text for text in found if isinstance(text, str)]
    if len(texts) != 2:
        raise ConfigError([Problem("", f"preset {name}: needs about.title and about.description")])
    settings = {key: value for key, value in data.items() if key != "about"}
    settings.setdefault("schema", SCHEMA_VERSION)
    decode_config(settings)
    return Preset(name, texts[0], texts[1], settings, path)


def load_preset(path: Path) -> Preset:
    """Return the preset in the file ``path``.

    Raises:
        ConfigError: when it cannot be read or has faults.
    """
    return parse_preset(path.stem, read_json(path), path)


def shipped_presets() -> dict[str, Preset]:
    """Return the presets that come with the program, by name."""
    found = {}
    for entry in sorted(resources.files("aozora.presets_data").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".json"):
            name = entry.name.removesuffix(".json")
            found[name] = parse_preset(name, parse_json(entry.read_text(encoding="utf-8")))
    return found


def user_preset_files() -> list[Path]:
    """Return the preset files in the user's own preset folder."""
    folder = config_folder() / "presets"
    return sorted(folder.glob("*.json")) if folder.is_dir() else []


def find_preset(name: str) -> Preset:
    """Return the preset called ``name``: the user's own first, then those that come along.

    Raises:
        ConfigError: when there is none of that name, or it has faults.
    """
    for path in user_preset_files():
        if path.stem == name:
            return load_preset(path)
    shipped = shipped_presets()
    if name in shipped:
        return shipped[name]
    known = [*shipped, *(path.stem for path in user_preset_files())]
    remedy = did_you_mean(name, known) or f"there are: {', '.join(known)}"
    raise ConfigError([Problem("", f"there is no preset {name!r}", remedy)])
