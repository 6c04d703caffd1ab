"""The ready-made curves as the strip of the page offers them; the shapes are the engine's."""

from __future__ import annotations

import math
from collections.abc import Mapping

from aozora.config.lr_presets import LR_PRESETS
from aozora.config.lr_schedule import LrSchedule
from gui.editors.numbers import format_short_rate
from gui.editors.preset_strip import PresetEntry, PresetNumber
from gui.words import tr


def shape_entries() -> list[PresetEntry]:
    """Return the ready-made curves with the numbers they ask for."""
    return [PresetEntry(name, tr(name), tuple(_numbers(name))) for name in LR_PRESETS]


def _numbers(name: str) -> list[PresetNumber]:
    warm_up = 30.0 if name == "One cycle" else 5.0
    least = 0.1 if name in ("One cycle", "Inverse square root") else 0.0
    numbers = [
        PresetNumber("peak", tr("Peak"), "1e-6", 1e-12, 1.0, help=tr("Highest learning rate.")),
        PresetNumber("floor", tr("Floor"), "0", 0.0, 1.0, help=tr("Lowest learning rate.")),
        PresetNumber("warm_up", tr("Warm-up"), f"{warm_up:g}", least, 95.0, "%"),
    ]
    if name == "Cosine with restarts":
        numbers.append(PresetNumber("cycles", tr("Cycles"), "3", 1, 20, whole=True))
    if name == "Warm-up, stable, decay":
        numbers.append(PresetNumber("decay", tr("Decay"), "20", 0.1, 99.0, "%"))
    return numbers


def shaped(name: str, numbers: Mapping[str, float]) -> LrSchedule:
    """Return the ready-made curve ``name`` with its numbers, percents as percents.

    Raises:
        ValueError: if the numbers do not go together.
    """
    values: dict[str, float] = dict(numbers)
    for key in ("warm_up", "decay"):
        if key in values:
            values[key] /= 100.0
    if values.get("floor", 0.0) > values["peak"]:
        raise ValueError("the floor lies above the peak")
    if "cycles" in values:
        values["cycles"] = int(values["cycles"])
    # Rates down to 0 on purpose are fine; the engine's one cycle takes None for its own floor.
    return LR_PRESETS[name](**values)


def peak_text(schedule: LrSchedule) -> str:
    """Return the peak of ``schedule`` as a field begins with it."""
    rates = [p.lr for p in schedule.points if math.isfinite(p.lr)]
    return format_short_rate(max(rates, default=0.0) or 1e-6)
