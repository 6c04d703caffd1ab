"""The mean loss of a run at each part of the noise range, read from its event log."""

from __future__ import annotations

import json
import math
from pathlib import Path

from aozora.errors import AozoraError


def mean_losses(folder: Path, bins: int) -> list[float | None]:
    """Return the mean loss of each of ``bins`` parts; None where nothing was drawn.

    Args:
        folder: Folder of the run, or its events.jsonl.
        bins: Number of equal parts of the timesteps.

    Raises:
        AozoraError: if there is no event log, or no step in it.
    """
    path = folder / "events.jsonl" if folder.is_dir() else folder
    sums, counts = [0.0] * bins, [0] * bins
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                _add(line, sums, counts)
    except (OSError, UnicodeDecodeError) as error:
        text = f"{path}: no event log of a run can be read there"
        raise AozoraError(text, "choose a folder under runs") from error
    if not any(counts):
        raise AozoraError(f"{path}: the run made no step", "choose another run")
    return [total / count if count else None for total, count in zip(sums, counts, strict=True)]


def _add(line: str, sums: list[float], counts: list[int]) -> None:
    # A run that was killed may leave half a line at the end.
    try:
        entry = json.loads(line)
    except ValueError:
        return
    if not isinstance(entry, dict) or entry.get("event") != "StepCompleted":
        return
    # As drawn: rectified flow shifts what the bars stand for.
    tickets, losses = entry.get("tickets", []), entry.get("sample_losses", [])
    for ticket, loss in zip(tickets, losses, strict=False):
        if isinstance(loss, int | float) and math.isfinite(loss):
            bar = min(max(int(ticket) * len(sums) // 1000, 0), len(sums) - 1)
            sums[bar] += loss
            counts[bar] += 1


def as_weights(losses: list[float | None]) -> list[float]:
    """Return bars in proportion to the losses, with a mean of 1; unknown ones are 1."""
    known = [loss for loss in losses if loss is not None and loss > 0.0]
    mean = math.fsum(known) / len(known) if known else 1.0
    return [1.0 if loss is None else round(min(loss / mean, 8.0), 3) for loss in losses]
