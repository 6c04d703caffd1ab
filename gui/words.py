"""Words of the window that belong to no widget, ready for translation."""

from __future__ import annotations

import math
from collections.abc import Callable

from PySide6.QtCore import QCoreApplication, QLocale


def tr(text: str) -> str:
    """Return ``text`` in the user's language."""
    return QCoreApplication.translate("window", text)


def counted(number: int, one: str, many: str) -> str:
    """Return ``number`` with the right one of two words, both translated already."""
    return f"{whole(number)} {one if number == 1 else many}"


def whole(number: int) -> str:
    """Return a whole number as users of this language write it."""
    return QLocale().toString(number)


def size_text(count: float) -> str:
    """Return a number of bytes with its unit, as disks are sold: 1 GB is 10^9."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            digits = 0 if count >= 100 * size else 1
            return f"{count / size:.{digits}f} {unit}"
    return f"{count:.0f} B"


def memory_text(count: float) -> str:
    """Return a number of bytes of memory with its unit: 1 GiB is 2^30."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.0f} MiB"


def duration_text(seconds: float) -> str:
    """Return a duration in its two largest units."""
    left = max(0, round(seconds))
    days, left = divmod(left, 86_400)
    hours, left = divmod(left, 3600)
    minutes, left = divmod(left, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} m"
    return f"{minutes} m {left} s" if minutes else f"{left} s"


def pace_text(seconds: float) -> str:
    """Return a pace in the unit in which it is a handy number."""
    return f"{seconds:.2f} s/it" if seconds >= 1 else f"{1 / seconds:.1f} it/s"


def between(words: Callable[[float], str], span: tuple[float, float]) -> str:
    """Return a range in ``words``, as 9.8 to 10.6 GiB; empty if it is not known.

    Ends that read the same are one figure, and a single unit that both have is said once.
    """
    low, high = span
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    first, last = words(low), words(high)
    if first == last:
        return tr("about {0}").format(last)
    figure, _, unit = first.partition(" ")
    if unit == last.partition(" ")[2] and " " not in unit:
        return f"{figure}–{last}"  # noqa: RUF001 - the dash of ranges
    return f"{first} – {last}"  # noqa: RUF001 - as above
