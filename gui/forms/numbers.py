"""Between what people type and numbers; free of Qt."""

from __future__ import annotations

import math
import re
from typing import Literal

from aozora.config.fields import SettingInfo, range_text

NumberKind = Literal["int", "float"]

_GROUPED = re.compile(r"[+-]?\d{1,3}(,\d{3})+")


def parse_number(text: str, kind: NumberKind, info: SettingInfo) -> int | float:
    """Return the number typed as ``text``.

    Takes ``1e-6``, a decimal comma, and thousands set apart by commas, spaces or underscores.

    Raises:
        ValueError: saying what is wrong, when it is no number of the kind or out of range.
    """
    plain = text.strip().replace("\u00a0", "").replace("\u202f", "").replace(" ", "")
    plain = plain.replace("_", "").replace("\u2212", "-")
    if kind == "int" and _GROUPED.fullmatch(plain):
        plain = plain.replace(",", "")
    if plain.count(",") == 1 and "." not in plain:
        plain = plain.replace(",", ".")
    if not plain:
        raise ValueError("a number is needed here")
    try:
        value = float(plain)
    except ValueError:
        raise ValueError(f"{text.strip()!r} is not a number") from None
    if not math.isfinite(value):
        raise ValueError("the number must be finite")
    if not _in_range(value, info):
        raise ValueError(f"allowed: {range_text(info)}")
    if kind == "float":
        return value
    if value != int(value):
        raise ValueError("only whole numbers are possible here")
    # A float holds no whole number beyond 2^53 exactly.
    return int(plain) if re.fullmatch(r"[+-]?\d+", plain) else int(value)


def _in_range(value: float, info: SettingInfo) -> bool:
    if info.minimum is not None:
        below = value <= info.minimum if info.exclusive_minimum else value < info.minimum
        if below:
            return False
    return info.maximum is None or value <= info.maximum


def format_number(value: object) -> str:
    """Return ``value`` the shortest way that reads back as the same number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    text = repr(value)
    if "e" in text:
        mantissa, exponent = text.split("e")
        return f"{mantissa}e{int(exponent)}"
    return (
        f"{value:.0e}".replace("e-0", "e-") if 0 < abs(value) < 1e-3 and _is_power(value) else text
    )


def _is_power(value: float) -> bool:
    return float(f"{value:.0e}") == value


def nudged(value: float, kind: NumberKind, ups: int, info: SettingInfo) -> int | float:
    """Return ``value`` after ``ups`` steps with the arrow keys, within the allowed range.

    Whole numbers move by 1; others by a tenth of their own leading digit's place, or by a hundredth
    from 0.
    """
    if kind == "int":
        step = 1.0
    else:
        step = 10.0 ** (math.floor(math.log10(abs(value))) - 1) if value else 0.01
    new = value + ups * step
    if info.minimum is not None:
        new = max(new, info.minimum)
        if info.exclusive_minimum and new == info.minimum:
            new = value
    if info.maximum is not None:
        new = min(new, info.maximum)
    return round(new) if kind == "int" else float(f"{new:.12g}")
