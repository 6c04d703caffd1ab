"""Where events go: the caller, the run folder's files, TensorBoard, Weights & Biases."""

from __future__ import annotations

import importlib
import json
import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, TextIO

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


def scalars_of(event: Event) -> dict[str, float]:
    """Return the numbers of ``event`` worth a chart, by name; empty when it has none."""
    match event:
        case StepCompleted():
            return {
                "loss": event.loss,
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


class MetricWriter(Protocol):
    """Something that records numbers by step."""

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Record ``scalars`` at ``step``."""

    def close(self) -> None:
        """Flush and let go of every file."""


class MetricsFile:
    """``metrics.jsonl``: one JSON object a line, ``{"step": ..., name: number}``."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a", encoding="utf-8", newline="\n")

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Record ``scalars`` at ``step``."""
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoardWriter:
    """TensorBoard event files in ``folder``."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

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
        AozoraError: if the wandb package is missing.
    """

    def __init__(self, folder: Path, name: str, mode: str, config: dict[str, Any]) -> None:
        try:
            wandb: Any = importlib.import_module("wandb")
        except ImportError as error:
            raise AozoraError(
                "logging.wandb: the wandb package is not installed",
                "install it with pip install wandb, or set logging.wandb to off",
            ) from error
        self._run: Any = wandb.init(
            project="aozora", name=name, dir=str(folder), mode=mode, config=config
        )

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Record ``scalars`` at ``step``."""
        self._run.log(scalars, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class EventHub:
    """Hands each event to the caller and to the run folder, from whatever thread it comes.

    Until `record` is called events are only kept, so that a refused run leaves nothing behind.

    Args:
        on_event: The caller's receiver.
        run_id: Identity of the run, written with each event.
    """

    def __init__(self, on_event: EventSink, run_id: str) -> None:
        self._on_event = on_event
        self._run_id = run_id
        self._kept: list[tuple[Event, str]] = []
        self._file: TextIO | None = None
        self._writers: tuple[MetricWriter, ...] = ()
        self._lock = threading.RLock()
        self._last_progress: dict[Phase, float] = {}

    def record(self, path: Path, writers: Iterable[MetricWriter]) -> None:
        """Write events to the file ``path``, their numbers to ``writers``, from the first on."""
        with self._lock:
            self._file = path.open("a", encoding="utf-8", newline="\n")
            self._writers = tuple(writers)
            for event, line in self._kept:
                self._file.write(line)
                _log(event)
            self._file.flush()
            self._kept.clear()

    def emit(self, event: Event) -> None:
        """Record ``event`` and pass it on."""
        with self._lock:
            if isinstance(event, Progressed) and self._is_too_soon(event):
                return
            self._write(event, to_json(event, self._run_id) + "\n")
            scalars = scalars_of(event)
            if scalars:
                for writer in self._writers:
                    writer.write(getattr(event, "step", 0), scalars)
            self._on_event(event)

    def _write(self, event: Event, line: str) -> None:
        if self._file is None:
            self._kept.append((event, line))
        else:
            self._file.write(line)
            self._file.flush()
            _log(event)

    def _is_too_soon(self, event: Progressed) -> bool:
        now = time.monotonic()
        last = self._last_progress.get(event.phase, float("-inf"))
        if event.done < event.total and now - last < _PROGRESS_INTERVAL_SECONDS:
            return True
        self._last_progress[event.phase] = now
        return False

    def close(self) -> None:
        """Close every file."""
        with self._lock:
            for writer in self._writers:
                writer.close()
            self._writers = ()
            if self._file is not None:
                self._file.close()
                self._file = None


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
