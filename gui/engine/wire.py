"""Reading the engine's pipe: an event when the line is one, and nothing that could hurt."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from typing import Any

from aozora.events import EVENT_TYPES, Event, StepCompleted, from_json, to_json

__all__ = ["LONGEST_LINE_BYTES", "parse_line", "parse_recorded_line", "plain_of", "to_json"]

# No event comes near; whatever is longer is no event and is taken in pieces.
LONGEST_LINE_BYTES = 4 << 20


_EMPTY: dict[Any, Any] = {int: 0, float: 0.0, str: "", bool: False}
_HINTS = {cls: typing.get_type_hints(cls) for cls in EVENT_TYPES.values()}


def parse_recorded_line(line: str) -> Event | None:
    """Return the event in a line of a recorded run, as `parse_line`.

    What an event did not have yet when the run was recorded is zero or empty.
    """
    try:
        return parse_line(line) or _parse_older(line)
    except RecursionError:
        return None


def _parse_older(line: str) -> Event | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    cls = EVENT_TYPES.get(str(record.get("event"))) if isinstance(record, dict) else None
    if cls is None or cls is StepCompleted:
        return None
    missing = {name: _EMPTY.get(hint) for name, hint in _HINTS[cls].items() if name not in record}
    if not missing or any(value is None for value in missing.values()):
        return None
    return parse_line(json.dumps(record | missing))


def parse_line(line: str) -> Event | None:
    """Return the event in ``line``, or None when it is something else.

    A number that is not finite travels as null and becomes NaN again. A line that has the name of
    an event but other types in it is no event: it would break whoever counts with it.
    """
    if not line.startswith("{"):
        return None
    try:
        event = from_json(line)
    except (ValueError, RecursionError):
        return None
    changes: dict[str, Any] = {}
    for name, hint in _HINTS[type(event)].items():
        value = getattr(event, name)
        fitted = _fit(hint, value)
        if fitted is _MISFIT:
            return None
        if fitted is not value:
            changes[name] = fitted
    return dataclasses.replace(event, **changes) if changes else event


_MISFIT: Any = object()


def _fit(hint: Any, value: Any) -> Any:
    """Return ``value`` as ``hint`` wants it, the same object where nothing is to change."""
    if hint is float:
        if value is None:
            return math.nan
        return value if type(value) in (int, float) else _MISFIT
    if hint in (int, str, bool):
        return value if type(value) is hint else _MISFIT
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return value if isinstance(value, str) and value in arguments else _MISFIT
    if origin is list:
        return _fit_list(arguments[0], value)
    if origin is dict:
        if not isinstance(value, dict):
            return _MISFIT
        fits = all(_fit(arguments[1], item) is item for item in value.values())
        return value if fits else _MISFIT
    return value


def _fit_list(hint: Any, value: Any) -> Any:
    if not isinstance(value, list):
        return _MISFIT
    fitted = [_fit(hint, item) for item in value]
    if any(item is _MISFIT for item in fitted):
        return _MISFIT
    same = all(new is old for new, old in zip(fitted, value, strict=True))
    return value if same else fitted


def plain_of(event: Event) -> dict[str, Any]:
    """Return ``event`` as plain values with its name, for comparing streams."""
    record: dict[str, Any] = json.loads(to_json(event, "", 0.0))
    del record["time"], record["run_id"]
    assert record["event"] in EVENT_TYPES
    return record
