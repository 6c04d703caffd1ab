"""The record of one run on disk: its folder, its log, its events, and its claim on a name."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import torch

from aozora import __version__
from aozora.config.codec import encode_config
from aozora.config.schema import TrainConfig
from aozora.errors import AozoraError, CheckpointError
from aozora.events import (
    Event,
    EventSink,
    Phase,
    PhaseFinished,
    PhaseStarted,
    RunFailed,
    RunFinished,
)
from aozora.runtime import free_run_folder, log_to_file, long_path, write_json_atomic
from aozora.training.checkpointing import describe_versions
from aozora.training.device import out_of_memory
from aozora.training.sinks import (
    EventHub,
    MemorySampler,
    MetricsFile,
    MetricWriter,
    TensorBoardWriter,
    WandbWriter,
)

log = logging.getLogger(__name__)

# Characters below the output folder, without the run's name: runs, date, and TensorBoard's file.
_OWN_NAMES = 100


@contextlib.contextmanager
def writing_output(path: Path) -> Iterator[None]:
    """Say that ``path`` in the output folder cannot be used when the disk refuses it.

    Raises:
        AozoraError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise AozoraError(
            f"output.folder: {path} cannot be used ({error.strerror or error})",
            "choose a folder you can write to, with space left on its disk",
        ) from error


class NameLock:
    """Keeps two living runs from writing checkpoints under one name.

    Args:
        folder: The checkpoints folder; made if missing.
        name: The name that is claimed.

    Raises:
        CheckpointError: if another living process has it.
        AozoraError: if the folder cannot be made or written.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / f"{name}.lock"
        with writing_output(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with writing_output(self._path):
            self._claim(name)

    def _claim(self, name: str) -> None:
        text = f"{os.getpid()} {psutil.Process().create_time():.2f}"
        for _ in range(2):
            try:
                with self._path.open("x", encoding="ascii") as file:
                    file.write(text)
            except FileExistsError:
                self._remove_if_stale(name)
            else:
                return
        raise CheckpointError(f"{self._path}: cannot be claimed", "delete it if no run is active")

    def _remove_if_stale(self, name: str) -> None:
        try:
            process, started = self._path.read_text(encoding="ascii").split()
            is_alive = abs(psutil.Process(int(process)).create_time() - float(started)) < 1.0
        except (ValueError, OSError, psutil.Error):
            is_alive = False
        if is_alive:
            raise CheckpointError(
                f"another run called {name!r} is writing there (process {process})",
                "wait for it, or give this run another output.name",
            )
        self._path.unlink(missing_ok=True)

    def release(self) -> None:
        """Give the name back; a file that cannot be removed is logged."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            # It does no harm: once this process is gone, the next run takes it over.
            log.warning("%s cannot be removed (%s)", self._path, error)


class RunRecord:
    """What a run tells and leaves behind; a context that ends it properly, however it ends.

    An error that leaves the context is reported as `RunFailed` and goes on to the caller.

    Args:
        config: The run's settings.
        name: The name its files begin with.
        run_id: Identity, kept when a run is resumed; empty for a new one.
        device: Where it trains.
        on_event: The caller's receiver.

    Raises:
        AozoraError: if the output folder cannot be looked into.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        name: str,
        run_id: str,
        device: torch.device,
        on_event: EventSink,
    ) -> None:
        self.config = config
        self.name = name
        self.run_id = run_id or uuid.uuid4().hex[:12]
        # Here for all that is written below it: TensorBoard and wandb know nothing of long paths.
        output = long_path(Path(config.output.folder), room=len(name) + _OWN_NAMES)
        with writing_output(output):
            self.folder = free_run_folder(output, name)
        self.checkpoints = output / "checkpoints"
        self.started = time.monotonic()
        self._device = device
        self._hub = EventHub(on_event, self.run_id)
        self._lock: NameLock | None = None
        self._log_handler: logging.Handler | None = None
        self._sampler: MemorySampler | None = None

    def __enter__(self) -> RunRecord:
        self._sampler = MemorySampler(self._device, self._hub.emit)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.ExitStack() as releases:
            # Each is let go of whatever becomes of the others; the last one here is the first.
            if self._lock is not None:
                releases.callback(self._lock.release)
            if self._log_handler is not None:
                releases.callback(_close_log, self._log_handler)
            releases.callback(self._hub.close)
            self._stop_sampling()
            self._tell_failure(kind, error, trace)

    def _tell_failure(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        known = error if isinstance(error, AozoraError) else out_of_memory(error)
        if known is not None:
            self.emit(RunFailed(message=known.message, hint=known.hint))
        elif error is not None and not isinstance(error, KeyboardInterrupt):
            text = "".join(traceback.format_exception(kind, error, trace))
            message = f"{type(error).__name__}: {error}"
            self.emit(RunFailed(message=message, traceback=text))

    def emit(self, event: Event) -> None:
        """Report ``event``; nothing comes after `RunFinished`."""
        if isinstance(event, RunFinished):
            self._stop_sampling()
        self._hub.emit(event)

    def _stop_sampling(self) -> None:
        if self._sampler is not None:
            self._sampler.close()
            self._sampler = None

    def begin_recording(self, *, resumed_from: str = "") -> None:
        """Claim the name and make the run's folder; what was reported before is written into it.

        Raises:
            CheckpointError: if another living run has the name.
            AozoraError: if the folder cannot be made or written.
        """
        self._lock = NameLock(self.checkpoints, self.name)
        plain = encode_config(self.config)
        with writing_output(self.folder):
            self._make_folder(plain, resumed_from)
        writers = self._writers(plain)
        with writing_output(self.folder):
            self._hub.record(self.folder / "events.jsonl", writers)

    def _make_folder(self, plain: dict[str, Any], resumed_from: str) -> None:
        self.folder.mkdir(parents=True)
        self._log_handler = log_to_file(self.folder / "log.txt")
        write_json_atomic(self.folder / "config.json", plain)
        write_json_atomic(
            self.folder / "run.json",
            {
                "run_id": self.run_id,
                "name": self.name,
                "resumed_from": resumed_from,
                "process": os.getpid(),
                "arguments": sys.argv[1:],
                "aozora": __version__,
                "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                "versions": describe_versions(),
            },
        )

    def _writers(self, plain: dict[str, Any]) -> list[MetricWriter]:
        writers: list[MetricWriter] = []
        # First what may be refused, so that no file is left open then.
        if self.config.logging.wandb != "off":
            mode = self.config.logging.wandb
            writers.append(WandbWriter(self.folder, self.folder.name, mode, plain))
        with writing_output(self.folder):
            writers.append(MetricsFile(self.folder / "metrics.jsonl"))
            if self.config.logging.tensorboard:
                writers.append(TensorBoardWriter(self.folder / "tensorboard"))
        return writers

    @contextlib.contextmanager
    def phase(self, phase: Phase) -> Iterator[list[str]]:
        """Report the beginning and the end of a phase; yields a list for the words to end with."""
        self.emit(PhaseStarted(phase=phase))
        started = time.monotonic()
        words: list[str] = []
        yield words
        seconds = time.monotonic() - started
        self.emit(PhaseFinished(phase=phase, seconds=seconds, summary=", ".join(words)))


def _close_log(handler: logging.Handler) -> None:
    logging.getLogger().removeHandler(handler)
    try:
        handler.close()
    except OSError as error:
        log.warning("The end of the run's log could not be written (%s)", error)
