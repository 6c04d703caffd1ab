"""The questions the window asks, behind one interface so that tests can answer them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

from PySide6.QtWidgets import QFileDialog, QMessageBox, QWidget

from gui.forms.message_box import MessageBox, warn
from gui.words import counted, tr

Unsaved = Literal["save", "discard", "cancel"]
Stopping = Literal["save", "now", "keep"]

_Role = QMessageBox.ButtonRole


class Dialogs(Protocol):
    """Everything the window asks its user."""

    def unsaved(self, name: str) -> Unsaved:
        """Ask what to do with changes to ``name`` that are in no file."""

    def stopping(self, unsaved_steps: int, *, is_closing: bool) -> Stopping:
        """Ask how to stop a run, or whether at all."""

    def open_path(self, start: str) -> Path | None:
        """Ask for a config file to open."""

    def save_path(self, suggestion: str) -> Path | None:
        """Ask for the config file to write."""

    def state_path(self, start: str) -> Path | None:
        """Ask for a state file to resume from."""

    def folder(self, title: str, start: str) -> Path | None:
        """Ask for a folder."""

    def tell(self, title: str, text: str, detail: str = "") -> None:
        """Say that something went wrong."""

    def confirm(self, title: str, text: str, button: str) -> bool:
        """Ask whether to go on; ``button`` says what that does."""


class QtDialogs:
    """The questions as dialogs over ``window``."""

    def __init__(self, window: QWidget) -> None:
        self._window = window

    def unsaved(self, name: str) -> Unsaved:
        """Ask what to do with changes to ``name`` that are in no file."""
        text = tr("Save the changes to {0}?").format(name)
        box = MessageBox(self._window, tr("Unsaved changes"), text)
        box.setInformativeText(tr("They are in no file yet."))
        save = box.offer(tr("Save"), _Role.AcceptRole, "primary")
        discard = box.offer(tr("Discard"), _Role.DestructiveRole)
        box.offer(tr("Cancel"), _Role.RejectRole)
        box.setDefaultButton(save)
        box.exec()
        if box.clickedButton() is save:
            return "save"
        return "discard" if box.clickedButton() is discard else "cancel"

    def stopping(self, unsaved_steps: int, *, is_closing: bool) -> Stopping:
        """Ask how to stop a run, or whether at all."""
        title = tr("Close while training?") if is_closing else tr("Stop the run?")
        box = MessageBox(self._window, title, title)
        lost = counted(unsaved_steps, tr("step"), tr("steps"))
        text = tr("Stopping now would lose {0} since the last save.").format(lost)
        box.setInformativeText(text if unsaved_steps else tr("Everything so far is saved."))
        label = tr("Save and close") if is_closing else tr("Save and stop")
        save = box.offer(label, _Role.AcceptRole, "primary")
        label = tr("Close now") if is_closing else tr("Stop now")
        now = box.offer(label, _Role.DestructiveRole, "danger")
        box.offer(tr("Keep training"), _Role.RejectRole)
        box.setDefaultButton(save)
        box.exec()
        if box.clickedButton() is save:
            return "save"
        return "now" if box.clickedButton() is now else "keep"

    def open_path(self, start: str) -> Path | None:
        """Ask for a config file to open."""
        pattern = tr("Configurations (*.json);;All files (*)")
        name, _ = QFileDialog.getOpenFileName(
            self._window, tr("Open a configuration"), start, pattern
        )
        return Path(name) if name else None

    def save_path(self, suggestion: str) -> Path | None:
        """Ask for the config file to write."""
        pattern = tr("Configurations (*.json)")
        name, _ = QFileDialog.getSaveFileName(
            self._window, tr("Save the configuration"), suggestion, pattern
        )
        if not name:
            return None
        path = Path(name)
        return path if path.suffix else path.with_suffix(".json")

    def state_path(self, start: str) -> Path | None:
        """Ask for a state file to resume from."""
        pattern = tr("States (*.pt);;All files (*)")
        name, _ = QFileDialog.getOpenFileName(self._window, tr("Resume from"), start, pattern)
        return Path(name) if name else None

    def folder(self, title: str, start: str) -> Path | None:
        """Ask for a folder."""
        name = QFileDialog.getExistingDirectory(self._window, title, start)
        return Path(name) if name else None

    def tell(self, title: str, text: str, detail: str = "") -> None:
        """Say that something went wrong."""
        warn(self._window, title, text, detail)

    def confirm(self, title: str, text: str, button: str) -> bool:
        """Ask whether to go on; ``button`` says what that does."""
        box = MessageBox(self._window, title, text)
        go_on = box.offer(button, _Role.AcceptRole, "primary")
        box.offer(tr("Cancel"), _Role.RejectRole)
        box.exec()
        return box.clickedButton() is go_on
