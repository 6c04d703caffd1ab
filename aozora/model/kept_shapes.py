"""Shapes of a model's parameters, kept on disk.

To ask a model for them its packages must be imported, which takes seconds; a check that is asked at
every change of a setting has none to spare.
"""

from __future__ import annotations

import hashlib
import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aozora.runtime import cache_folder, write_json_atomic

log = logging.getLogger(__name__)

_PACKAGES = ("diffusers", "transformers")

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


def shapes_file(component: str, config: object) -> Path:
    """Return where shapes are kept: by configuration, and by the packages that made the model."""
    known = [component, config, *map(version, _PACKAGES)]
    key = hashlib.blake2b(json.dumps(known).encode(), digest_size=16).hexdigest()
    return cache_folder() / "shapes" / f"{key}.json"


def read_shapes(path: Path) -> Shapes | None:
    """Return the shapes in ``path``; None if they are not there or cannot be read."""
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("Shapes are made again: %s cannot be read: %s", path, error)
        return None


def write_shapes(path: Path, shapes: Shapes) -> None:
    """Keep ``shapes`` in ``path``, if it can be written."""
    try:
        write_json_atomic(path, shapes, sync=False)
    except OSError as error:
        log.warning("Could not keep the shapes in %s: %s", path, error)


def _parse(found: Any) -> Shapes:
    try:
        shapes = tuple((str(name), tuple(map(int, shape))) for name, shape in found)
    except TypeError as error:
        raise ValueError("this is no list of shapes") from error
    if not shapes:
        raise ValueError("the list of shapes is empty")
    return shapes
