"""What a check said a run would be, and the words for it; free of Qt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aozora.errors import Problem
from gui.words import counted, duration_text, memory_text, size_text, tr, whole


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The answer of ``aozora check --json``.

    Attributes:
        problems: What stops the run; empty when it could start.
        notes: What the user should know.
        summary: The figures as the engine gave them; empty when there are problems.
        failure: Why there is no answer; empty when there is one.
    """

    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    summary: Mapping[str, Any]
    failure: str = ""

    def number(self, name: str) -> float:
        """Return the figure under the dotted ``name``; NaN when there is none."""
        node: Any = self.summary
        for part in name.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        is_number = isinstance(node, int | float) and not isinstance(node, bool)
        return float(node) if is_number else math.nan

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
    )


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
    """Return the figures about memory and time."""
    rows = []
    vram, ram = estimate.number("memory.vram_bytes"), estimate.number("memory.ram_bytes")
    if vram > 0:
        rows.append((tr("Graphics memory"), tr("about {0}").format(memory_text(vram))))
    if ram > 0:
        rows.append((tr("Main memory"), tr("about {0}").format(memory_text(ram))))
    seconds = run_seconds(estimate)
    if math.isfinite(seconds):
        rows.append((tr("Time"), tr("about {0}").format(duration_text(seconds))))
    return rows


def memory_sentence(estimate: Estimate) -> str:
    """Return what goes where in memory, in the engine's words."""
    return str(_memory(estimate).get("sentence", ""))


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


def run_seconds(estimate: Estimate) -> float:
    """Return how long the run would take; NaN when the engine did not say."""
    return estimate.number("memory.step_seconds") * estimate.number("total_steps")


def headline(estimate: Estimate) -> str:
    """Return the words of the ready chip."""
    if estimate.failure:
        return tr("Could not be checked")
    if estimate.problems:
        return counted(len(estimate.problems), tr("problem"), tr("problems"))
    parts = []
    vram, ram = estimate.number("memory.vram_bytes"), estimate.number("memory.ram_bytes")
    if vram > 0:
        parts.append(tr("{0} VRAM").format(memory_text(vram)))
    if ram > 0:
        parts.append(tr("{0} RAM").format(memory_text(ram)))
    seconds = run_seconds(estimate)
    if math.isfinite(seconds):
        parts.append(duration_text(seconds))
    disk = estimate.number("disk_bytes")
    if math.isfinite(disk):
        parts.append(tr("{0} disk").format(size_text(disk)))
    return " · ".join([tr("Ready"), *parts]) if parts else tr("Ready")
