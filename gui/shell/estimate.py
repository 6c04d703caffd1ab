"""What a check said a run would be, and the words for it; free of Qt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aozora.errors import Problem
from gui.engine.figures import RunFigures
from gui.words import (
    between,
    counted,
    duration_text,
    memory_text,
    pace_text,
    size_text,
    tr,
    whole,
)

MEASURED_STEPS = 30
"""After so many steps of a run, what it measured stands in the place of the forecast."""


@dataclass(frozen=True, kw_only=True)
class LayerSetCost:
    """What training a named set of layers would take, all other settings as they are.

    Attributes:
        layers: The set, as ``targets.layers`` names it.
        trained: How many parameters it has.
        vram: Most memory of the card, in bytes; 0 where there is none.
        ram: Most main memory, in bytes.
        seconds: Of a step.
        fits: Whether that is within what may be used.
    """

    layers: str
    trained: int
    vram: float
    ram: float
    seconds: float
    fits: bool


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The answer of ``aozora check --json``.

    Attributes:
        problems: What stops the run; empty when it could start.
        notes: What the user should know.
        summary: The figures as the engine gave them; empty when there are problems.
        failure: Why there is no answer; empty when there is one.
        layer_sets: What other choices of layers would take.
    """

    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    summary: Mapping[str, Any]
    failure: str = ""
    layer_sets: tuple[LayerSetCost, ...] = ()

    def number(self, name: str) -> float:
        """Return the figure under the dotted ``name``; NaN when there is none."""
        node: Any = self.summary
        for part in name.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        is_number = isinstance(node, int | float) and not isinstance(node, bool)
        return float(node) if is_number else math.nan

    def span(self, name: str) -> tuple[float, float]:
        """Return the memory's figure ``name`` as a range; NaN when there is none."""
        found = _memory(self).get(f"{name}_range")
        if not isinstance(found, list) or len(found) != 2:
            return math.nan, math.nan
        return float(found[0]), float(found[1])

    @property
    def is_ready(self) -> bool:
        """Whether the run could start."""
        return not self.problems and not self.failure


def parse_estimate(data: Any) -> Estimate:
    """Return the estimate in the JSON value ``data``.

    Raises:
        ValueError: if it is none.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("problems"), list):
        raise ValueError("this is no answer of a check")  # noqa: TRY004 - bad content, not a bad call
    problems = tuple(
        Problem(str(p.get("path", "")), str(p.get("text", "")), str(p.get("remedy", "")))
        for p in data["problems"]
        if isinstance(p, Mapping)
    )
    summary = data.get("summary")
    return Estimate(
        problems=problems,
        notes=tuple(map(str, data.get("notes") or ())),
        summary=summary if isinstance(summary, Mapping) else {},
        layer_sets=tuple(map(_cost, data.get("layer_sets") or ())),
    )


def _cost(entry: Any) -> LayerSetCost:
    try:
        return LayerSetCost(
            layers=str(entry["layers"]),
            trained=int(entry["trained_parameters"]),
            vram=float(entry["vram_bytes"]),
            ram=float(entry["ram_bytes"]),
            seconds=float(entry["step_seconds"]),
            fits=bool(entry["fits"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"this is no forecast for a set of layers: {entry!r}") from error


def facts(estimate: Estimate) -> list[tuple[str, str]]:
    """Return the figures of a run that could start, each with its name."""
    rows: list[tuple[str, str]] = []

    def add(name: str, value: float, words: str) -> None:
        if math.isfinite(value):
            rows.append((name, words))

    steps, epochs = estimate.number("total_steps"), estimate.number("epochs")
    if math.isfinite(steps):
        words = tr("{0} steps, {1} epochs").format(whole(round(steps)), f"{epochs:.2f}")
        add(tr("Length"), epochs, words)
    add(tr("Pictures"), estimate.number("pictures"), _pictures(estimate))
    trained, total = estimate.number("trained_parameters"), estimate.number("total_parameters")
    if total and math.isfinite(trained):
        text = f"{trained / 1e6:,.1f} M ({trained / total:.0%})"
        add(tr("Trained parameters"), trained, text)
    rows += memory_facts(estimate)
    disk, free = estimate.number("disk_bytes"), estimate.number("disk_free")
    if math.isfinite(disk):
        text = tr("{0} of {1} free").format(size_text(disk), size_text(free))
        add(tr("Disk"), free, text)
    return rows


def _pictures(estimate: Estimate) -> str:
    count, held = estimate.number("pictures"), estimate.number("held_out")
    if not math.isfinite(count):
        return ""
    text = whole(round(count))
    return text + (tr(", {0} held out").format(whole(round(held))) if held > 0 else "")


def memory_facts(estimate: Estimate) -> list[tuple[str, str]]:
    """Return the figures about memory and time, each as the range it should lie in."""
    rows = []
    for name, key in ((tr("Graphics memory"), "vram"), (tr("Main memory"), "ram")):
        words = memory_words(estimate, key)
        if words:
            rows.append((name, words))
    words = between(duration_text, run_seconds(estimate))
    if words:
        rows.append((tr("Time"), words))
    return rows


def memory_words(estimate: Estimate, name: str) -> str:
    """Return how much of the memory called ``name`` (vram or ram) is needed; empty for none."""
    low, high = estimate.span(name)
    return between(memory_text, (low, high)) if high > 0 else ""


def source_words(estimate: Estimate) -> str:
    """Return what the ranges of memory and time rest on; empty when there are none."""
    if "calibrated_by" not in _memory(estimate):
        return ""
    run = str(_memory(estimate)["calibrated_by"])
    if run:
        return tr("Memory and time follow what the run {0} measured.").format(run)
    return tr(
        "Memory and time are computed. Once a run of this model into the same output folder has"
        " done {0} steps, they follow what it measured."
    ).format(MEASURED_STEPS)


def measured_facts(figures: RunFigures) -> list[tuple[str, str]]:
    """Return what a run takes by its own measure; empty before `MEASURED_STEPS` steps."""
    if figures.measured_steps < MEASURED_STEPS or not figures.seconds_per_step > 0:
        return []
    rows = [
        (tr("Graphics memory"), figures.device_peak),
        (tr("Main memory"), figures.process_peak),
    ]
    found = [(name, tr("{0} measured").format(memory_text(size))) for name, size in rows if size]
    pace = pace_text(figures.seconds_per_step)
    length = duration_text(figures.seconds_per_step * figures.total_steps)
    words = tr("{0} for {1} steps at {2}, measured")
    return [*found, (tr("Time"), words.format(length, whole(figures.total_steps), pace))]


def memory_arrangement(estimate: Estimate) -> str:
    """Return what goes where in memory, in the engine's words."""
    return str(_memory(estimate).get("arrangement", ""))


def memory_parts(estimate: Estimate, name: str) -> list[tuple[str, int]]:
    """Return what the memory called ``name`` (vram or ram) is made of, the largest first."""
    totals: dict[str, int] = {}
    for part in _memory(estimate).get(f"{name}_parts") or ():
        if isinstance(part, list | tuple) and len(part) == 2:
            totals[str(part[0])] = totals.get(str(part[0]), 0) + int(part[1])
    return sorted(totals.items(), key=lambda item: -item[1])


def _memory(estimate: Estimate) -> Mapping[str, Any]:
    memory = estimate.summary.get("memory")
    return memory if isinstance(memory, Mapping) else {}


def run_seconds(estimate: Estimate) -> tuple[float, float]:
    """Return between what the length of the run should lie; NaN when the engine did not say."""
    low, high = estimate.span("step_seconds")
    steps = estimate.number("total_steps")
    return low * steps, high * steps


def headline(estimate: Estimate) -> str:
    """Return the words of the ready chip."""
    if estimate.failure:
        return tr("Could not be checked")
    if estimate.problems:
        return counted(len(estimate.problems), tr("problem"), tr("problems"))
    named = (
        (memory_words(estimate, "vram"), "{0} VRAM"),
        (memory_words(estimate, "ram"), "{0} RAM"),
    )
    parts = [tr(text).format(words) for words, text in named if words]
    words = between(duration_text, run_seconds(estimate))
    if words:
        parts.append(words)
    disk = estimate.number("disk_bytes")
    if math.isfinite(disk):
        parts.append(tr("{0} disk").format(size_text(disk)))
    return " · ".join([tr("Ready"), *parts]) if parts else tr("Ready")
