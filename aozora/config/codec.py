"""Between configurations and plain JSON values; strict, and listing every fault at once.

A wrong type is never converted, an unknown key never dropped, a bad value never replaced. The one
conversion is from a whole number to a float, since JSON writers do not tell them apart.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from aozora.config.fields import SettingInfo, info_of, range_text
from aozora.config.lr_schedule import LrSchedule
from aozora.config.schema import SCHEMA_VERSION, TrainConfig
from aozora.errors import ConfigError, Problem
from aozora.registry import did_you_mean, family_of, kind_of

_MAX_CONFIG_BYTES = 16 * 2**20


class _Faults:
    """The problems found so far."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, path: str, text: str, remedy: str = "") -> None:
        self.problems.append(Problem(path, text, remedy))


def type_hints(cls: type[Any]) -> dict[str, Any]:
    """Return the resolved annotations of the dataclass ``cls``."""
    return typing.get_type_hints(cls)


def choice_members(annotation: Any) -> tuple[type[Any], ...]:
    """Return the option classes when ``annotation`` is a choice among registered ones, else ()."""
    members = get_args(annotation) if is_union(annotation) else (annotation,)
    if members and all(isinstance(m, type) and family_of(m) is not None for m in members):
        return tuple(members)
    return ()


def is_union(annotation: Any) -> bool:
    """Return whether ``annotation`` is ``A | B``."""
    return get_origin(annotation) in (Union, types.UnionType)


def encode(value: Any) -> Any:
    """Return ``value`` (a configuration or a part of one) as plain JSON values."""
    if isinstance(value, LrSchedule):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": kind_of(value), **plain} if family_of(type(value)) is not None else plain
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    return value


def encode_config(config: TrainConfig) -> dict[str, Any]:
    """Return ``config`` as a JSON object, every setting written out."""
    return {"schema": SCHEMA_VERSION, **encode(config)}


def decode_config(data: Any) -> TrainConfig:
    """Return the configuration ``data`` describes; settings left out have their defaults.

    Raises:
        ConfigError: listing every unknown key, wrong type and value out of range.
    """
    faults = _Faults()
    if not isinstance(data, Mapping):
        raise ConfigError([Problem("", f"a configuration is a JSON object, not {_name(data)}")])
    body = {key: value for key, value in data.items() if key != "schema"}
    version = data.get("schema", SCHEMA_VERSION)
    if isinstance(version, bool) or version != SCHEMA_VERSION:
        faults.add(
            "schema",
            f"version {version!r} is not known",
            f"this program reads version {SCHEMA_VERSION}; a newer file needs a newer Aozora",
        )
    config = _decode_dataclass(TrainConfig, body, "", faults)
    if faults.problems:
        raise ConfigError(faults.problems)
    assert isinstance(config, TrainConfig)
    return config


def _decode_dataclass(cls: type[Any], data: Any, path: str, faults: _Faults) -> Any:
    if not isinstance(data, Mapping):
        faults.add(path, f"must be an object with settings, not {_name(data)}")
        return None
    hints = type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    for key in data:
        if key not in names:
            faults.add(_join(path, str(key)), "unknown setting", did_you_mean(str(key), names))
    before = len(faults.problems)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.name in data:
            info = info_of(field) if field.metadata else None
            where = _join(path, field.name)
            values[field.name] = _decode(hints[field.name], data[field.name], where, info, faults)
    return cls(**values) if len(faults.problems) == before else None


def _decode(
    annotation: Any, value: Any, path: str, info: SettingInfo | None, faults: _Faults
) -> Any:
    if annotation is LrSchedule:
        return _decode_schedule(value, path, faults)
    members = choice_members(annotation)
    if members:
        return _decode_choice(members, value, path, faults)
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return _decode_dataclass(annotation, value, path, faults)
    origin = get_origin(annotation)
    if origin is Literal:
        return _decode_literal(get_args(annotation), value, path, faults)
    if origin is tuple:
        return _decode_tuple(get_args(annotation)[0], value, path, info, faults)
    return _decode_plain(annotation, value, path, info, faults)


def _decode_schedule(value: Any, path: str, faults: _Faults) -> Any:
    try:
        return LrSchedule.from_json(value)
    except (TypeError, ValueError) as error:
        faults.add(
            path, str(error), 'write points as [place, rate, shape], such as [0, 1e-6, "log"]'
        )
        return None


def _decode_choice(members: tuple[type[Any], ...], value: Any, path: str, faults: _Faults) -> Any:
    kinds = {kind_of(member): member for member in members}
    known = ", ".join(kinds)
    if isinstance(value, str):
        value = {"kind": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
        faults.add(path, 'must be an object with a "kind"', f"one of: {known}")
        return None
    kind = value["kind"]
    if kind not in kinds:
        guess = did_you_mean(kind, list(kinds))
        faults.add(path, f"there is no {kind!r}", guess or f"one of: {known}")
        return None
    options = {key: item for key, item in value.items() if key != "kind"}
    return _decode_dataclass(kinds[kind], options, path, faults)


def _decode_literal(allowed: tuple[Any, ...], value: Any, path: str, faults: _Faults) -> Any:
    for candidate in allowed:
        if type(candidate) is type(value) and candidate == value:
            return candidate
    known = ", ".join(map(str, allowed))
    guess = (
        did_you_mean(value, [a for a in allowed if isinstance(a, str)])
        if isinstance(value, str)
        else ""
    )
    faults.add(path, f"{value!r} is not possible here", guess or f"one of: {known}")
    return None


def _decode_tuple(
    item: Any, value: Any, path: str, info: SettingInfo | None, faults: _Faults
) -> Any:
    if not isinstance(value, list | tuple):
        faults.add(path, f"must be a list, not {_name(value)}")
        return None
    return tuple(
        _decode(item, entry, f"{path}[{number}]", info, faults)
        for number, entry in enumerate(value)
    )


_PLAIN_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _decode_plain(
    annotation: Any, value: Any, path: str, info: SettingInfo | None, faults: _Faults
) -> Any:
    if annotation is float and type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            faults.add(path, "the number is too large")
            return None
    if type(value) is not annotation:
        faults.add(path, f"must be {_PLAIN_NAMES[annotation]}, not {_name(value)}")
        return None
    if annotation is float and not math.isfinite(value):
        faults.add(path, "must be a finite number")
        return None
    if annotation is str and "\0" in value:
        faults.add(path, "must not hold a NUL character")
        return None
    if info is not None and annotation in (int, float) and not _in_range(value, info):
        faults.add(path, f"{value!r} is out of range", f"allowed: {range_text(info)}")
        return None
    return value


def _in_range(value: float, info: SettingInfo) -> bool:
    if info.minimum is not None:
        below = value <= info.minimum if info.exclusive_minimum else value < info.minimum
        if below:
            return False
    return info.maximum is None or value <= info.maximum


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _name(value: Any) -> str:
    if value is None:
        return "null"
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else text[:37] + "..."


def parse_json(text: str) -> Any:
    """Parse JSON, refusing what Python's parser lets through.

    Raises:
        ValueError: for NaN, infinities, numbers beyond float64, duplicate keys or broken JSON.
    """

    def refuse_constant(name: str) -> Any:
        raise ValueError(f"{name} is not a JSON number")

    def finite(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError(f"the number {text} is too large")
        return value

    def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise ValueError(f"the key {key!r} is given twice")
            result[key] = value
        return result

    try:
        return json.loads(
            text, parse_constant=refuse_constant, parse_float=finite, object_pairs_hook=unique
        )
    except RecursionError:
        raise ValueError("the values are nested too deeply") from None


def read_json(path: Path) -> Any:
    """Return the JSON value in the file ``path``.

    Raises:
        ConfigError: naming the file, when it cannot be read or is not strict JSON.
    """

    def refuse(text: str, remedy: str = "") -> ConfigError:
        return ConfigError([Problem("", f"{path}: {text}", remedy)])

    try:
        if not path.is_file():
            raise refuse("there is no such file")
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise refuse("is too large for a configuration", "is it the right file?")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise refuse(error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise refuse("is not UTF-8 text", "save it as UTF-8") from error
    try:
        return parse_json(text)
    except ValueError as error:
        raise refuse(f"is not valid JSON: {error}") from error


def load_config(path: Path) -> TrainConfig:
    """Return the configuration in the file ``path``.

    Raises:
        ConfigError: when the file cannot be read or has faults.
    """
    return decode_config(read_json(path))


def overlay(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the settings in ``patch`` replaced; another kind starts anew."""
    result = dict(base)
    for key, value in patch.items():
        old = result.get(key)
        same_kind = isinstance(old, Mapping) and isinstance(value, Mapping)
        if same_kind and "kind" in value and old.get("kind") != value["kind"]:  # type: ignore[union-attr]
            same_kind = False
        result[key] = overlay(old, value) if same_kind else value  # type: ignore[arg-type]
    return result


def apply_settings(config: TrainConfig, assignments: Iterable[str]) -> TrainConfig:
    """Return ``config`` with assignments such as ``training.steps=20`` applied in order.

    Values are JSON; what is not JSON is taken as text. Where the setting is a text it is taken as
    it stands (``output.name=1.10``), unless it is in quotes, which are then JSON's. Naming a kind
    (``loss.weighting=min_snr``) resets its options.

    Raises:
        ConfigError: for paths that do not exist and values that do not fit.
    """
    problems: list[Problem] = []
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            problems.append(Problem(assignment, "is no assignment", "write section.field=value"))
            continue
        try:
            config = _replaced(config, path.strip(), partial(_read_value, text))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return config


def _read_value(text: str, old: Any) -> Any:
    """Return what ``text`` stands for in the place of the plain value ``old``."""
    if isinstance(old, str) and not text.lstrip().startswith('"'):
        # 1.10, 1e3 and true are names too, and must not come back as other ones.
        return text
    try:
        return parse_json(text)
    except ValueError:
        return text


def _assign(
    data: dict[str, Any], path: str, value_for: Callable[[Any], Any], faults: _Faults
) -> None:
    *parents, last = path.split(".")
    node: Any = data
    for depth, name in enumerate(parents):
        if not isinstance(node, dict) or name not in node:
            known = list(node) if isinstance(node, dict) else []
            where = ".".join(path.split(".")[: depth + 1])
            faults.add(where, "unknown setting", did_you_mean(name, known))
            return
        node = node[name]
    if not isinstance(node, dict) or last not in node:
        known = list(node) if isinstance(node, dict) else []
        faults.add(path, "unknown setting", did_you_mean(last, known))
        return
    old = node[last]
    value = value_for(old)
    if isinstance(old, dict) and "kind" in old and isinstance(value, str):
        value = {"kind": value}
    node[last] = value


def replace_at(config: TrainConfig, path: str, value: Any) -> TrainConfig:
    """Return ``config`` with the plain JSON ``value`` at the dotted ``path``.

    Raises:
        ConfigError: as `apply_settings`.
    """
    return _replaced(config, path, lambda old: value)


def _replaced(config: TrainConfig, path: str, value_for: Callable[[Any], Any]) -> TrainConfig:
    """Return ``config`` with what ``value_for`` makes of the plain value at ``path``."""
    faults = _Faults()
    data = encode_config(config)
    _assign(data, path, value_for, faults)
    if faults.problems:
        raise ConfigError(faults.problems)
    return decode_config(data)
