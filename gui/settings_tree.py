"""Reading and changing sparse settings by dotted path; tolerant where files have faults.

An *overlay* is what a config or preset file holds: nested plain JSON values, only what differs from
the defaults. Nothing here changes its arguments, and nothing unknown is ever dropped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from aozora.config.codec import choice_members, decode_config, encode, type_hints
from aozora.config.schema import TrainConfig
from aozora.errors import ConfigError
from aozora.registry import kind_of

Overlay = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Choice:
    """A setting that is one of several option classes.

    Attributes:
        default: Kind taken when none is named.
        options: The default options of each kind, the kind itself included.
    """

    default: str
    options: Mapping[str, Mapping[str, Any]]


@cache
def _defaults() -> Mapping[str, Any]:
    tree: dict[str, Any] = encode(TrainConfig())
    return tree


@cache
def choices() -> Mapping[str, Choice]:
    """Return every choice among option classes, by dotted path."""
    found: dict[str, Choice] = {}
    for path, field, annotation in _fields(TrainConfig, ""):
        members = choice_members(annotation)
        if members:
            default = value_at(_defaults(), path)["kind"]
            options = {kind_of(member): encode(member()) for member in members}
            found[path] = Choice(default, options)
            assert field.metadata
    return found


def _fields(cls: type[Any], path: str) -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    hints = type_hints(cls)
    for field in dataclasses.fields(cls):
        where = f"{path}.{field.name}" if path else field.name
        if field.metadata:
            yield where, field, hints[field.name]
        else:
            yield from _fields(hints[field.name], where)


@cache
def setting_paths() -> frozenset[str]:
    """Return the paths of all settings, options of choices excepted."""
    return frozenset(path for path, _, _ in _fields(TrainConfig, ""))


def value_at(tree: Any, path: str) -> Any:
    """Return what stands at ``path`` in nested values.

    Raises:
        KeyError: if there is no such path.
    """
    node = tree
    for name in path.split(".") if path else ():
        if not isinstance(node, Mapping) or name not in node:
            raise KeyError(path)
        node = node[name]
    return node


def effective(overlay: Overlay) -> dict[str, Any]:
    """Return ``overlay`` completed with defaults.

    As the engine writes them, when it can read them. Else values that cannot be what their place
    asks for are kept when the place is a plain setting, and taken as absent when a section or
    choice was expected: the codec reports both.
    """
    try:
        tree: dict[str, Any] = encode(decode_config(overlay))
    except ConfigError:
        tree = _completed(_defaults(), overlay, "")
    return tree


def _completed(defaults: Mapping[str, Any], overlay: Any, path: str) -> dict[str, Any]:
    given: Overlay = overlay if isinstance(overlay, Mapping) else {}
    result: dict[str, Any] = {}
    for name, default in defaults.items():
        where = f"{path}.{name}" if path else name
        if where in choices():
            result[name] = _completed_choice(choices()[where], given.get(name))
        elif isinstance(default, Mapping):
            result[name] = _completed(default, given.get(name), where)
        else:
            result[name] = given.get(name, default)
    return result


def _completed_choice(choice: Choice, raw: Any) -> dict[str, Any]:
    given = {"kind": raw} if isinstance(raw, str) else raw
    kind = given.get("kind", choice.default) if isinstance(given, Mapping) else None
    if not isinstance(kind, str) or kind not in choice.options:
        return dict(choice.options[choice.default])
    return {**choice.options[kind], **given}


def default_at(values: Mapping[str, Any], path: str) -> Any:
    """Return the default at ``path``; of an option, that of the kind chosen in ``values``.

    Raises:
        KeyError: if there is no such setting, or not with that kind.
    """
    parent, _, name = path.rpartition(".")
    if parent in choices():
        kind = value_at(values, parent)["kind"]
        return choices()[parent].options[kind][name]
    return value_at(_defaults(), path)


def with_value(overlay: Overlay, path: str, value: Any) -> dict[str, Any]:
    """Return ``overlay`` with ``value`` at ``path``; another kind of a choice starts anew."""
    return _with(overlay, path.split("."), "", value)


def _with(node: Any, names: list[str], path: str, value: Any) -> dict[str, Any]:
    result: dict[str, Any] = dict(node) if isinstance(node, Mapping) else {}
    if path in choices():
        choice = choices()[path]
        result = {"kind": node} if isinstance(node, str) else result
        result.setdefault("kind", choice.default)
        if names == ["kind"]:
            return result if result["kind"] == value else {"kind": value}
    head, rest = names[0], names[1:]
    if rest:
        inner = f"{path}.{head}" if path else head
        result[head] = _with(result.get(head), rest, inner, value)
    else:
        result[head] = value
    return result


def without(overlay: Overlay, path: str) -> dict[str, Any]:
    """Return ``overlay`` with nothing at ``path``, so that the default holds there."""
    head, _, rest = path.partition(".")
    result = dict(overlay)
    if head not in result:
        return result
    if not rest:
        del result[head]
        return result
    if isinstance(result[head], Mapping):
        result[head] = without(result[head], rest)
        if not result[head]:
            del result[head]
    return result


def changed_paths(old: Overlay, new: Overlay) -> frozenset[str]:
    """Return every path whose effective value differs; of a choice also that of the choice."""
    return frozenset(_differences(effective(old), effective(new), ""))


def _differences(old: Any, new: Any, path: str) -> Iterator[str]:
    # Where another setting has a fault, a whole number stands as it was written: 0, not 0.0.
    if old == new and isinstance(old, bool) is isinstance(new, bool):
        return
    if path in setting_paths() or not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        yield path
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys([*old, *new]):
            where = f"{path}.{name}" if path else name
            yield from _differences(old.get(name), new.get(name), where)


def only(overlay: Overlay, paths: Iterable[str]) -> dict[str, Any]:
    """Return of ``overlay`` what stands at ``paths``."""
    result: dict[str, Any] = {}
    for path in paths:
        try:
            result = with_value(result, path, value_at(overlay, path))
        except KeyError:
            continue
    return result
