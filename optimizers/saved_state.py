"""Checking names, shapes and formats of what an optimizer is given, before anything is changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

_MOST_SHOWN = 5


def refuse_other_names(what: str, expected: Collection[str], given: Collection[str]) -> None:
    """Refuse names that are not exactly the expected ones.

    Raises:
        ValueError: listing what is missing and what is unexpected.
    """
    missing = [name for name in expected if name not in given]
    unexpected = [name for name in given if name not in expected]
    if missing or unexpected:
        parts = [
            f"{len(names)} {word} ({_some(names)})"
            for word, names in (("missing", missing), ("unexpected", unexpected))
            if names
        ]
        raise ValueError(f"{what}: {', '.join(parts)}")


def refuse_other_facts(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Refuse a saved state whose plain values are not of the same optimizer as ``current``.

    Args:
        saved: What a state holds beside its tensors.
        current: What it would hold now.

    Raises:
        ValueError: saying what differs.
    """
    for key in ("kind", "formats"):
        if saved.get(key) != current[key]:
            raise ValueError(f"optimizer state: {key} is {saved.get(key)!r}, not {current[key]!r}")
    for key in ("t", "seed"):
        if not isinstance(saved.get(key), int) or saved[key] < 0:
            raise ValueError(f"optimizer state: {key} is {saved.get(key)!r}, not a count")
    if not isinstance(saved.get("state"), Mapping):
        raise ValueError("optimizer state: no tensors")  # noqa: TRY004 - one kind of error


def _some(items: list[str]) -> str:
    more = len(items) - _MOST_SHOWN
    shown = ", ".join(items[:_MOST_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown
