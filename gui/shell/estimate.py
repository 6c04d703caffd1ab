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

    def number(self, *names: str) -> float:
        """Return the first figure there is under ``names`` (dots lead inside); NaN when none is."""
        for name in names:
            node: Any = self.summary
            for part in name.split("."):
                node = node.get(part) if isinstance(node, Mapping) else None
            if isinstance(node, int | float) and not isinstance(node, bool):
                return float(node)
        return math.nan

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


def _plan(estimate: Estimate) -> Mapping[str, Any]:
    plan = estimate.summary.get("memory")
    return plan if isinstance(plan, Mapping) else {}


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
    """Return the figures about memory and time: planned ones, else what is known without a plan."""
    rows = []
    vram = estimate.number("memory.device_bytes", "memory.vram_bytes", "device_bytes")
    if math.isfinite(vram):
        rows.append((tr("Graphics memory"), memory_text(vram)))
    else:
        weights = estimate.number("weight_bytes")
        if math.isfinite(weights):
            rows.append((tr("Weights on the device"), memory_text(weights)))
    ram = estimate.number("memory.host_bytes", "memory.ram_bytes", "host_bytes")
    if math.isfinite(ram):
        rows.append((tr("Main memory"), memory_text(ram)))
    else:
        states = estimate.number("state_bytes")
        if math.isfinite(states):
            rows.append((tr("Optimizer states"), memory_text(states)))
    seconds = run_seconds(estimate)
    if math.isfinite(seconds):
        rows.append((tr("Time"), duration_text(seconds)))
    return rows


def run_seconds(estimate: Estimate) -> float:
    """Return how long the run would take; NaN when the engine did not say."""
    whole_run = estimate.number("memory.run_seconds", "run_seconds")
    if math.isfinite(whole_run):
        return whole_run
    step = estimate.number("memory.step_seconds", "step_seconds")
    return step * estimate.number("total_steps")


def headline(estimate: Estimate) -> str:
    """Return the words of the ready chip."""
    if estimate.failure:
        return tr("Could not be checked")
    if estimate.problems:
        return counted(len(estimate.problems), tr("problem"), tr("problems"))
    parts = []
    vram = estimate.number("memory.device_bytes", "memory.vram_bytes", "device_bytes")
    if math.isfinite(vram):
        parts.append(tr("{0} VRAM").format(memory_text(vram)))
    ram = estimate.number("memory.host_bytes", "memory.ram_bytes", "host_bytes", "state_bytes")
    if math.isfinite(ram):
        parts.append(tr("{0} RAM").format(memory_text(ram)))
    seconds = run_seconds(estimate)
    if math.isfinite(seconds):
        parts.append(duration_text(seconds))
    disk = estimate.number("disk_bytes")
    if math.isfinite(disk):
        parts.append(tr("{0} disk").format(size_text(disk)))
    return " · ".join([tr("Ready"), *parts]) if parts else tr("Ready")
