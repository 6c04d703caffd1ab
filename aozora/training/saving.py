"""When and what a run saves."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aozora.config.choices.predictions import Flow
from aozora.config.codec import encode_config
from aozora.config.schema import TrainConfig
from aozora.config.sections import FileDtype
from aozora.config.ticket_segments import SegmentedPool
from aozora.errors import SaveError
from aozora.events import CheckpointSaved, Warned
from aozora.model.source import ModelSource
from aozora.model.writer import SaveDtype, write_single_file
from aozora.training.checkpointing import (
    STATE_FORMAT,
    STATE_VERSION,
    SavedCheckpoint,
    describe_versions,
    prune,
    save_checkpoint,
)
from aozora.training.loss_scaler import LossScaler
from aozora.training.objective_choice import ObjectiveChoice
from aozora.training.resume import Identity
from aozora.training.run_record import RunRecord
from aozora.training.trainer import Position
from optimizers.streamed import StreamedOptimizer

_FILE_DTYPES: dict[FileDtype, SaveDtype] = {
    "base": "base",
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp32": "float32",
}
_SPARE_BYTES = 200 * 2**20


class Saver:
    """Writes model and state of a run, and forgets its oldest saves.

    Args:
        config: The run's settings.
        record: The run's record.
        source: The opened base model.
        objective: What is trained.
        optimizer: Holds the exact weights.
        scaler: Loss scale.
        position: Where the run stands.
        pool: The run's timesteps.
        identity: What the state belongs to.
    """

    def __init__(
        self,
        *,
        config: TrainConfig,
        record: RunRecord,
        source: ModelSource,
        objective: ObjectiveChoice,
        optimizer: StreamedOptimizer,
        scaler: LossScaler,
        position: Position,
        pool: SegmentedPool,
        identity: Identity,
    ) -> None:
        self._config = config
        self._record = record
        self._source = source
        self._objective = objective
        self._optimizer = optimizer
        self._scaler = scaler
        self._position = position
        self._pool = pool
        self._identity = identity
        self.last: SavedCheckpoint | None = None
        self.last_step = position.step
        """Step of the newest save; also that which was resumed from, which needs no second one."""

    def save(self) -> None:
        """Write a save of the current step, unless there is one.

        Raises:
            SaveError: if it cannot be written; earlier saves are untouched.
        """
        if self._position.step == self.last_step:
            return
        with self._record.phase("save"):
            started = time.monotonic()
            self._require_space()
            saved = save_checkpoint(
                self._record.checkpoints,
                self._record.name,
                self._record.run_id,
                self._position.step,
                state=self._state(),
                write_model=self._write_model,
            )
            removed = prune(
                self._record.checkpoints, self._record.run_id, self._config.checkpoints.keep_last
            )
        self.last, self.last_step = saved, self._position.step
        self._record.emit(
            CheckpointSaved(
                step=self._position.step,
                model=str(saved.model),
                state=str(saved.state),
                bytes=saved.manifest.model_bytes + saved.manifest.state_bytes,
                seconds=time.monotonic() - started,
                removed=removed,
            )
        )

    def estimated_bytes(self) -> int:
        """Return about how large one save is."""
        weights = sum(weight.nbytes for weight in self._optimizer.weights().values())
        states = self._optimizer.bytes_on_host() + self._optimizer.bytes_on_device()
        return weights + states + self._source.facts.num_bytes

    def _require_space(self) -> None:
        folder = self._record.checkpoints
        free = shutil.disk_usage(folder).free
        needed = self.estimated_bytes() + _SPARE_BYTES
        if free < needed:
            raise SaveError(
                f"{folder}: a save needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
                "free disk space and resume from the last save; earlier saves are untouched",
            )

    def _write_model(self, target: Path) -> None:
        metadata = {}
        if isinstance(self._objective.prediction, Flow):
            metadata["aozora.flow_shift"] = repr(self._objective.prediction.shift)
        trained: dict[str, Callable[[], Any]] = {
            name: lambda name=name: self._optimizer.master_weight(name)  # type: ignore[misc]
            for name in self._optimizer.weights()
        }
        write_single_file(
            self._source,
            trained,
            target,
            prediction=self._objective.name,  # type: ignore[arg-type]
            zero_terminal_snr=self._objective.zero_terminal_snr,
            dtype=_FILE_DTYPES[self._config.checkpoints.dtype],
            metadata=metadata,
        )

    def _state(self) -> dict[str, Any]:
        position = self._position
        return {
            "format": STATE_FORMAT,
            "version": STATE_VERSION,
            "run_id": self._record.run_id,
            "name": self._record.name,
            "step": position.step,
            "samples": position.samples,
            "skipped": position.skipped,
            "skipped_in_a_row": position.skipped_in_a_row,
            "last_norm": position.last_norm,
            "tickets": self._pool.to_json(),
            "config": encode_config(self._config),
            "identity": self._identity.to_plain(),
            "weights": {name: w.cpu() for name, w in self._optimizer.weights().items()},
            "optimizer": _copied(self._optimizer.state_dict()),
            "loss_scale": self._scaler.state_dict(),
            "versions": describe_versions(),
        }


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's state with tensors of their own, which torch can write."""
    copies = {
        name: {plane: [piece.cpu().clone() for piece in pieces] for plane, pieces in planes.items()}
        for name, planes in state["state"].items()
    }
    return {**state, "state": copies}


class SaveCadence:
    """Says after which steps to save.

    Args:
        every_steps: Steps between saves; 0 for never.
        every_epochs: Epochs between saves; 0 for never.
        samples_per_epoch: Samples of an epoch.
    """

    def __init__(self, every_steps: int, every_epochs: float, samples_per_epoch: int) -> None:
        self._every_steps = every_steps
        self._every_samples = every_epochs * samples_per_epoch

    def is_due(self, step: int, samples_before: int, samples: int) -> bool:
        """Return whether to save after ``step``, which took the samples drawn up to ``samples``."""
        if self._every_steps and step % self._every_steps == 0:
            return True
        if not self._every_samples:
            return False
        return samples // self._every_samples > samples_before // self._every_samples


def space_note(saver: Saver, folder: Path, keep_last: int) -> Warned | None:
    """Return a warning when the disk cannot hold the saves of the whole run."""
    free = shutil.disk_usage(folder).free
    needed = (max(keep_last, 1) + 1) * saver.estimated_bytes()
    if free >= needed:
        return None
    return Warned(
        text=f"{folder} has {free / 1e9:.1f} GB free; keeping {keep_last} saves needs about"
        f" {needed / 1e9:.1f} GB"
    )
