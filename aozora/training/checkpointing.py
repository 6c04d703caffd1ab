"""Saving a run so that it can be resumed to the same bits, and never leaving half a save behind.

A save is three files: the state (``.pt``), the model (``.safetensors``) and a manifest (``.json``)
with the sizes and checksums of both. The manifest is written last and is what makes the save count.
The model is made from the finished state, so that only the state has to be taken from the run.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from aozora.errors import AozoraError, CheckpointError, NumericsError, SaveError
from aozora.runtime import atomic_path, long_path, write_json_atomic
from aozora.training.state_file import read_state_file
from aozora.training.zip_stream import FileSum
from optimizers.precision import join_fp32
from optimizers.records import MASTER

log = logging.getLogger(__name__)

STATE_FORMAT = "aozora-training-state"
STATE_VERSION = 2
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
    write_state: Callable[[BinaryIO], FileSum],
    write_model: Callable[[Path, Path], FileSum],
) -> SavedCheckpoint:
    """Write state, model and manifest, in this order; only the manifest makes them count.

    Args:
        folder: The ``checkpoints`` folder; made if missing.
        name: The run's name.
        run_id: The run's identity.
        step: Optimizer steps done.
        write_state: Writes the state to the file it is given.
        write_model: Given the path of the finished state and that of the model file, writes the
            latter, atomically.

    Raises:
        SaveError: if a file cannot be written. No earlier save is touched, except that one of this
            step has lost its manifest once the state is complete. A complete state stays, even
            if the model cannot be written: the run can be resumed from it.
        NumericsError: if the weights have no place in the model's format; likewise.
    """
    stem = checkpoint_stem(name, step)
    model, state = folder / f"{stem}.safetensors", folder / f"{stem}.pt"
    manifest_path = folder / f"{stem}.json"
    try:
        state_sum = _write_state(state, write_state, manifest_path)
    except OSError as error:
        raise SaveError(
            f"{folder / stem}: the save could not be written: {error}",
            "free disk space or choose another output folder; earlier saves are untouched",
        ) from error
    try:
        model_sum = write_model(state, model)
        manifest = Manifest(
            name=stem,
            run_id=run_id,
            step=step,
            saved_at=_time_after(list_checkpoints(folder)),
            model_bytes=model_sum.num_bytes,
            model_crc32=model_sum.crc32,
            state_bytes=state_sum.num_bytes,
            state_crc32=state_sum.crc32,
        )
        write_json_atomic(manifest_path, asdict(manifest))
    except (AozoraError, OSError) as error:
        raise _without_model(error, state) from error
    except BaseException as error:
        if not isinstance(error, Exception):
            _remove(state)  # it was given up
        raise
    return SavedCheckpoint(folder, manifest)


def _write_state(path: Path, write_state: Callable[[BinaryIO], FileSum], manifest: Path) -> FileSum:
    with atomic_path(path) as partial:
        with partial.open("wb") as file:
            written = write_state(file)
        # That of an earlier save of the same step would vouch for files about to be replaced.
        manifest.unlink(missing_ok=True)
    return written


def _time_after(saves: list[SavedCheckpoint]) -> float:
    """Return the time, or just after the newest save where the clock is behind it.

    Which save is the newest decides what is deleted and what is resumed from.
    """
    newest = max((saved.manifest.saved_at for saved in saves), default=0.0)
    return max(time.time(), newest + 0.001)


def _without_model(error: AozoraError | OSError, state: Path) -> AozoraError:
    """Return the error that says that the state, at least, is there."""
    text, hint = (error.message, error.hint) if isinstance(error, AozoraError) else (str(error), "")
    text = f"the model could not be saved: {text}; the training state is complete: {state}"
    if isinstance(error, NumericsError):
        return NumericsError(text, hint)
    return SaveError(text, f"{hint or 'free disk space'}, then resume from that state")


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("Could not delete %s of a failed save: %s", path, error)


def read_state(path: Path) -> dict[str, Any]:
    """Return the training state in ``path`` with a `FileTensor` for every tensor in it.

    The whole file is read once to verify its checksum. Nothing in it is executed.

    Raises:
        CheckpointError: if the file is missing, damaged, or not a state of this program.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such state file")
    _verify_against_manifest(path)
    state = read_state_file(path)
    if state.get("format") != STATE_FORMAT:
        raise CheckpointError(f"{path}: is not a training state of Aozora", "choose its .pt file")
    version = state.get("version")
    if version != STATE_VERSION:
        is_newer = isinstance(version, int) and version > STATE_VERSION
        raise CheckpointError(
            f"{path}: is a training state of version {version!r}, this program reads"
            f" version {STATE_VERSION}",
            "resume with the newer Aozora that saved it"
            if is_newer
            else "start a new run from the model saved beside it",
        )
    return state


def exact_weight(state: Mapping[str, Any], name: str) -> Tensor:
    """Return the float32 weights of a parameter in a state that was read."""
    weight = state["weights"][name]
    pieces = state["optimizer"]["state"][name].get(MASTER)
    if pieces is None:
        exact: Tensor = weight.read()
        return exact
    master = torch.empty(weight.numel(), dtype=pieces[0].dtype)
    start = 0
    for piece in pieces:
        piece.read_into(master[start : start + piece.numel()])
        start += piece.numel()
    master = master.view(weight.shape)
    return master if master.dtype == torch.float32 else join_fp32(weight.read(), master)


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
    return [saved for saved in _with_manifest(folder) if _is_whole(saved)]


def _with_manifest(folder: Path) -> list[SavedCheckpoint]:
    """Return the saves in ``folder`` that have a manifest, whole or not, oldest first."""
    manifests = {path: _read_manifest(path) for path in folder.glob("*_step_*.json")}
    found = [
        SavedCheckpoint(folder, m) for path, m in manifests.items() if m and m.name == path.stem
    ]
    return sorted(found, key=lambda saved: (saved.manifest.saved_at, saved.manifest.step))


def _is_whole(saved: SavedCheckpoint) -> bool:
    manifest = saved.manifest
    sizes = {saved.model: manifest.model_bytes, saved.state: manifest.state_bytes}
    return all(p.is_file() and p.stat().st_size == size for p, size in sizes.items())


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


def free_name(folder: Path, name: str, run_id: str = "") -> str:
    """Return ``name``, or ``name-2`` and so on when another run's saves have it already.

    Upper and lower case count as equal, as they do for files on Windows.

    Args:
        folder: The ``checkpoints`` folder.
        name: The name wanted.
        run_id: The run that goes on under this name, if it does; its own saves may have it.
    """
    if not folder.is_dir():
        return name
    if run_id and not _is_of_another(folder, name, run_id):
        return name
    taken = {_STEP.sub("", p.stem).casefold() for p in folder.iterdir() if _STEP.search(p.stem)}
    candidate, number = name, 2
    while candidate.casefold() in taken:
        candidate, number = f"{name}-{number}", number + 1
    return candidate


def _is_of_another(folder: Path, name: str, run_id: str) -> bool:
    """Return whether another run than ``run_id`` has saves called ``name``."""
    return any(
        saved.manifest.run_id != run_id
        and _STEP.sub("", saved.manifest.name).casefold() == name.casefold()
        for saved in list_checkpoints(folder)
    )


def prune(folder: Path, run_id: str, keep_last: int) -> list[str]:
    """Delete all but the newest ``keep_last`` saves of this run; return the stems that went.

    The model goes first: Windows keeps one that another program has open, and then the save stays
    as it is. The manifest goes last: a save without all its files does not count, and by the
    manifest what is left of it is found here again.
    """
    if keep_last <= 0:
        return []
    own = [s for s in _with_manifest(folder) if s.manifest.run_id == run_id]
    whole = [s for s in own if _is_whole(s)]
    removed = []
    for saved in own[: own.index(whole[-keep_last])] if len(whole) > keep_last else []:
        try:
            for path in (saved.model, saved.state, saved.manifest_path):
                path.unlink(missing_ok=True)
        except OSError as error:
            log.warning(
                "Could not delete %s, which is tried again at the next save: %s",
                saved.manifest.name,
                error,
            )
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
