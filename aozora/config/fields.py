"""Declaring a setting: once, with its default, label, help, unit and range."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

_METADATA_KEY = "aozora.setting"

PathKind = Literal["", "file", "folder", "model", "file_or_folder"]


@dataclass(frozen=True, kw_only=True)
class SettingInfo:
    """Everything known about a setting beside its type and default.

    Attributes:
        label: Name shown to users.
        help: What it does, in a sentence or two.
        unit: Unit of the value, such as ``"px"``; empty when it has none.
        minimum: Smallest value allowed, or None.
        maximum: Largest value allowed, or None.
        exclusive_minimum: Whether ``minimum`` itself is refused.
        path: What a text setting names on disk, if anything.
        expert: Whether forms put it behind "more".
        value_labels: For closed sets, what each value is called.
    """

    label: str
    help: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: bool = False
    path: PathKind = ""
    expert: bool = False
    value_labels: tuple[tuple[Any, str], ...] = ()


def setting(
    default: Any = dataclasses.MISSING,
    *,
    label: str,
    help: str,  # noqa: A002 - the word users know
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    exclusive_minimum: bool = False,
    path: PathKind = "",
    expert: bool = False,
    value_labels: tuple[tuple[Any, str], ...] = (),
    default_factory: Callable[[], Any] | None = None,
) -> Any:
    """Declare a dataclass field that is a setting. See `SettingInfo` for the arguments."""
    info = SettingInfo(
        label=label,
        help=help,
        unit=unit,
        minimum=minimum,
        maximum=maximum,
        exclusive_minimum=exclusive_minimum,
        path=path,
        expert=expert,
        value_labels=value_labels,
    )
    metadata = {_METADATA_KEY: info}
    if default_factory is not None:
        return dataclasses.field(default_factory=default_factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def info_of(field: dataclasses.Field[Any]) -> SettingInfo:
    """Return what was declared for ``field``.

    Raises:
        KeyError: if the field was not declared with `setting`.
    """
    info: SettingInfo = field.metadata[_METADATA_KEY]
    return info


def range_text(info: SettingInfo) -> str:
    """Return the allowed range in words; empty when there is none."""
    low = "" if info.minimum is None else f"{info.minimum:g}"
    high = "" if info.maximum is None else f"{info.maximum:g}"
    if low and high:
        return f"{'above ' if info.exclusive_minimum else ''}{low} to {high}"
    if low:
        return f"above {low}" if info.exclusive_minimum else f"{low} or more"
    return f"{high} or less" if high else ""
