"""Numbers as people read them, in the window only; files have their own form."""

from __future__ import annotations

import math

GIB = 2**30


def short_number(value: float) -> str:
    """Return ``value`` with about four digits: 0.0912, 1.23e-06, 12.4."""
    if not math.isfinite(value):
        return "\N{EN DASH}"
    if value == 0.0:
        return "0"
    size = abs(value)
    if size < 1e-3 or size >= 1e6:
        return f"{value:.2e}"
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(size)))}f}"


def whole(value: float) -> str:
    """Return a count with separators: 12,345."""
    return f"{value:,.0f}" if math.isfinite(value) else "\N{EN DASH}"


def duration(seconds: float) -> str:
    """Return a time span in its two largest units: 3 h 48 min, 12 s."""
    if not math.isfinite(seconds):
        return "\N{EN DASH}"
    total = round(seconds)
    days, rest = divmod(max(0, total), 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, rest = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    if minutes:
        return f"{minutes} min {rest:02d} s"
    return f"{rest} s"


def pace(seconds_per_step: float) -> str:
    """Return how fast steps come: 1.56 s/step, 12.3 steps/s."""
    if not math.isfinite(seconds_per_step) or seconds_per_step <= 0:
        return "\N{EN DASH}"
    if seconds_per_step < 0.5:
        return f"{1 / seconds_per_step:.1f} steps/s"
    return f"{seconds_per_step:.2f} s/step"


def gibibytes(count: float) -> str:
    """Return a number of bytes in GiB: 11.2 GiB."""
    return f"{count / GIB:.1f} GiB" if math.isfinite(count) else "\N{EN DASH}"
