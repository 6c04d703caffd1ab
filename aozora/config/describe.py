"""Every setting as a list, for documentation, forms and tests."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from aozora.config.codec import choice_members, encode, type_hints
from aozora.config.fields import SettingInfo, info_of, range_text
from aozora.config.lr_schedule import LrSchedule
from aozora.config.schema import TrainConfig
from aozora.registry import family_of, kind_of


@dataclass(frozen=True)
class SettingRow:
    """One setting.

    Attributes:
        path: Dotted path, such as ``loss.weighting.gamma``.
        kind: For options of a choice, which alternative they belong to; else empty.
        info: What was declared.
        type_text: The type in words.
        default: The default as a plain JSON value.
    """

    path: str
    kind: str
    info: SettingInfo
    type_text: str
    default: Any


def iterate_settings() -> Iterator[SettingRow]:
    """Yield every setting there is, sections in their order, options after their choice."""
    yield from _rows(TrainConfig, "", "")


def _rows(cls: type[Any], path: str, kind: str) -> Iterator[SettingRow]:
    hints = type_hints(cls)
    for field in dataclasses.fields(cls):
        annotation = hints[field.name]
        where = f"{path}.{field.name}" if path else field.name
        if not field.metadata:
            yield from _rows(annotation, where, kind)
            continue
        yield SettingRow(where, kind, info_of(field), _type_text(annotation), _default(field))
        for member in choice_members(annotation):
            yield from _rows(member, where, kind_of(member))
        if get_origin(annotation) is tuple and dataclasses.is_dataclass(get_args(annotation)[0]):
            yield from _rows(get_args(annotation)[0], f"{where}[]", kind)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return encode(field.default)
    if field.default_factory is not dataclasses.MISSING:
        return encode(field.default_factory())
    return None


_PLAIN = {bool: "switch", int: "whole number", float: "number", str: "text"}


def _type_text(annotation: Any) -> str:
    if annotation is LrSchedule:
        return "list of points"
    members = choice_members(annotation)
    if members:
        return "one of " + ", ".join(kind_of(member) for member in members)
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(map(str, get_args(annotation)))
    if get_origin(annotation) is tuple:
        item = get_args(annotation)[0]
        return f"list of {_PLAIN.get(item, 'entries')}s".replace("entriess", "entries")
    return _PLAIN[annotation]


def settings_markdown() -> str:
    """Return the reference of all settings as Markdown."""
    lines = [
        "# Settings",
        "",
        "Made by `aozora settings-doc`; do not edit by hand. A setting is changed in the window,"
        " in a JSON file, or on the command line with `--set section.field=value`.",
    ]
    section = ""
    for row in iterate_settings():
        head = row.path.split(".", 1)[0]
        if head != section:
            section = head
            lines += ["", f"## {head}", "", "| setting | type | default | range | meaning |"]
            lines += ["|---|---|---|---|---|"]
        lines.append(_markdown_row(row))
    return "\n".join(lines) + "\n"


def _markdown_row(row: SettingRow) -> str:
    name = f"`{row.path}`" + (f" (for `{row.kind}`)" if row.kind else "")
    default = json.dumps(row.default, ensure_ascii=False)
    if isinstance(row.default, dict):
        default = str(row.default.get("kind", default))
    unit = f" {row.info.unit}" if row.info.unit else ""
    meaning = f"**{row.info.label}.** {row.info.help}"
    cells = [name, row.type_text, f"`{default}`{unit}", range_text(row.info), meaning]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def families() -> dict[str, Any]:
    """Return, by dotted path, the family of alternatives of each choice."""
    found = {}
    for path, annotation in _choices(TrainConfig, ""):
        found[path] = family_of(choice_members(annotation)[0])
    return found


def _choices(cls: type[Any], path: str) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(cls):
        annotation = type_hints(cls)[field.name]
        where = f"{path}.{field.name}" if path else field.name
        if choice_members(annotation):
            yield where, annotation
        elif _is_section(annotation):
            yield from _choices(annotation, where)


def _is_section(annotation: Any) -> bool:
    is_dataclass = isinstance(annotation, type) and dataclasses.is_dataclass(annotation)
    return is_dataclass and annotation is not LrSchedule
