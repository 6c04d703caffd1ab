"""The configuration under the user's hands: one document, one undo history.

Every page reads values from it and changes it through `Document.set_values`; none keeps settings of
its own.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from PySide6.QtCore import QObject, Signal

from aozora.config.checks import check_config
from aozora.config.codec import decode_config, overlay, read_json
from aozora.config.presets import Preset
from aozora.config.schema import SCHEMA_VERSION, TrainConfig
from aozora.errors import ConfigError, Problem
from aozora.runtime import write_json_atomic
from gui.history import History
from gui.settings_tree import (
    Overlay,
    changed_paths,
    default_at,
    effective,
    only,
    value_at,
    with_value,
    without,
)

OriginKind = Literal["new", "preset", "file", "state"]

# What a preset never brings along and therefore never takes away.
OWN_PATHS = (
    "model.base",
    "model.vae",
    "model.text_encoders",
    "model.tokenizer",
    "data.folders",
    "cache.folder",
    "output.folder",
)


@dataclass(frozen=True)
class Origin:
    """Where a document came from.

    Attributes:
        kind: What it came from.
        name: What the title bar calls it.
        path: Its file, when saving again goes there.
    """

    kind: OriginKind = "new"
    name: str = "untitled"
    path: Path | None = None


@dataclass(frozen=True)
class _Snapshot:
    """What one step of undo holds.

    Attributes:
        settings: The settings that are set.
        reference: Those of the preset or file they came from.
        preset: Name of that preset; empty for anything else.
    """

    settings: dict[str, Any]
    reference: dict[str, Any] = field(default_factory=dict, compare=False)
    preset: str = field(default="", compare=False)


class Document(QObject):
    """A sparse configuration with undo, problems and a file.

    Signals:
        changed: The dotted paths whose value changed, a frozenset of str. Of a choice, the path of
            the choice is among them when one of its options changed.
        problems_changed: `problems` says something else than before.
        history_changed: What can be undone, whether there are unsaved changes, or the origin.
    """

    changed = Signal(object)
    problems_changed = Signal()
    history_changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._history: History[_Snapshot] = History.starting_with(_Snapshot({}))
        self._origin = Origin()
        self._reference_values = effective({})
        self._gesture = 0
        self._gestures = 0
        self._before_gesture: History[_Snapshot] | None = None
        self._effective = effective({})
        self._config, self._problems = _examined({})

    # Reading

    def value(self, path: str) -> Any:
        """Return the value at the dotted ``path``, the default if it is unset; plain JSON values.

        Raises:
            KeyError: if there is no such setting (for an option: not with the kind chosen now).
        """
        return copy.deepcopy(value_at(self._effective, path))

    def default(self, path: str) -> Any:
        """Return the default at ``path``; of an option, that of the kind chosen now.

        Raises:
            KeyError: as `value`.
        """
        return copy.deepcopy(default_at(self._effective, path))

    def reference_value(self, path: str) -> Any:
        """Return the value at ``path`` in the preset or file the document came from.

        Raises:
            KeyError: if there is no such setting there (an option of another kind).
        """
        return copy.deepcopy(value_at(self._reference_values, path))

    def reference(self) -> dict[str, Any]:
        """Return the settings of the preset or file the document came from."""
        return copy.deepcopy(self._history.value.reference)

    def is_default(self, path: str) -> bool:
        """Return whether the value at ``path`` is the default."""
        return bool(self.value(path) == self.default(path))

    def is_changed(self, path: str) -> bool:
        """Return whether the value at ``path`` differs from where the document came from."""
        try:
            return bool(self.value(path) != self.reference_value(path))
        except KeyError:
            return True

    def overlay(self) -> dict[str, Any]:
        """Return the settings that are set, as in a preset file."""
        return copy.deepcopy(self._history.value.settings)

    def config(self) -> dict[str, Any]:
        """Return what is written for the engine and into a config file."""
        return {"schema": SCHEMA_VERSION, **self.overlay()}

    def decoded(self) -> TrainConfig | None:
        """Return the configuration as the engine sees it; None while a value has a fault."""
        return self._config

    def problems(self) -> tuple[Problem, ...]:
        """Return what the engine's own checks say stops a run."""
        return self._problems

    @property
    def origin(self) -> Origin:
        """Where the document came from."""
        preset = self._history.value.preset
        if preset and self._origin.path is None:
            return Origin("preset", preset)
        return self._origin

    @property
    def is_dirty(self) -> bool:
        """Whether there are changes that are in no file."""
        return not self._history.is_clean

    @property
    def undo_title(self) -> str:
        """What undo would take back; empty when there is nothing."""
        return self._history.undo_title

    @property
    def redo_title(self) -> str:
        """What redo would do again; empty when there is nothing."""
        return self._history.redo_title

    # Changing

    def set_values(
        self, changes: Mapping[str, Any], title: str, *, may_merge: bool = False
    ) -> None:
        """Set the plain JSON values at dotted paths as one undo step.

        Args:
            changes: New values by path. Within a choice ``PATH.kind`` chooses anew and
                ``PATH.option`` sets one option.
            title: What the user did, as in "Undo TITLE".
            may_merge: Join the previous step when it has the same title and is a second old, as
                for nudges with a key.
        """
        new: Mapping[str, Any] = self._history.value.settings
        for path, value in changes.items():
            new = with_value(new, path, copy.deepcopy(value))
        self.replace(new, title, may_merge=may_merge)

    def reset(self, paths: Iterable[str], title: str) -> None:
        """Give the settings at ``paths`` their defaults as one undo step."""
        new: Mapping[str, Any] = self._history.value.settings
        for path in paths:
            new = without(new, path)
        self.replace(new, title)

    def replace(self, settings: Overlay, title: str, *, may_merge: bool = False) -> None:
        """Put ``settings`` in the place of all settings as one undo step."""
        new = dict(settings)
        if new != self._history.value.settings:
            snapshot = replace(self._history.value, settings=new)
            self._push(snapshot, title, may_merge=may_merge)

    def apply_preset(self, preset: Preset) -> None:
        """Take the settings of ``preset``, keeping the user's own paths, as one undo step."""
        settings = {key: value for key, value in preset.settings.items() if key != "schema"}
        own = only(self._history.value.settings, OWN_PATHS)
        if self.is_changed("output.name"):
            own = with_value(own, "output.name", self.value("output.name"))
        snapshot = _Snapshot(overlay(settings, own), copy.deepcopy(settings), preset.name)
        self._push(snapshot, f"preset {preset.title}")

    def changed_from_reference(self) -> frozenset[str]:
        """Return the paths that differ from where the document came from."""
        now = self._history.value
        return changed_paths(now.reference, now.settings)

    def begin_gesture(self, title: str) -> None:
        """Make all changes titled ``title`` until `end_gesture` one undo step, as in a drag."""
        self._gestures += 1
        self._gesture = self._gestures
        self._before_gesture = self._history

    def end_gesture(self) -> None:
        """End what `begin_gesture` began."""
        self._gesture = 0
        self._before_gesture = None

    def cancel_gesture(self) -> None:
        """Take back what changed since `begin_gesture` and end the gesture, leaving no step."""
        before = self._before_gesture
        self.end_gesture()
        if before is not None and before is not self._history:
            self._show(before)

    def undo(self) -> None:
        """Take the last step back."""
        self.end_gesture()
        self._show(self._history.undone())

    def redo(self) -> None:
        """Do the step last taken back again."""
        self.end_gesture()
        self._show(self._history.redone())

    # Files

    def new(self) -> None:
        """Start over with the defaults."""
        self._begin({}, Origin(), {})

    def load(self, path: Path) -> None:
        """Open the config or preset file ``path``; faults in it become `problems`.

        Raises:
            ConfigError: when it cannot be read, is no JSON object or of a newer version.
        """
        data = read_json(path)
        if not isinstance(data, dict):
            raise ConfigError([Problem("", f"{path}: is not a configuration", "choose another")])
        version = data.get("schema", SCHEMA_VERSION)
        if isinstance(version, bool) or version != SCHEMA_VERSION:
            # The codec's words for it; nothing else of such a file is worth reading.
            decode_config({"schema": version})
        is_preset = "about" in data
        settings = {key: item for key, item in data.items() if key not in ("schema", "about")}
        origin = Origin("preset" if is_preset else "file", path.stem, None if is_preset else path)
        self._begin(settings, origin, settings)

    def adopt(self, settings: Overlay, origin: Origin, *, is_saved: bool = True) -> None:
        """Begin anew with ``settings`` from elsewhere, such as a state file."""
        plain = {key: value for key, value in settings.items() if key != "schema"}
        self._begin(plain, origin, plain, is_saved=is_saved)

    def save(self, path: Path) -> None:
        """Write the settings to ``path`` in one piece; saving again goes there too.

        Raises:
            OSError: when the file cannot be written; the old one is untouched then.
        """
        write_json_atomic(path, self.config())
        self._origin = Origin("file", path.stem, path)
        self._history = self._history.marked_saved()
        self.history_changed.emit()

    # The working copy that outlives a crash

    def working_copy(self) -> dict[str, Any]:
        """Return all that `restore` needs, as plain JSON values."""
        origin = self._origin
        return {
            "settings": self.overlay(),
            "reference": self.reference(),
            "origin": [origin.kind, origin.name, str(origin.path) if origin.path else ""],
            "is_dirty": self.is_dirty,
        }

    def restore(self, stored: Any) -> None:
        """Begin anew with what `working_copy` returned.

        Raises:
            ValueError: if it is something else.
        """
        try:
            settings, reference = dict(stored["settings"]), dict(stored["reference"])
            kind, name, path = map(str, stored["origin"])
            is_dirty = bool(stored["is_dirty"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError("this is no working copy") from error
        known: dict[str, OriginKind] = {k: k for k in ("new", "preset", "file", "state")}
        origin = Origin(known.get(kind, "new"), name, Path(path) if path else None)
        self._begin(settings, origin, reference, is_saved=not is_dirty)

    # Inside

    def _begin(
        self, settings: Overlay, origin: Origin, reference: Overlay, *, is_saved: bool = True
    ) -> None:
        self.end_gesture()
        preset = origin.name if origin.kind == "preset" else ""
        snapshot = _Snapshot(copy.deepcopy(dict(settings)), copy.deepcopy(dict(reference)), preset)
        self._show(History.starting_with(snapshot, is_saved=is_saved), origin)

    def _push(self, snapshot: _Snapshot, title: str, *, may_merge: bool = False) -> None:
        moment = time.monotonic()
        self._show(
            self._history.done(
                snapshot, title, moment=moment, group=self._gesture, may_merge=may_merge
            )
        )

    def _show(self, history: History[_Snapshot], origin: Origin | None = None) -> None:
        old, new = self._history.value, history.value
        # Whatever can fail comes first: settings that cannot be shown must not become the document,
        # which is what the working copy keeps for the next start.
        paths = changed_paths(old.settings, new.settings)
        values = effective(new.settings)
        is_same_reference = new.reference is old.reference
        reference = self._reference_values if is_same_reference else effective(new.reference)
        config, problems = _examined(new.settings)
        is_other = problems != self._problems
        self._history = history
        self._origin = self._origin if origin is None else origin
        self._effective, self._reference_values = values, reference
        self._config, self._problems = config, problems
        if paths:
            self.changed.emit(paths)
        if is_other:
            self.problems_changed.emit()
        self.history_changed.emit()


def _examined(settings: Overlay) -> tuple[TrainConfig | None, tuple[Problem, ...]]:
    try:
        config = decode_config({"schema": SCHEMA_VERSION, **settings})
    except ConfigError as error:
        return None, error.problems
    return config, tuple(_unique(check_config(config)))


def _unique(problems: Iterable[Problem]) -> Iterator[Problem]:
    return iter(dict.fromkeys(problems))
