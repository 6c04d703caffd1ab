"""Numbers as people read them beside charts, with a dash for what is not known."""

from __future__ import annotations

import math

from gui.words import duration_text, memory_text, whole

DASH = "\N{EN DASH}"


def short_number(value: float) -> str:
    """Return ``value`` with about four digits: 0.09120, 1.23e-06, 12.40."""
    if not math.isfinite(value):
        return DASH
    if value == 0.0:
        return "0"
    size = abs(value)
    if size < 1e-3 or size >= 1e6:
        return f"{value:.2e}"
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(size)))}f}"


def whole_text(value: float) -> str:
    """Return a count with separators."""
    return whole(round(value)) if math.isfinite(value) else DASH


def span_text(seconds: float) -> str:
    """Return a time span in its two largest units."""
    return duration_text(seconds) if math.isfinite(seconds) else DASH


def seconds_text(seconds: float) -> str:
    """Return a short time: 1.56 s, 12 ms."""
    if not math.isfinite(seconds):
        return DASH
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1000:.1f} ms"


def bytes_text(count: float) -> str:
    """Return a number of bytes of memory."""
    return memory_text(count) if math.isfinite(count) else DASH
