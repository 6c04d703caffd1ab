"""Where events go: the caller, the run folder's files, TensorBoard, Weights & Biases."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch

from aozora.errors import AozoraError
from aozora.events import (
    Event,
    EventSink,
    ItemSkipped,
    MemorySampled,
    OptimizerDiagnostics,
    Phase,
    PhaseStarted,
    Progressed,
    RunFailed,
    StepCompleted,
    StepSkipped,
    ValidationCompleted,
    Warned,
    to_json,
)

log = logging.getLogger(__name__)

_PROGRESS_INTERVAL_SECONDS = 0.05
_MEMORY_INTERVAL_SECONDS = 1.0
_MOST_WAITING_BYTES = 64 * 2**20


def scalars_of(event: Event) -> dict[str, float]:
    """Return the numbers of ``event`` worth a chart, by name; empty when it has none."""
    match event:
        case StepCompleted():
            own = event.sample_losses
            return {
                "loss": event.loss,
                # Of the loss function alone, as validation is of the squared error alone.
                **({"unweighted_loss": sum(own) / len(own)} if own else {}),
                "lr": event.lr,
                "grad_norm": event.grad_norm,
                "seconds": event.seconds,
                "data_wait_seconds": event.data_wait_seconds,
                "epoch": event.epoch,
                "loss_scale": event.loss_scale,
            }
        case ValidationCompleted():
            by_timestep = zip(event.timesteps, event.losses, strict=True)
            return {"validation/loss": event.loss} | {
                f"validation/loss_t{timestep}": loss for timestep, loss in by_timestep
            }
        case OptimizerDiagnostics():
            return {
                "optimizer/update_rms": event.update_rms,
                "optimizer/weight_rms": event.weight_rms,
                "optimizer/share_moved": event.share_moved,
            }
        case StepSkipped():
            return {"skipped": float(event.skipped)}
        case _:
            return {}


class LineFile:
    """A file that gets whole lines in their order, even from a disk that refuses for a while.

    What is refused waits and goes before the next line. Of a disk that refuses for so long that too
    much would wait, the newest lines are dropped, each as a whole.

    Args:
        path: The file; what it has is kept.

    Raises:
        OSError: if it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Without a buffer it is known how much of a line the disk has taken.
        self._file: io.FileIO | None = path.open("ab", buffering=0)
        self._waiting = bytearray()

    def write(self, line: str) -> None:
        """Write ``line``, which ends with a line feed, after those that wait.

        Raises:
            OSError: if not all could be written; it waits, or is dropped where too much does.
        """
        data = line.encode("utf-8")
        if len(self._waiting) + len(data) > _MOST_WAITING_BYTES:
            self._write_waiting()
        self._waiting += data
        self._write_waiting()

    def _write_waiting(self) -> None:
        try:
            while self._waiting:
                if self._file is None:
                    self._file = self.path.open("ab", buffering=0)
                del self._waiting[: self._file.write(self._waiting)]
        except OSError:
            # A file on a share that was away is of no use afterwards, but can be opened anew.
            # The first error says what is wrong; one from closing would only hide it.
            with contextlib.suppress(OSError):
                self._close_file()
            raise

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def close(self) -> None:
        """Write what waits, and close the file.

        Raises:
            OSError: if not all could be written.
        """
        try:
            self._write_waiting()
        finally:
            self._close_file()


class MetricWriter(Protocol):
    """Something that records numbers by step.

    Attributes:
        place: Where it records them, in words for the user.
    """

    place: str

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Record ``scalars`` at ``step``.

        Raises:
            OSError: if that cannot be done now.
        """

    def close(self) -> None:
        """Flush and let go of every file.

        Raises:
            OSError: if not all could be recorded.
        """


class MetricsFile:
    """``metrics.jsonl``: one JSON object a line, ``{"step": ..., name: number}``.

    Raises:
        OSError: if it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.place = str(path)
        self._file = LineFile(path)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Record ``scalars`` at ``step``."""
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoardWriter:
    """TensorBoard event files in ``folder``."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.place = str(folder)
        self._writer: Any = SummaryWriter(str(folder))

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Record ``scalars`` at ``step``."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class WandbWriter:
    """A Weights & Biases run; offline ones are kept in the run's folder.

    Raises:
        AozoraError: if the wandb package is missing, or refuses the run.
    """

    def __init__(self, folder: Path, name: str, mode: str, config: dict[str, Any]) -> None:
        try:
            wandb: Any = importlib.import_module("wandb")
        except ImportError as error:
            raise AozoraError(
                "logging.wandb: the wandb package is not installed",
                f'"{sys.executable}" -m pip install wandb, or set logging.wandb to off',
            ) from error
        self.place = f"Weights & Biases ({folder})"
        self._error: type[Exception] = wandb.Error
        try:
            self._run: Any = wandb.init(
                project="aozora", name=name, dir=str(folder), mode=mode, config=config
            )
        except (self._error, OSError) as error:
            raise AozoraError(
                f"logging.wandb: Weights & Biases cannot record the run ({error})",
                f'log in with "{sys.executable}" -m wandb login, '
                "or set logging.wandb to offline or off",
            ) from error

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Record ``scalars`` at ``step``.

        Raises:
            OSError: if they cannot be recorded.
        """
        try:
            self._run.log(scalars, step=step)
        except self._error as error:
            raise OSError(str(error)) from error

    def close(self) -> None:
        """Finish the run.

        Raises:
            OSError: if it cannot be finished.
        """
        try:
            self._run.finish()
        except self._error as error:
            raise OSError(str(error)) from error


class EventHub:
    """Hands each event to the caller and to the run folder, from whatever thread it comes.

    Until `record` is called events are only kept, so that a refused run leaves nothing behind.

    A line in a file is not worth a run: when one cannot be written, the caller is told, once for
    each file, and gets all events as before.

    Args:
        on_event: The caller's receiver.
        run_id: Identity of the run, written with each event.
    """

    def __init__(self, on_event: EventSink, run_id: str) -> None:
        self._on_event = on_event
        self._run_id = run_id
        self._kept: list[tuple[Event, str]] = []
        self._file: LineFile | None = None
        self._writers: tuple[MetricWriter, ...] = ()
        self._refused: set[str] = set()
        self._lock = threading.RLock()
        self._last_progress: dict[Phase, float] = {}

    def record(self, path: Path, writers: Iterable[MetricWriter]) -> None:
        """Write events to the file ``path``, their numbers to ``writers``, from the first on.

        Raises:
            OSError: if ``path`` cannot be opened.
        """
        with self._lock:
            self._writers = tuple(writers)
            self._file = LineFile(path)
            kept, self._kept = self._kept, []
            for event, line in kept:
                self._write(event, line)

    def emit(self, event: Event) -> None:
        """Record ``event`` and pass it on."""
        with self._lock:
            if isinstance(event, Progressed) and self._is_too_soon(event):
                return
            self._write(event, to_json(event, self._run_id) + "\n")
            scalars = scalars_of(event)
            if scalars:
                for writer in self._writers:
                    step = getattr(event, "step", 0)
                    self._attempt(writer.place, partial(writer.write, step, scalars))
            self._on_event(event)

    def _write(self, event: Event, line: str) -> None:
        if self._file is None:
            self._kept.append((event, line))
        else:
            self._attempt(str(self._file.path), partial(self._file.write, line))
            _log(event)

    def _attempt(self, place: str, write: Callable[[], None]) -> None:
        """Call ``write``; the first time ``place`` refuses, tell it before the event at hand."""
        try:
            write()
        except OSError as error:
            if place in self._refused:
                return
            self._refused.add(place)
            self.emit(
                Warned(
                    text=f"{place} cannot be written ({error.strerror or error}); the run goes on;"
                    " what belongs there waits until it can be written again"
                )
            )

    def _is_too_soon(self, event: Progressed) -> bool:
        now = time.monotonic()
        last = self._last_progress.get(event.phase, float("-inf"))
        if event.done < event.total and now - last < _PROGRESS_INTERVAL_SECONDS:
            return True
        self._last_progress[event.phase] = now
        return False

    def close(self) -> None:
        """Close every file; what could not be written to the end is logged."""
        with self._lock, contextlib.ExitStack() as closing:
            # Each is closed whatever becomes of the others; the last one here is the first.
            if self._file is not None:
                closing.callback(_close, str(self._file.path), self._file.close)
            for writer in reversed(self._writers):
                closing.callback(_close, writer.place, writer.close)
            self._writers, self._file = (), None


def _close(place: str, close: Callable[[], None]) -> None:
    try:
        close()
    except OSError as error:
        # The caller may have got the last event, after which nothing comes.
        log.warning("%s: not everything could be written (%s)", place, error)


def _log(event: Event) -> None:
    """Write ``event`` to the log file; at a level the terminal, which shows events, leaves out."""
    match event:
        case Warned():
            log.info("Warning: %s", event.text)
        case ItemSkipped():
            log.info("Left out %s: %s", event.path, event.reason)
        case StepSkipped():
            log.info("Step %d skipped: %s", event.step, event.reason)
        case RunFailed():
            log.info("Run failed: %s %s\n%s", event.message, event.hint, event.traceback)
        case Progressed() | StepCompleted() | MemorySampled() | PhaseStarted():
            # Too many to read; they are in events.jsonl and metrics.jsonl.
            pass
        case _:
            log.info("%s", event)


def sample_memory(device: torch.device) -> MemorySampled:
    """Return the memory in use now."""
    host = psutil.virtual_memory()
    used = reserved = peak = total = 0
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        used = total - free
        reserved = torch.cuda.memory_reserved(device)
        peak = torch.cuda.max_memory_reserved(device)
    return MemorySampled(
        device_used=used,
        device_reserved=reserved,
        device_peak=peak,
        device_total=total,
        process_rss=psutil.Process().memory_info().rss,
        host_available=host.available,
    )


class MemorySampler:
    """Reports the memory in use about once a second from a thread of its own."""

    def __init__(self, device: torch.device, emit: EventSink) -> None:
        self._device = device
        self._emit = emit
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-sampler", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._emit(sample_memory(self._device))
            self._stopped.wait(_MEMORY_INTERVAL_SECONDS)

    def close(self) -> None:
        """Stop reporting."""
        self._stopped.set()
        self._thread.join()
