"""Saving a run so that it can be resumed to the same bits, and never leaving half a save behind.

A save is three files: the model (``.safetensors``), the state (``.pt``) and a manifest (``.json``)
with the sizes and checksums of both. The manifest is written last and is what makes the save count.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from aozora.errors import CheckpointError, SaveError
from aozora.runtime import atomic_path, long_path, write_json_atomic

log = logging.getLogger(__name__)

STATE_FORMAT = "aozora-training-state"
STATE_VERSION = 1
_BLOCK_BYTES = 8 * 2**20
_STEP = re.compile(r"_step_(\d{6,})$")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What makes a save valid.

    Attributes:
        name: Stem of the three files.
        saved_at: Seconds since 1970.
    """

    name: str
    run_id: str
    step: int
    saved_at: float
    model_bytes: int
    model_crc32: int
    state_bytes: int
    state_crc32: int
    format: str = "aozora-checkpoint"
    version: int = 1


@dataclass(frozen=True)
class SavedCheckpoint:
    """A committed save on disk."""

    folder: Path
    manifest: Manifest

    @property
    def model(self) -> Path:
        """The model file."""
        return self.folder / f"{self.manifest.name}.safetensors"

    @property
    def state(self) -> Path:
        """The training state."""
        return self.folder / f"{self.manifest.name}.pt"

    @property
    def manifest_path(self) -> Path:
        """The manifest."""
        return self.folder / f"{self.manifest.name}.json"


def crc32_of(path: Path) -> int:
    """Return the crc32 of the file ``path``."""
    value = 0
    with long_path(path).open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            value = zlib.crc32(block, value)
    return value


def checkpoint_stem(name: str, step: int) -> str:
    """Return the common stem of the files of one save."""
    return f"{name}_step_{step:06d}"


def save_checkpoint(
    folder: Path,
    name: str,
    run_id: str,
    step: int,
    *,
    state: Mapping[str, Any],
    write_model: Callable[[Path], None],
) -> SavedCheckpoint:
    """Write state, model and manifest, in this order; only the manifest makes them count.

    Args:
        folder: The ``checkpoints`` folder; made if missing.
        name: The run's name.
        run_id: The run's identity.
        step: Optimizer steps done.
        state: Plain values and tensors.
        write_model: Writes the model file to the path it is given, atomically.

    Raises:
        SaveError: if a file cannot be written; an older save of this step is then void but no
            other save is touched.
    """
    stem = checkpoint_stem(name, step)
    model, state_path = folder / f"{stem}.safetensors", folder / f"{stem}.pt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A manifest of an earlier save of the same step would vouch for files about to be replaced.
        (folder / f"{stem}.json").unlink(missing_ok=True)
        _write_state(state_path, state)
        write_model(model)
        manifest = Manifest(
            name=stem,
            run_id=run_id,
            step=step,
            saved_at=time.time(),
            model_bytes=model.stat().st_size,
            model_crc32=crc32_of(model),
            state_bytes=state_path.stat().st_size,
            state_crc32=crc32_of(state_path),
        )
        write_json_atomic(folder / f"{stem}.json", asdict(manifest))
    except (OSError, RuntimeError) as error:
        # torch reports a full disk while it writes as a RuntimeError.
        raise SaveError(
            f"{folder / stem}: the save could not be written: {error}",
            "free disk space or choose another output folder; earlier saves are untouched",
        ) from error
    return SavedCheckpoint(folder, manifest)


def _write_state(path: Path, state: Mapping[str, Any]) -> None:
    with atomic_path(path) as partial, partial.open("wb") as file:
        # Through a file object, since a path would put its own name into the archive.
        torch.save(dict(state), file)


def read_state(path: Path) -> dict[str, Any]:
    """Return the training state in ``path``; tensors are mapped from the file, nothing is executed.

    Raises:
        CheckpointError: if the file is missing, damaged, or not a state of this program.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such state file")
    _verify_against_manifest(path)
    try:
        state = torch.load(long_path(path), map_location="cpu", weights_only=True, mmap=True)
    except (
        RuntimeError,
        OSError,
        ValueError,
        EOFError,
        KeyError,
        UnpicklingError,
        zipfile.BadZipFile,
    ) as error:
        raise CheckpointError(
            f"{path}: is not a readable training state", "choose another .pt file"
        ) from error
    if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
        raise CheckpointError(f"{path}: is not a training state of Aozora", "choose its .pt file")
    if state.get("version") != STATE_VERSION:
        raise CheckpointError(
            f"{path}: state version {state.get('version')!r} is not known",
            f"this program reads version {STATE_VERSION}",
        )
    return state


def _verify_against_manifest(path: Path) -> None:
    manifest_path = path.with_suffix(".json")
    if not manifest_path.is_file():
        log.warning("%s has no manifest beside it; its checksum is not verified", path)
        return
    manifest = _read_manifest(manifest_path)
    if manifest is None:
        log.warning("%s is not a readable manifest; the checksum is not verified", manifest_path)
        return
    if path.stat().st_size != manifest.state_bytes or crc32_of(path) != manifest.state_crc32:
        raise CheckpointError(
            f"{path}: is damaged (its checksum is not the one in {manifest_path.name})",
            "resume from an earlier state",
        )


def _read_manifest(path: Path) -> Manifest | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Manifest(**data)
    except (OSError, ValueError, TypeError):
        return None


def list_checkpoints(folder: Path) -> list[SavedCheckpoint]:
    """Return the committed saves in ``folder`` whose files are all there, oldest first."""
    found = list(_committed(folder)) if folder.is_dir() else []
    return sorted(found, key=lambda saved: (saved.manifest.saved_at, saved.manifest.step))


def _committed(folder: Path) -> Iterator[SavedCheckpoint]:
    for path in folder.glob("*_step_*.json"):
        manifest = _read_manifest(path)
        if manifest is None or manifest.name != path.stem:
            continue
        saved = SavedCheckpoint(folder, manifest)
        sizes = {saved.model: manifest.model_bytes, saved.state: manifest.state_bytes}
        if all(p.is_file() and p.stat().st_size == size for p, size in sizes.items()):
            yield saved


def last_state(folder: Path, name: str) -> Path:
    """Return the newest committed state of the runs called ``name``.

    Raises:
        CheckpointError: if there is none.
    """
    of_name = [s for s in list_checkpoints(folder) if is_save_of(s.manifest.name, name)]
    if not of_name:
        raise CheckpointError(
            f"{folder}: there is no saved state of {name!r} to resume from",
            "start without --resume, or give the path of a .pt file",
        )
    return of_name[-1].state


def is_save_of(stem: str, name: str) -> bool:
    """Return whether ``stem`` is that of a save by a run called ``name`` or ``name-2``."""
    base = _STEP.sub("", stem)
    return base == name or re.fullmatch(re.escape(name) + r"-\d+", base) is not None


def free_name(folder: Path, name: str) -> str:
    """Return ``name``, or ``name-2`` and so on when another run's saves have it already."""
    if not folder.is_dir():
        return name
    taken = {_STEP.sub("", p.stem) for p in folder.iterdir() if _STEP.search(p.stem)}
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}-{number}", number + 1
    return candidate


def prune(folder: Path, run_id: str, keep_last: int) -> list[str]:
    """Delete all but the newest ``keep_last`` saves of this run; return the stems that went.

    The manifest goes first, so that an interrupted deletion never leaves one vouching for nothing.
    """
    if keep_last <= 0:
        return []
    own = [s for s in list_checkpoints(folder) if s.manifest.run_id == run_id]
    removed = []
    for saved in own[:-keep_last]:
        try:
            for path in (saved.manifest_path, saved.state, saved.model):
                path.unlink(missing_ok=True)
        except OSError as error:
            # Windows keeps a file another program has open; it is offered again at the next save.
            log.warning("Could not delete %s: %s", saved.manifest.name, error)
            continue
        removed.append(saved.manifest.name)
    return removed


def describe_versions() -> dict[str, str]:
    """Return the versions that decide whether a resumed run gets the same bits."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
        "cpus": str(os.cpu_count()),
    }
