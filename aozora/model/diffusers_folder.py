"""A model as a diffusers folder: a subfolder for each component, with its .safetensors files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aozora.errors import ModelFileError
from aozora.model.key_map import COMPONENTS, Component
from aozora.model.single_file import Collected, collect_model_names
from aozora.model.tensor_file import TensorFile

SUBFOLDERS: dict[Component, str] = {
    "unet": "unet",
    "vae": "vae",
    "te1": "text_encoder",
    "te2": "text_encoder_2",
}
_STEMS: dict[Component, str] = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "te1": "model",
    "te2": "model",
}
_VARIANTS = ("", ".fp16", ".bf16")


def read_json(path: Path) -> dict[str, Any]:
    """Return the table in a JSON file.

    Raises:
        ModelFileError: if it is missing, unreadable or no table.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path} does not hold a table of settings")
    return value


def collect_folder(folder: Path) -> tuple[Collected, list[TensorFile]]:
    """Sort the tensors of a whole diffusers folder into components.

    Raises:
        ModelFileError: if it is no folder of an SDXL model.
    """
    if not (folder / "model_index.json").is_file():
        raise ModelFileError(
            f"{folder} has no model_index.json, so it is no diffusers model folder",
            "name a .safetensors file, or the folder that holds unet, vae and the text encoders",
        )
    collected = Collected()
    files: list[TensorFile] = []
    for component in COMPONENTS:
        subfolder = folder / SUBFOLDERS[component]
        if subfolder.is_dir():
            files += collect_component(component, subfolder, collected)
    return collected, files


def collect_component(component: Component, folder: Path, collected: Collected) -> list[TensorFile]:
    """Sort the tensors in the folder of one component into ``collected``; return its files."""
    files = [TensorFile(path) for path in _weight_files(component, folder)]
    for file in files:
        collect_model_names(component, file, collected)
    return files


def _weight_files(component: Component, folder: Path) -> Iterator[Path]:
    for variant in _VARIANTS:
        stem = f"{_STEMS[component]}{variant}"
        single = folder / f"{stem}.safetensors"
        index = folder / f"{_STEMS[component]}.safetensors.index{variant}.json"
        if single.is_file():
            yield single
            return
        if index.is_file():
            yield from _sharded(index)
            return
    if any(folder.glob("*.bin")):
        raise ModelFileError(
            f"{folder} holds only .bin files",
            "convert them to .safetensors; files that can run code when opened are never read",
        )
    raise ModelFileError(f"{folder} holds no {_STEMS[component]}.safetensors")


def _sharded(index: Path) -> Iterator[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFileError(f"{index} names no files of weights")
    for name in dict.fromkeys(weight_map.values()):
        # A name with a folder in it could point anywhere.
        if not isinstance(name, str) or Path(name).name != name or "\\" in name:
            raise ModelFileError(f"{index} names {name!r}, which is not a file beside it")
        yield index.parent / name
