"""Numbers as people type and read them: rates, places in a run, steps, shares."""

from __future__ import annotations

import math
import re

_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")


def parse_number(text: str) -> float:
    """Return the number in ``text``; a comma is a decimal point, spaces are ignored.

    Raises:
        ValueError: if it is no finite number.
    """
    plain = re.sub(r"[\s\u00a0\u202f]", "", text)
    if not _NUMBER.fullmatch(plain):
        raise ValueError(f"{text.strip()!r} is not a number")
    value = float(plain.replace(",", "."))
    if not math.isfinite(value):
        raise ValueError(f"{text.strip()!r} is too large")
    return value


def parse_rate(text: str) -> float:
    """Return the learning rate in ``text``, such as ``1e-6`` or ``0,000001``.

    Raises:
        ValueError: if it is no number from 0 to 1.
    """
    value = parse_number(text)
    if not 0.0 <= value <= 1.0:
        raise ValueError("a learning rate is a number from 0 to 1, such as 1e-6")
    return value


def format_rate(rate: float) -> str:
    """Return ``rate`` as it is shown: ``5.00e-06``, and a plain ``0``."""
    return "0" if rate == 0.0 else f"{rate:.2e}"


def format_short_rate(rate: float) -> str:
    """Return ``rate`` without needless digits: ``5e-6``, ``2.5e-6``."""
    if rate == 0.0:
        return "0"
    mantissa, _, exponent = f"{rate:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def format_count(count: float) -> str:
    """Return a whole number with thousands apart: ``12,500``."""
    return f"{round(count):,}"


def format_parameters(count: int) -> str:
    """Return a number of parameters in short: ``2.57 B``, ``590 M``, ``12.3 K``."""
    for limit, unit in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= limit:
            value = count / limit
            digits = 2 if value < 10 else 1 if value < 100 else 0
            return f"{value:.{digits}f} {unit}"
    return str(count)


def significant(value: float, digits: int = 2) -> float:
    """Return ``value`` rounded to ``digits`` significant digits."""
    return float(f"{value:.{digits - 1}e}") if value else 0.0
