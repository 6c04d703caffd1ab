"""Checking names, shapes and formats of what an optimizer is given, before anything is changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

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


def refuse_other_shapes(
    what: str, expected: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> None:
    """Refuse names or shapes that are not exactly those of ``expected``.

    Raises:
        ValueError: listing what differs.
    """
    refuse_other_names(what, expected, given)
    wrong = [
        f"{name} is {_shape(given[name])}, not {_shape(tensor)}"
        for name, tensor in expected.items()
        if given[name].shape != tensor.shape
    ]
    if wrong:
        raise ValueError(f"{what}: {_some(wrong)}")


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


def refuse_other_state(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Refuse a saved state that is not of the same optimizer, tensors and formats as ``current``.

    Args:
        saved: What `MasterOptimizer.state_dict` returned, once.
        current: What it returns now.

    Raises:
        ValueError: saying what differs.
    """
    refuse_other_names("optimizer state", current, saved)
    for key in ("kind", "formats"):
        if saved[key] != current[key]:
            raise ValueError(f"optimizer state: {key} is {saved[key]!r}, not {current[key]!r}")
    for key in ("t", "seed"):
        if not isinstance(saved[key], int) or saved[key] < 0:
            raise ValueError(f"optimizer state: {key} is {saved[key]!r}, not a count")
    for key in ("state", "master"):
        _refuse_other_tensors(f"optimizer {key}", saved[key], current[key])


def _refuse_other_tensors(
    what: str,
    saved: Mapping[str, Mapping[str, Tensor]],
    current: Mapping[str, Mapping[str, Tensor]],
) -> None:
    refuse_other_names(what, current, saved)
    for name, tensors in current.items():
        refuse_other_shapes(f"{what} of {name}", tensors, saved[name])
        for key, tensor in tensors.items():
            if saved[name][key].dtype != tensor.dtype:
                raise ValueError(
                    f"{what} of {name}: {key} is {saved[name][key].dtype}, not {tensor.dtype}"
                )


def _some(items: list[str]) -> str:
    more = len(items) - _MOST_SHOWN
    shown = ", ".join(items[:_MOST_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
