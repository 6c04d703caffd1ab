"""What a check says of a run's memory and pace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aozora.memory.accounting import GIB
from aozora.memory.memory_plan import MemoryPlan
from aozora.training.calibration import Calibration, Range


@dataclass(frozen=True, kw_only=True)
class MemorySummary:
    """What a run is expected to take, and where everything goes.

    Attributes:
        vram_bytes: Most memory of the card in use, CUDA's own with it; 0 on the processor.
        vram_range: Between what that should lie.
        ram_bytes: Most main memory of the process, saves aside.
        ram_range: Between what that should lie.
        pinned_bytes: How much of it is page-locked.
        step_seconds: Of one optimizer step.
        step_seconds_range: Between what that should lie.
        calibrated_by: The run whose measurements all of this follows; empty if there is none.
        vram_parts: What the forecast of the card's memory is made of.
        ram_parts: What the forecast of main memory is made of.
        arrangement: What goes where, in plain words.
    """

    vram_bytes: int
    vram_range: Range
    ram_bytes: int
    ram_range: Range
    pinned_bytes: int
    step_seconds: float
    step_seconds_range: Range
    calibrated_by: str
    vram_parts: tuple[tuple[str, int], ...]
    ram_parts: tuple[tuple[str, int], ...]
    arrangement: str

    def lines(self) -> Iterator[str]:
        """Yield it for a terminal."""
        amounts = [f"{_gib(self.ram_range)} of main memory"]
        if self.vram_bytes:
            amounts.insert(0, f"{_gib(self.vram_range)} of graphics memory")
        yield f"  Memory       {' and '.join(amounts)}. {self.arrangement}"
        low, high = self.step_seconds_range
        source = f"as in {self.calibrated_by}" if self.calibrated_by else "no run like it is known"
        yield f"  Pace         {low:.2g} to {high:.2g} s a step ({source})"


def _gib(span: Range) -> str:
    low, high = (end / GIB for end in span)
    return f"{low:.1f} to {high:.1f} GiB"


def summarise_memory(
    plan: MemoryPlan, calibration: Calibration, vram_allowed: int
) -> MemorySummary:
    """Return what ``plan`` comes to.

    Args:
        plan: Of the run.
        calibration: How far forecasts are off here.
        vram_allowed: What the run keeps within on the card, in bytes.
    """
    expected = calibration.expect(plan.predicted, vram_allowed)
    return MemorySummary(
        vram_bytes=expected.vram,
        vram_range=expected.vram_range,
        ram_bytes=expected.ram,
        ram_range=expected.ram_range,
        pinned_bytes=plan.predicted.pinned,
        step_seconds=expected.seconds,
        step_seconds_range=expected.seconds_range,
        calibrated_by=calibration.run,
        vram_parts=plan.predicted.vram_parts,
        ram_parts=plan.predicted.ram_parts,
        arrangement=plan.arrangement,
    )
