"""The whole way: make a model and pictures, cache, train, stop, resume, measure."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from aozora.config.codec import apply_settings, replace_at
from aozora.config.schema import TrainConfig
from aozora.demo.base_model import write_demo_base
from aozora.demo.pictures import draw_pictures
from aozora.demo.settings import DEMO_SETTINGS
from aozora.diffusion.timesteps import validation_grid
from aozora.errors import AozoraError
from aozora.events import (
    CheckpointSaved,
    Event,
    EventSink,
    RunFinished,
    StepCompleted,
    ValidationCompleted,
)
from aozora.training.batches import Dropout, validation_batch
from aozora.training.control import RunControl
from aozora.training.device import device_settings
from aozora.training.inputs import Encoders, find_pictures
from aozora.training.objective_choice import choose_objective
from aozora.training.preparation import open_base
from aozora.training.run import cache, train

_SMALLEST_FALL = 0.6
_MARK = "aozora-demo.txt"
_MARK_TEXT = "Made by 'aozora demo', which may delete and write anew everything in this folder.\n"


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """What the demo saw.

    Attributes:
        scalar_bound: Loss of the best predictor that multiplies the noisy latents by one number for
            each timestep; a model below it has learned more than how noisy its input is.
        seconds: Time of each part by name.
        files: What was written, with sizes in bytes.
    """

    first_loss: float
    last_loss: float
    validation_before: float
    validation_after: float
    scalar_bound: float
    steps: int
    stopped_at: int
    seconds: dict[str, float]
    files: dict[str, int]

    @property
    def fall(self) -> float:
        """By what share the validation loss fell."""
        return 1.0 - self.validation_after / self.validation_before

    @property
    def passed(self) -> bool:
        """Whether the model learned what it should."""
        return self.fall >= _SMALLEST_FALL and self.validation_after < self.scalar_bound

    def to_text(self) -> str:
        """Return the table for a terminal."""
        rows = [
            ("training loss, first 10 steps", f"{self.first_loss:.4f}"),
            ("training loss, last 10 steps", f"{self.last_loss:.4f}"),
            ("validation loss before", f"{self.validation_before:.4f}"),
            ("validation loss after", f"{self.validation_after:.4f} ({-self.fall:+.0%})"),
            ("best scalar predictor", f"{self.scalar_bound:.4f}"),
            ("steps", f"{self.steps}, stopped and resumed at {self.stopped_at}"),
        ]
        rows += [(f"time: {name}", f"{seconds:.1f} s") for name, seconds in self.seconds.items()]
        rows += [(path, f"{size / 1e6:.1f} MB") for path, size in self.files.items()]
        width = max(len(name) for name, _ in rows)
        lines = ["", *(f"{name:<{width}}  {value}" for name, value in rows), ""]
        lines.append(
            "The demo passed: the model learned, was stopped, resumed and saved."
            if self.passed
            else "The demo FAILED: the model did not learn as much as it should."
        )
        return "\n".join(lines)


def demo_config(folder: Path) -> TrainConfig:
    """Return the settings of the demo in ``folder``."""
    config = replace_at(TrainConfig(), "model.base", str(folder / "base.safetensors"))
    config = replace_at(config, "data.folders", [{"path": str(folder / "pictures")}])
    config = replace_at(config, "output.folder", str(folder / "output"))
    config = replace_at(config, "cache.folder", str(folder / "cache"))
    return apply_settings(config, DEMO_SETTINGS)


def prepare_demo(folder: Path) -> None:
    """Write the demo's base model and pictures into ``folder``, afresh.

    Raises:
        AozoraError: if the folder holds something else, or cannot be written.
    """
    mark = folder / _MARK
    if folder.exists() and any(folder.iterdir()) and not mark.is_file():
        raise AozoraError(
            f"{folder} is not empty and was not made by the demo",
            "name an empty or new folder with --dir",
        )
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        mark.write_text(_MARK_TEXT, encoding="utf-8", newline="\n")
        write_demo_base(folder / "base.safetensors")
        draw_pictures(folder / "pictures")
    except OSError as error:
        raise AozoraError(
            f"{folder} cannot be written: {error.strerror}", "name another folder with --dir"
        ) from error


class _UntilTheMiddle(RunControl):
    """The requests of the person, and the demo's own to stop half-way."""

    def __init__(self, person: RunControl) -> None:
        super().__init__()
        self._person = person

    @property
    def should_stop(self) -> bool:
        """Whether the run should end now."""
        return super().should_stop or self._person.should_stop

    @property
    def should_save_at_stop(self) -> bool:
        """Whether to save when ending."""
        return self._person.should_save_at_stop

    def take_save_request(self) -> bool:
        """Return whether the person asked for a save, and forget the request."""
        return self._person.take_save_request()

    def wait_while_paused(self) -> None:
        """Return at once, or when the person lets the run go on."""
        self._person.wait_while_paused()


def run_demo(folder: Path, on_event: EventSink, person: RunControl) -> DemoReport | None:
    """Make, cache, train, stop, resume and measure in ``folder``.

    Args:
        folder: Where everything is written.
        on_event: Receives what happens.
        person: Requests of whoever started it; a stopped demo saves as any other run does.

    Returns:
        What the demo saw; None when the person stopped it.

    Raises:
        AozoraError: if the folder cannot be used or a part fails.
    """
    seconds: dict[str, float] = {}
    events: list[Event] = []

    def receive(event: Event) -> None:
        events.append(event)
        on_event(event)

    def timed(name: str, work: Callable[[], None]) -> None:
        started = time.monotonic()
        work()
        seconds[name] = time.monotonic() - started

    config = demo_config(folder)
    half = config.training.steps // 2
    control = _UntilTheMiddle(person)

    def stop_in_the_middle(event: Event) -> None:
        receive(event)
        if isinstance(event, StepCompleted) and event.step == half:
            control.stop_and_save()

    bound: list[float] = []
    parts: dict[str, Callable[[], None]] = {
        "make model and pictures": lambda: prepare_demo(folder),
        "cache": lambda: cache(config, receive, person),
        "train to the middle": lambda: train(config, stop_in_the_middle, control),
        "resume to the end": lambda: train(config, receive, person, resume="last"),
        "measure the best scalar predictor": lambda: bound.append(scalar_bound(config)),
    }
    for name, work in parts.items():
        timed(name, work)
        if person.should_stop:
            return None
    return _report(events, half, bound[0], seconds, folder)


def _report(
    events: list[Event], stopped_at: int, bound: float, seconds: dict[str, float], folder: Path
) -> DemoReport:
    steps = [event for event in events if isinstance(event, StepCompleted)]
    validations = [event for event in events if isinstance(event, ValidationCompleted)]
    stops = [event.reason for event in events if isinstance(event, RunFinished)]
    assert stops == ["stopped", "completed"], stops
    saved = [event for event in events if isinstance(event, CheckpointSaved)]
    paths = [folder / "base.safetensors"]
    paths += [Path(name) for event in saved for name in (event.model, event.state)]
    return DemoReport(
        first_loss=_mean([step.loss for step in steps[:10]]),
        last_loss=_mean([step.loss for step in steps[-10:]]),
        validation_before=validations[0].loss,
        validation_after=validations[-1].loss,
        scalar_bound=bound,
        steps=steps[-1].step,
        stopped_at=stopped_at,
        seconds=seconds,
        files={str(path): path.stat().st_size for path in paths if path.exists()},
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def scalar_bound(config: TrainConfig) -> float:
    """Return the validation loss of the best predictor ``c(t) * x_t``.

    c is fitted to the very pictures, noise and timesteps the validation loss is measured on.
    """
    device = torch.device("cpu")
    with device_settings(device, deterministic=False), open_base(config) as source:
        pictures = find_pictures(config)
        encoders = Encoders(config, source, device, lambda event: None, RunControl())
        objective = choose_objective(config.objective, source.facts.prediction).make()
        loader = encoders.loader(pictures.held_out)
        dropout = Dropout.of(config.captions, loader)
        grid = validation_grid(config.validation.timesteps)
        products = torch.zeros(3, len(grid), dtype=torch.float64)
        for item in range(len(pictures.held_out)):
            batch = validation_batch(
                loader.load, item, grid, objective, dropout, config.training.seed
            )
            noisy = objective.noise_latents(batch.latents, batch.noise, batch.timesteps).double()
            target = objective.target(batch.latents, batch.noise, batch.timesteps).double()
            # Each picture counts the same, whatever its size.
            products += torch.stack(
                [
                    (pair[0] * pair[1]).mean(dim=(1, 2, 3))
                    for pair in ((noisy, noisy), (noisy, target), (target, target))
                ]
            )
    noisy_noisy, noisy_target, target_target = products / len(pictures.held_out)
    return float((target_target - noisy_target**2 / noisy_noisy).mean())
