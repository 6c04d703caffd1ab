"""The one door to the engine, for the command line and the window alike.

Nothing slow is imported before a function is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from aozora.training.control import RunControl

if TYPE_CHECKING:
    from aozora.config.schema import TrainConfig
    from aozora.demo.run import DemoReport
    from aozora.events import EventSink
    from aozora.training.check import CheckReport
    from aozora.training.dataset_report import DatasetReport

__all__ = [
    "RunControl",
    "cache",
    "check",
    "dataset",
    "demo",
    "inspect",
    "layers",
    "stored_config",
    "stored_tickets",
    "train",
]


def train(
    config: TrainConfig,
    on_event: EventSink,
    control: RunControl,
    *,
    resume: Path | Literal["last"] | None = None,
) -> None:
    """Run ``config``; see `aozora.training.run.train`."""
    from aozora.training import run

    run.train(config, on_event, control, resume=resume)


def cache(config: TrainConfig, on_event: EventSink, control: RunControl) -> None:
    """Fill the caches for ``config``; see `aozora.training.run.cache`."""
    from aozora.training import run

    run.cache(config, on_event, control)


def check(config: TrainConfig) -> CheckReport:
    """Return what stops ``config`` from running, or what it would do."""
    from aozora.training.check import check as check_run

    return check_run(config)


def dataset(config: TrainConfig) -> DatasetReport:
    """Return the lengths of captions and what is encoded already, encoding nothing.

    Raises:
        AozoraError: if folders or model cannot be used.
    """
    from aozora.training.dataset_report import report_dataset

    return report_dataset(config)


def inspect(path: Path) -> dict[str, Any]:
    """Return what a model file, model folder or state file is, as plain values.

    Raises:
        AozoraError: if it is none of these, or cannot be read.
    """
    from aozora.training.inspect import inspect as inspect_file

    return inspect_file(path)


def layers(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every UNet parameter of the model in ``path`` by its name.

    Raises:
        ModelFileError: if it is no SDXL model, or cannot be read.
    """
    from aozora.training.inspect import layers as read_layers

    return read_layers(path)


def stored_config(state: Path) -> dict[str, Any]:
    """Return the configuration in a state file, as plain values.

    Raises:
        CheckpointError: if it is not a readable state.
    """
    from aozora.training.checkpointing import read_state

    config: dict[str, Any] = read_state(state)["config"]
    return config


def stored_tickets(state: Path) -> list[dict[str, Any]]:
    """Return the timestep tickets in a state file, as `SegmentedPool.to_json` writes them.

    Raises:
        CheckpointError: if it is not a readable state.
    """
    from aozora.training.checkpointing import read_state

    tickets: list[dict[str, Any]] = read_state(state)["tickets"]
    return tickets


def demo(folder: Path, on_event: EventSink, control: RunControl | None = None) -> DemoReport | None:
    """Make a small model and pictures in ``folder`` and train them; see `aozora.demo.run`."""
    from aozora.demo.run import run_demo

    return run_demo(folder, on_event, control or RunControl())
