"""What the window remembers of its user: theme, engine host, recent files. Not part of a config."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from PySide6.QtCore import QObject, Signal

from aozora.runtime import config_folder, write_json_atomic

log = logging.getLogger(__name__)

ThemeSetting = Literal["system", "dark", "light", "contrast"]
HostSetting = Literal["process", "thread"]

_MOST_RECENT = 8
_CHOICES: dict[str, tuple[Any, ...]] = {
    "theme": get_args(ThemeSetting),
    "engine_host": get_args(HostSetting),
}


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """The preferences of one user.

    Attributes:
        theme: Colours; ``system`` follows the computer's.
        engine_host: Where the engine runs: a process of its own, or a thread of the window.
        zoom_percent: Size of everything; holds from the next start.
        is_help_open: Whether the help panel is shown.
        notifies: Whether the end of a run is announced.
        keeps_awake: Whether the computer is kept from sleeping while a run goes on.
        page: The page shown last.
        geometry: Place and size of the window, as Qt writes them, in hex.
        recent: Config files opened or saved last, newest first.
        seen_runs: Output folders in which runs are looked for, newest first.
        dismissed: Names of runs that died and that the user does not want to be told of again.
    """

    theme: ThemeSetting = "system"
    engine_host: HostSetting = "process"
    zoom_percent: int = 100
    is_help_open: bool = True
    notifies: bool = True
    keeps_awake: bool = True
    page: str = "start"
    geometry: str = ""
    recent: tuple[str, ...] = ()
    seen_runs: tuple[str, ...] = ()
    dismissed: tuple[str, ...] = ()

    def with_recent(self, path: Path) -> Preferences:
        """Return the preferences with ``path`` as the newest file."""
        return replace(self, recent=_newest_first(str(path), self.recent))

    def without_recent(self, path: Path) -> Preferences:
        """Return the preferences without ``path`` among the recent files."""
        return replace(self, recent=tuple(item for item in self.recent if item != str(path)))

    def with_runs_in(self, folder: str) -> Preferences:
        """Return the preferences with ``folder`` as the newest place of runs."""
        return replace(self, seen_runs=_newest_first(folder, self.seen_runs))

    def with_dismissed(self, name: str) -> Preferences:
        """Return the preferences with the run called ``name`` put aside."""
        return replace(self, dismissed=_newest_first(name, self.dismissed))


def _newest_first(item: str, items: tuple[str, ...]) -> tuple[str, ...]:
    return (item, *(other for other in items if other != item))[:_MOST_RECENT]


def parse_preferences(data: Any) -> Preferences:
    """Return the preferences in ``data``; whatever cannot be used is left at its default."""
    if not isinstance(data, Mapping):
        return Preferences()
    default = Preferences()
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Preferences):
        value, standard = data.get(field.name), getattr(default, field.name)
        if isinstance(standard, tuple) and isinstance(value, list):
            values[field.name] = tuple(item for item in value if isinstance(item, str))
        elif type(value) is type(standard) and value in _CHOICES.get(field.name, (value,)):
            values[field.name] = value
    zoom = values.get("zoom_percent", 100)
    return replace(default, **{**values, "zoom_percent": min(max(zoom, 75), 200)})


def preferences_path() -> Path:
    """Return the file the preferences of this user are in."""
    return config_folder() / "window.json"


def load_preferences(path: Path) -> Preferences:
    """Return the preferences in the file ``path``, the defaults if it cannot be read."""
    try:
        return parse_preferences(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Preferences()
    except (OSError, ValueError, RecursionError) as error:
        log.warning("The preferences in %s cannot be read and are left out (%s)", path, error)
        return Preferences()


class PreferenceKeeper(QObject):
    """The preferences in use, written to their file whenever they change.

    Signals:
        changed: Other preferences hold; carries them.
    """

    changed = Signal(object)

    def __init__(self, path: Path | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._path = preferences_path() if path is None else path
        self._now = load_preferences(self._path)

    @property
    def path(self) -> Path:
        """The file they are in."""
        return self._path

    @property
    def now(self) -> Preferences:
        """The preferences that hold."""
        return self._now

    def change(self, **values: Any) -> None:
        """Change some preferences by name."""
        self.take(replace(self._now, **values))

    def take(self, new: Preferences) -> None:
        """Put ``new`` in the place of all preferences."""
        if new == self._now:
            return
        self._now = new
        try:
            write_json_atomic(self._path, dataclasses.asdict(new), sync=False)
        except OSError as error:
            log.warning("The preferences cannot be written (%s)", error)
        self.changed.emit(new)
