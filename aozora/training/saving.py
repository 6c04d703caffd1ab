"""When and what a run saves.

Training stands still only until a snapshot is taken; a thread writes it while training goes on.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from torch import Tensor

from aozora.config.choices.predictions import Flow
from aozora.config.codec import encode_config
from aozora.config.schema import TrainConfig
from aozora.config.sections import FileDtype
from aozora.config.ticket_segments import SegmentedPool
from aozora.errors import SaveError
from aozora.events import CheckpointSaved, Warned
from aozora.memory.machine import room_within
from aozora.model.facts import FLOW_RESOLUTION_SHIFT_KEY, FLOW_SHIFT_KEY
from aozora.model.source import ModelSource
from aozora.model.tensor_file import TORCH_DTYPES
from aozora.model.writer import SAVE_FORMATS, SaveDtype, write_single_file
from aozora.training.checkpointing import (
    STATE_FORMAT,
    STATE_VERSION,
    SavedCheckpoint,
    describe_versions,
    exact_weight,
    list_checkpoints,
    prune,
    save_checkpoint,
)
from aozora.training.loss_scaler import LossScaler
from aozora.training.objective_choice import ObjectiveChoice
from aozora.training.resume import Identity
from aozora.training.run_record import RunRecord
from aozora.training.snapshot import AbandonedError, Snapshot, Snapshots
from aozora.training.state_file import read_state_file
from aozora.training.state_writer import StateWriter
from aozora.training.trainer import Position
from aozora.training.zip_stream import FileSum
from optimizers.engine import Engine
from optimizers.streamed import StreamedOptimizer

log = logging.getLogger(__name__)

_FILE_DTYPES: dict[FileDtype, SaveDtype] = {
    "base": "base",
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp32": "float32",
}
_FREE_BYTES = 200 * 2**20
_JOIN_SECONDS = 0.2


class Saver:
    """Writes model and state of a run, and forgets its oldest saves.

    Leaving its ``with`` block waits for a save that is under way; after a Ctrl+C it is given up.

    Args:
        config: The run's settings.
        record: The run's record.
        source: The opened base model.
        objective: What is trained.
        engine: The run's memory.
        ram_limit: Most host memory of the process, with copies of what changes before it is saved.
        optimizer: Holds the exact weights in it.
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
        engine: Engine,
        ram_limit: int,
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
        self._snapshots = Snapshots(engine, optimizer, room=partial(room_within, ram_limit))
        self._scaler = scaler
        self._position = position
        self._pool = pool
        self._identity = identity
        self._snapshot: Snapshot | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self.last: SavedCheckpoint | None = None
        """The newest save that is safely on disk."""
        self.last_step = position.step if self._needs_no_save(position.step) else -1
        """Step of the newest save, or where the run began if that needs none; otherwise -1."""

    def __enter__(self) -> Saver:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.wait()
            return
        if isinstance(error, KeyboardInterrupt) and self._snapshot is not None:
            self._snapshot.abandon()
        self._join()
        # A step that failed is told of by whoever waited for it, and the save of its end did.
        is_told = self._failure is error or isinstance(self._failure, AbandonedError)
        if self._failure is not None and not is_told:
            log.warning("The last save failed as well: %s", self._failure)

    def save(self) -> None:
        """Begin a save of the current step, unless there is one; waits for the one before.

        Raises:
            SaveError: if it cannot begin, or if the one before failed; earlier saves are untouched.
        """
        if self._position.step == self.last_step:
            return
        started = time.monotonic()
        self.wait()
        with self._record.phase("save"):
            self._require_space()
            snapshot = self._snapshots.take()
            try:
                arguments = snapshot, self._state(snapshot), started
                thread = threading.Thread(
                    target=self._write, args=arguments, name="save", daemon=True
                )
                thread.start()
            except BaseException:
                snapshot.close()  # nobody will write what the optimizer would wait for
                raise
        self._snapshot, self._thread, self.last_step = snapshot, thread, self._position.step

    def _needs_no_save(self, step: int) -> bool:
        """Return whether nothing is trained yet, or all of it saved: a state alone is no save."""
        saves = [saved.manifest for saved in list_checkpoints(self._record.checkpoints)]
        of_run = [manifest.step for manifest in saves if manifest.run_id == self._record.run_id]
        return step == 0 or step in of_run

    def wait(self) -> None:
        """Return when no save is under way.

        Raises:
            SaveError: if one has failed; so with every other error that ended one.
        """
        if self._thread is not None:
            with self._record.phase("save"):
                self._join()
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raise what ended a save, if one has failed since this was asked last."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _join(self) -> None:
        # In parts: a wait without end could not be interrupted on Windows.
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)
        self._thread = self._snapshot = None

    def _write(self, snapshot: Snapshot, state: dict[str, Any], started: float) -> None:
        """Write a save, in the thread; whatever goes wrong is told to the run's own thread."""
        try:
            self._commit(snapshot, state, started, time.monotonic() - started)
        except BaseException as error:  # noqa: BLE001 - raised again by `raise_failure`
            self._failure = error
        finally:
            snapshot.close()

    def _commit(
        self, snapshot: Snapshot, state: dict[str, Any], started: float, stall: float
    ) -> None:
        record, step = self._record, state["step"]

        def write_state(file: BinaryIO) -> FileSum:
            with StateWriter(file, state) as writer:
                snapshot.write(writer)
                return writer.finish()

        saved = save_checkpoint(
            record.checkpoints,
            record.name,
            record.run_id,
            step,
            write_state=write_state,
            write_model=partial(self._write_model, snapshot),
        )
        removed = prune(record.checkpoints, record.run_id, self._config.checkpoints.keep_last)
        self.last = saved
        record.emit(
            CheckpointSaved(
                step=step,
                model=str(saved.model),
                state=str(saved.state),
                bytes=saved.manifest.model_bytes + saved.manifest.state_bytes,
                seconds=time.monotonic() - started,
                removed=removed,
                stall_seconds=stall + snapshot.waited_seconds,
            )
        )

    def estimated_bytes(self) -> int:
        """Return about how large one save is."""
        weights = sum(weight.nbytes for weight in self._optimizer.weights().values())
        states = self._optimizer.bytes_on_host() + self._optimizer.bytes_on_device()
        return weights + states + self._source.facts.num_bytes + self._widening()

    def _widening(self) -> int:
        """Return by how much the model file is larger than the base, for its number format."""
        dtype = _FILE_DTYPES[self._config.checkpoints.dtype]
        if dtype == "base":
            return 0
        stored, wanted = self._source.component("unet"), SAVE_FORMATS[dtype]
        return sum(
            weight.numel() * (wanted.itemsize - TORCH_DTYPES[stored[name].dtype].itemsize)
            for name, weight in self._optimizer.weights().items()
        )

    def _require_space(self) -> None:
        folder = self._record.checkpoints
        try:
            folder.mkdir(parents=True, exist_ok=True)  # it may have been moved away meanwhile
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise SaveError(
                f"{folder}: nothing can be saved there: {error.strerror or error}",
                "bring the folder or drive back and resume from the last save",
            ) from error
        needed = self.estimated_bytes() + _FREE_BYTES
        if free < needed:
            raise SaveError(
                f"{folder}: a save needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
                "free disk space and resume from the last save; earlier saves are untouched",
            )

    def _write_model(self, snapshot: Snapshot, state_path: Path, target: Path) -> FileSum:
        metadata = {}
        prediction = self._objective.prediction
        if isinstance(prediction, Flow):
            metadata[FLOW_SHIFT_KEY] = repr(prediction.shift)
            metadata[FLOW_RESOLUTION_SHIFT_KEY] = str(prediction.resolution_shift).lower()
        state = read_state_file(state_path)

        def exact(name: str) -> Tensor:
            snapshot.refuse_abandoned()
            return exact_weight(state, name)

        trained: dict[str, Callable[[], Tensor]] = {
            name: partial(exact, name) for name in state["weights"]
        }
        written = write_single_file(
            self._source,
            trained,
            target,
            prediction=self._objective.name,  # type: ignore[arg-type]
            zero_terminal_snr=self._objective.zero_terminal_snr,
            dtype=_FILE_DTYPES[self._config.checkpoints.dtype],
            metadata=metadata,
        )
        return FileSum(written.num_bytes, written.crc32)

    def _state(self, snapshot: Snapshot) -> dict[str, Any]:
        """Return all that is saved, with slots for tensors; later steps do not change it."""
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
            "weights": snapshot.weights,
            "optimizer": snapshot.optimizer,
            "loss_scale": self._scaler.state_dict(),
            "versions": describe_versions(),
        }


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
