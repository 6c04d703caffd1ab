"""Charts as files."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from aozora.runtime import atomic_path
from gui.charts.decimate import Numbers, smoothed
from gui.charts.overlay import Overlay
from gui.charts.run_history import STEP_VALUES, RunHistory


def write_csv(
    history: RunHistory, path: Path, smoothing: float, overlay: Overlay | None = None
) -> int:
    """Write a line for each kept row of the steps; return how many.

    A row stands for ``steps_per_row`` steps: values are their mean, with the smallest and largest
    loss beside it. Validation losses stand in the row of their step. The loss of a run that is
    overlaid has columns of its own; steps it alone has make rows where the others are empty.

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
    if overlay is not None:
        columns = _with_overlay(columns, overlay, smoothing)
    columns["validation_loss"] = [validation.get(step, float("nan")) for step in columns["step"]]
    with (
        atomic_path(path, sync=False) as partial,
        partial.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow("" if np.isnan(value) else f"{value:.9g}" for value in row)
    return len(columns["step"])


def _with_overlay(
    columns: dict[str, list[float]], overlay: Overlay, smoothing: float
) -> dict[str, list[float]]:
    table = overlay.history.steps
    own = np.array(columns["step"])
    other = table.place("step")
    every = np.union1d(own, other)

    def spread(values: Iterable[float], places: Numbers) -> list[float]:
        column = np.full(len(every), np.nan)
        column[np.searchsorted(every, places)] = np.fromiter(values, dtype=np.float64)
        spread_out: list[float] = column.tolist()
        return spread_out

    joined = {name: spread(values, own) for name, values in columns.items()}
    joined["step"] = every.tolist()
    means = table.mean("loss")
    joined[f"{overlay.name}: seconds"] = spread(table.place("seconds"), other)
    joined[f"{overlay.name}: loss"] = spread(means, other)
    smooth = smoothed(means, smoothing, table.stride)
    joined[f"{overlay.name}: loss_smoothed"] = spread(smooth, other)
    return joined
