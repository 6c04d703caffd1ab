"""What kind of field each setting needs, read from its declaration; free of widgets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, get_args, get_origin

from aozora.config.codec import choice_members, type_hints
from aozora.config.fields import SettingInfo, info_of
from aozora.config.schema import TrainConfig
from aozora.registry import family_of, kind_of
from gui.forms.numbers import format_number
from gui.words import tr

FieldKind = Literal["int", "float", "text", "path", "switch", "set", "choice", "texts", "own"]


@dataclasses.dataclass(frozen=True)
class Shape:
    """One setting as a form sees it.

    Attributes:
        path: Dotted path.
        kind: Field it is edited with; ``own`` has an editor of its own on its page.
        info: What was declared.
        of_kind: For options of a choice, the kind they belong to; else empty.
        values: For closed sets and choices, each value with what it is called.
    """

    path: str
    kind: FieldKind
    info: SettingInfo
    of_kind: str = ""
    values: tuple[tuple[Any, str], ...] = ()


@cache
def shapes() -> tuple[Shape, ...]:
    """Return every setting, options after their choice."""
    return tuple(_shapes(TrainConfig, "", ""))


@cache
def _by_path() -> dict[tuple[str, str], Shape]:
    return {(shape.path, shape.of_kind): shape for shape in shapes()}


def shape_of(path: str, of_kind: str = "") -> Shape:
    """Return the setting at ``path``.

    Raises:
        KeyError: if there is none.
    """
    return _by_path()[path, of_kind]


def options_of(path: str, kind: str) -> tuple[Shape, ...]:
    """Return the options that the choice at ``path`` has with ``kind``."""
    return tuple(
        shape
        for shape in shapes()
        if shape.of_kind == kind and shape.path.rpartition(".")[0] == path
    )


def paths_in(*sections: str) -> tuple[str, ...]:
    """Return the settings of ``sections``, options excepted, in the order of declaration."""
    return tuple(
        shape.path
        for shape in shapes()
        if not shape.of_kind and shape.path.split(".")[0] in sections
    )


def _shapes(cls: type[Any], path: str, of_kind: str) -> Iterator[Shape]:
    hints = type_hints(cls)
    for field in dataclasses.fields(cls):
        annotation = hints[field.name]
        where = f"{path}.{field.name}" if path else field.name
        if not field.metadata:
            yield from _shapes(annotation, where, of_kind)
            continue
        info = info_of(field)
        kind = _kind(annotation, info)
        yield Shape(where, kind, info, of_kind, _values(annotation, info))
        for member in choice_members(annotation):
            yield from _shapes(member, where, kind_of(member))


_PLAIN: dict[Any, FieldKind] = {bool: "switch", int: "int", float: "float", str: "text"}


def _kind(annotation: Any, info: SettingInfo) -> FieldKind:
    if choice_members(annotation):
        return "choice"
    if get_origin(annotation) is Literal:
        return "set"
    if get_origin(annotation) is tuple:
        return "texts" if get_args(annotation)[0] is str else "own"
    if annotation is str and info.path:
        return "path"
    return _PLAIN.get(annotation, "own")


def _values(annotation: Any, info: SettingInfo) -> tuple[tuple[Any, str], ...]:
    members = choice_members(annotation)
    if members:
        family = family_of(members[0])
        assert family is not None
        return tuple((kind_of(member), family.label(kind_of(member))) for member in members)
    if get_origin(annotation) is Literal:
        labels = dict(info.value_labels)
        return tuple((value, labels.get(value, str(value))) for value in get_args(annotation))
    return ()


def value_text(shape: Shape, value: Any) -> str:
    """Return ``value`` as a person reads it."""
    if shape.kind == "choice" and isinstance(value, dict):
        value = value.get("kind")
    for candidate, label in shape.values:
        if candidate == value:
            return tr(label)
    if isinstance(value, bool):
        return tr("on") if value else tr("off")
    if isinstance(value, list):
        return _list_text(value)
    if value == "":
        return tr("empty")
    text = format_number(value)
    return f"{text} {tr(shape.info.unit)}" if shape.info.unit else text


def _list_text(values: list[Any]) -> str:
    if not values:
        return tr("none")
    if all(isinstance(item, dict) for item in values):
        return ", ".join(str(item.get("path", "")) for item in values)
    if all(isinstance(item, list) for item in values):
        return tr("{0} points").format(len(values))
    words = ", ".join(format_number(item) for item in values)
    return words if len(words) <= 60 else tr("{0} values").format(len(values))
