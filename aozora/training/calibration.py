"""How far the forecast was off in the last run like this one, told from what that run recorded.

What is counted is exact, but the driver, the allocator and the pace of a whole model differ from
computer to computer. The newest run of a model of the same size on the same card says by how much.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aozora.memory.forecast import MemoryForecast

ENOUGH_STEPS = 30
"""From so many steps on the record of a run is taken at its word."""

_MOST_STEPS = 200  # later ones say the same
_MOST_RUNS = 20
# Most lines are progress; the name stands in front of each.
_TOLD_BY = ("RunPlanned", "StepCompleted", "MemorySampled", "CheckpointSaved")
_BEGINNINGS = tuple(f'{{"event": "{name}"' for name in _TOLD_BY)

# On one card, 23 runs with all kinds of settings came within 6% of the forecast of its memory.
_MEMORY_SHARE = 0.06
_UNKNOWN_MEMORY_SHARE = 0.10
# Steps of equal runs differ by a tenth; the full size took 1.6 times the forecast on one card.
_SECONDS_SHARE = 0.15
_UNKNOWN_SECONDS = (0.8, 1.7)
# A small model on a processor took 5 times.
_UNKNOWN_SECONDS_NO_CARD = (0.8, 6.0)

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a run should take, by its forecast and by the last run like it.

    Attributes:
        vram: Most memory of the card in use, in bytes; 0 on the processor.
        ram: Most main memory of the process, saves aside, in bytes.
        seconds: Of one optimizer step.
        vram_range: Between what ``vram`` should lie.
        ram_range: Between what ``ram`` should lie.
        seconds_range: Between what ``seconds`` should lie.
    """

    vram: int
    ram: int
    seconds: float
    vram_range: Range
    ram_range: Range
    seconds_range: Range


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was measured in a run, as a multiple of its forecast.

    Attributes:
        run: Name of the run's folder; empty when there is none, and all factors are 1.
        reserved: Of the card's memory that PyTorch reserves.
        ram: Of main memory.
        seconds: Of a step.
    """

    run: str = ""
    reserved: float = 1.0
    ram: float = 1.0
    seconds: float = 1.0

    def expect(self, forecast: MemoryForecast, vram_limit: int) -> Expected:
        """Return what a run with ``forecast`` should take.

        Args:
            forecast: As the planner made it.
            vram_limit: What the run keeps within on the card, in bytes.
        """
        share = _MEMORY_SHARE if self.run else _UNKNOWN_MEMORY_SHARE
        beside = forecast.vram - forecast.reserved
        vram = beside + self.reserved * forecast.reserved
        ram, seconds = self.ram * forecast.ram, self.seconds * forecast.seconds
        low, high = self._pace_range(has_card=forecast.vram > 0)
        most = max(vram, min(vram * (1 + share), vram_limit))
        return Expected(
            vram=round(vram),
            ram=round(ram),
            seconds=seconds,
            vram_range=(vram * (1 - share), most),
            ram_range=(ram * (1 - share), ram * (1 + share)),
            seconds_range=(seconds * low, seconds * high),
        )

    def _pace_range(self, *, has_card: bool) -> Range:
        """Return the range of a step's time as multiples of it."""
        if self.run:
            return 1 - _SECONDS_SHARE, 1 + _SECONDS_SHARE
        return _UNKNOWN_SECONDS if has_card else _UNKNOWN_SECONDS_NO_CARD


def calibrate(output: Path, device: str, num_params: int) -> Calibration:
    """Return what the newest run like this one says; nothing is corrected if there is none.

    Args:
        output: The folder whose ``runs`` are looked at.
        device: Name of the card; empty for the processor.
        num_params: Size of the model; much smaller ones behave differently.
    """
    try:
        found = [path for path in (output / "runs").glob("*/events.jsonl") if path.is_file()]
        found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return Calibration()
    for path in found[:_MOST_RUNS]:
        record = _read(path)
        if record.is_like(device, num_params):
            return record.calibration(path.parent.name)
    return Calibration()


@dataclass(frozen=True)
class _Plan:
    """What a run expected."""

    device: str
    num_params: int
    reserved: int
    ram: int
    seconds: float


@dataclass
class _Record:
    """What a run expected and what it took."""

    plan: _Plan | None = None
    seconds: list[float] = field(default_factory=list)
    reserved: int = 0
    ram_samples: list[tuple[float, int]] = field(default_factory=list)

    @property
    def ram(self) -> int:
        """The most main memory that was seen, saves aside: 0 if none was."""
        return max((size for _, size in self.ram_samples), default=0)

    def take(self, event: dict[str, Any]) -> None:
        """Take a line of the record into account."""
        match event["event"]:
            case "RunPlanned":
                self.plan = _Plan(
                    device=str(event["device_name"]),
                    num_params=int(event["total_parameters"]),
                    reserved=int(event["expected_reserved_bytes"]),
                    ram=int(event["expected_host_bytes"]),
                    seconds=float(event["expected_step_seconds"]),
                )
            case "StepCompleted":
                self.seconds.append(float(event["seconds"]))
            case "MemorySampled" if self.seconds:
                # Before the first step there may be more: the encoders, the model on its way.
                self.reserved = max(self.reserved, int(event["device_reserved"]))
                self.ram_samples.append((float(event["time"]), int(event["process_rss"])))
            case "CheckpointSaved":
                # While a save is written there may be copies of what changes meanwhile.
                begin = float(event["time"]) - float(event["seconds"])
                self.ram_samples = [found for found in self.ram_samples if found[0] < begin]

    def is_like(self, device: str, num_params: int) -> bool:
        """Return whether it tells enough of a run of such a model on such a device."""
        plan = self.plan
        return (
            plan is not None
            and (plan.device, plan.num_params) == (device, num_params)
            and all(0 < figure < math.inf for figure in (plan.ram, plan.seconds, self.ram))
            and len(self.seconds) >= ENOUGH_STEPS
        )

    def calibration(self, run: str) -> Calibration:
        """Return what was measured over what was expected."""
        plan = self.plan
        assert plan is not None
        return Calibration(
            run=run,
            reserved=self.reserved / plan.reserved if plan.reserved and self.reserved else 1.0,
            ram=self.ram / plan.ram,
            seconds=statistics.median(self.seconds) / plan.seconds,
        )


def _read(path: Path) -> _Record:
    """Return what the beginning of a run's events tells; lines that cannot be read are left out."""
    record = _Record()
    for event in _events(path):
        try:
            record.take(event)
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        if len(record.seconds) >= _MOST_STEPS:
            break
    return record


def _events(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if not line.startswith(_BEGINNINGS):
                    continue
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                yield event
    except OSError:
        return
