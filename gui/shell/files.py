"""Opening, saving, the unsaved question, recent files, and the copy that outlives a crash."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QObject, QTimer, Signal, Slot

from aozora.errors import AozoraError
from aozora.runtime import write_json_atomic
from gui.document import Document
from gui.preferences import PreferenceKeeper
from gui.shell.dialogs import Dialogs
from gui.words import tr

log = logging.getLogger(__name__)

_AUTOSAVE_MS = 30_000
_WORKING_COPY = "working-copy.json"
_SET_ASIDE = "working-copy-broken.json"


class FileKeeper(QObject):
    """Brings the document and its files together.

    Args:
        settle: Called before the document is saved or left, so that it holds what is being typed.

    Signals:
        restored: Unsaved changes of the last session are back.
    """

    restored = Signal()

    def __init__(
        self,
        document: Document,
        preferences: PreferenceKeeper,
        dialogs: Dialogs,
        parent: QObject | None = None,
        *,
        settle: Callable[[], None],
    ) -> None:
        super().__init__(parent)
        self._document = document
        self._preferences = preferences
        self._dialogs = dialogs
        self._settle = settle
        # Beside the preferences: whoever is given others does not meet the user's work.
        self.working_copy = preferences.path.with_name(_WORKING_COPY)
        self._copied = ""
        self._timer = QTimer(self)
        self._timer.setInterval(_AUTOSAVE_MS)
        self._timer.timeout.connect(self.autosave)
        self._timer.start()

    def new(self) -> bool:
        """Start over with the defaults, unless the user cancels."""
        if not self.may_leave():
            return False
        self._document.new()
        return True

    def ask_open(self) -> bool:
        """Ask for a file and open it."""
        if not self.may_leave():
            return False
        path = self._dialogs.open_path(self._start_folder())
        return path is not None and self._load(path)

    def open(self, path: Path) -> bool:
        """Open the config or preset file ``path``, unless the user cancels."""
        return self.may_leave() and self._load(path)

    def save(self) -> bool:
        """Save to the document's file, or ask for one."""
        self._settle()
        path = self._document.origin.path
        return self.save_as() if path is None else self._write(path)

    def save_as(self) -> bool:
        """Ask for a file and save there."""
        self._settle()
        suggestion = Path(self._start_folder(), f"{self._document.origin.name}.json")
        path = self._dialogs.save_path(str(suggestion))
        return path is not None and self._write(path)

    def may_leave(self) -> bool:
        """Return whether the document may be replaced; asks when changes would be lost."""
        self._settle()
        if not self._document.is_dirty:
            return True
        answer = self._dialogs.unsaved(self._document.origin.name)
        if answer == "save":
            return self.save()
        return answer == "discard"

    @Slot()
    def autosave(self) -> None:
        """Write the working copy, if it says something new."""
        copy = self._document.working_copy()
        text = json.dumps(copy)
        if text == self._copied:
            return
        try:
            write_json_atomic(self.working_copy, copy, sync=False)
        except (OSError, UnicodeError) as error:
            log.warning("The working copy cannot be written (%s)", error)
        else:
            self._copied = text

    def restore(self) -> bool:
        """Go on where the last session ended; return whether there was anything."""
        path = self.working_copy
        try:
            self._document.restore(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return False
        except Exception as error:  # whatever is wrong with it, the window has to open
            log.warning("The working copy cannot be read", exc_info=error)
            self._set_aside(path)
            return False
        if self._document.is_dirty:
            self.restored.emit()
        return True

    def _set_aside(self, path: Path) -> None:
        """Move a working copy that cannot be read out of the next start's way, and say so."""
        aside = path.with_name(_SET_ASIDE)
        try:
            path.replace(aside)
        except OSError as error:
            log.warning("The working copy cannot be set aside (%s)", error)
            detail = tr("It cannot be kept: {0}").format(error.strerror or str(error))
        else:
            detail = tr("It is kept in {0}.").format(aside)
        title = tr("The last session does not come back")
        text = tr("What the last session left cannot be read; this one begins with the defaults.")
        # Once the window is shown, which a question before it would keep waiting.
        QTimer.singleShot(0, self, lambda: self._dialogs.tell(title, text, detail))

    def close(self) -> None:
        """Keep what the next session begins with; for after `may_leave` at the end."""
        self._timer.stop()
        if self._document.is_dirty:
            # The user chose to discard: begin again with the file, not with what was discarded.
            origin = self._document.origin
            if origin.path is not None and self._load(origin.path, is_quiet=True):
                self.autosave()
            else:
                self.working_copy.unlink(missing_ok=True)
        else:
            self.autosave()

    def _load(self, path: Path, *, is_quiet: bool = False) -> bool:
        try:
            self._document.load(path)
        except AozoraError as error:
            if not is_quiet:
                self._dialogs.tell(tr("This file cannot be opened"), error.message, error.hint)
            self._preferences.take(self._preferences.now.without_recent(path))
            return False
        self._preferences.take(self._preferences.now.with_recent(path.absolute()))
        return True

    def _write(self, path: Path) -> bool:
        try:
            self._document.save(path)
        except OSError as error:
            reason = error.strerror or str(error)
            detail = tr("Choose another place, or free the disk.")
            self._dialogs.tell(tr("{0} cannot be written").format(path), reason, detail)
            return False
        self._preferences.take(self._preferences.now.with_recent(path.absolute()))
        return True

    def _start_folder(self) -> str:
        path = self._document.origin.path
        if path is not None:
            return str(path.parent)
        recent = self._preferences.now.recent
        return str(Path(recent[0]).parent) if recent else ""
