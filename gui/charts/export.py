"""Charts as files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from aozora.runtime import atomic_path
from gui.charts.decimate import smoothed
from gui.charts.run_history import STEP_VALUES, RunHistory


def write_csv(history: RunHistory, path: Path, smoothing: float) -> int:
    """Write a line for each kept row of the steps; return how many.

    A row stands for ``steps_per_row`` steps: values are their mean, with the smallest and largest
    loss beside it. Validation losses stand in the row of their step.

    Raises:
        OSError: when the file cannot be written; an old one is untouched then.
    """
    steps = history.steps
    validation = dict(
        zip(
            history.validation.place("step").tolist(),
            history.validation.mean("loss").tolist(),
            strict=True,
        )
    )
    columns: dict[str, list[float]] = {
        "step": steps.place("step").tolist(),
        "seconds": steps.place("seconds").tolist(),
        "epoch": steps.place("epoch").tolist(),
        "steps_per_row": [float(steps.stride)] * len(steps),
        **{name: steps.mean(name).tolist() for name in STEP_VALUES},
        "loss_min": steps.low("loss").tolist(),
        "loss_max": steps.high("loss").tolist(),
        "loss_smoothed": smoothed(steps.mean("loss"), smoothing, steps.stride).tolist(),
    }
    columns["validation_loss"] = [validation.get(step, float("nan")) for step in columns["step"]]
    with (
        atomic_path(path, sync=False) as partial,
        partial.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow("" if np.isnan(value) else f"{value:.9g}" for value in row)
    return len(steps)
