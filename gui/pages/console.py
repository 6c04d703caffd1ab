"""The page of the engine's words: filtered, followed, copied, bounded."""

from __future__ import annotations

import time
from pathlib import Path

from PySide6.QtCore import QTimer, QUrl, Slot
from PySide6.QtGui import (
    QDesktopServices,
    QGuiApplication,
    QHideEvent,
    QShowEvent,
    QTextCharFormat,
    QTextCursor,
)
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLineEdit,
    QPlainTextEdit,
    QVBoxLayout,
    QWidget,
)

from gui import theme
from gui.document import Document
from gui.engine.console_log import ConsoleLine
from gui.engine.host import EngineHost
from gui.engine.mailbox import Level
from gui.engine.states import RunState, RunStatus
from gui.forms.controls import DropDown, Switch, Tone, TonedLabel, picture_button
from gui.shell.form_page import PageHead

_REFRESH_MS = 100
_LEVELS: dict[str, frozenset[Level]] = {
    "all": frozenset({"info", "warning", "error", "output"}),
    "events": frozenset({"info", "warning", "error"}),
    "problems": frozenset({"warning", "error"}),
    "errors": frozenset({"error"}),
}
_TONES: dict[Level, Tone] = {
    "info": "text",
    "warning": "warn",
    "error": "error",
    "output": "muted",
}


class ConsolePage(QWidget):
    """Shows the host's console lines; looks for new ones ten times a second while visible."""

    def __init__(self, document: Document, host: EngineHost, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._host = host
        self._shown_to = 0
        self._seen: tuple[str, RunState | None] = ("", None)
        self.head = PageHead(
            self.tr("Console"), self.tr("What the engine reports, and whatever it prints.")
        )
        self.level = DropDown()
        self.level.setAccessibleName(self.tr("What is shown"))
        for key, name in (
            ("all", self.tr("Everything")),
            ("events", self.tr("Without library output")),
            ("problems", self.tr("Warnings and errors")),
            ("errors", self.tr("Errors only")),
        ):
            self.level.addItem(name, key)
        self.filter = QLineEdit()
        self.filter.setPlaceholderText(self.tr("Filter"))
        self.filter.setAccessibleName(self.tr("Lines with this text"))
        self.filter.setClearButtonEnabled(True)
        self.filter.setMinimumSize(120, theme.CONTROL_HEIGHT)
        self.follow = Switch()
        self.follow.setChecked(True)
        self.follow.setAccessibleName(self.tr("Follow the newest line"))
        self.copy = picture_button("file", self.tr("Copy"))
        self.copy.setToolTip(self.tr("Copy the selection, or all that is shown"))
        self.log_file = picture_button("external", self.tr("Open log file"))
        self.clear = picture_button("trash", self.tr("Clear"))
        self.text = QPlainTextEdit()
        self.text.setReadOnly(True)
        self.text.setAccessibleName(self.tr("Console"))
        self.text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.text.setUndoRedoEnabled(False)
        self.text.setMaximumBlockCount(host.console.most_lines)
        self.text.setPlaceholderText(
            self.tr("Nothing yet. Lines appear here when training starts.")
        )
        self._timer = QTimer(self)
        self._timer.setInterval(_REFRESH_MS)
        self._lay_out()
        self._wire()
        self._apply_theme()
        self._status_changed(host.status)

    def showEvent(self, event: QShowEvent) -> None:
        """Catch up and go on."""
        super().showEvent(event)
        self._append_new()
        self._timer.start()

    def hideEvent(self, event: QHideEvent) -> None:
        """Rest."""
        super().hideEvent(event)
        self._timer.stop()

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(theme.GAP_5, theme.GAP_4, theme.GAP_4, theme.GAP_5)
        column.setSpacing(theme.GAP_3)
        column.addWidget(self.head)
        row = QHBoxLayout()
        row.setSpacing(theme.GAP_2)
        row.addWidget(self.level)
        row.addWidget(self.filter, 1)
        row.addSpacing(theme.GAP_2)
        follow = TonedLabel(self.tr("Follow"), tone="text")
        follow.setBuddy(self.follow)
        row.addWidget(follow)
        row.addWidget(self.follow)
        for button in (self.copy, self.clear, self.log_file):
            self.head.buttons.addWidget(button)
        column.addLayout(row)
        column.addWidget(self.text, 1)

    def _wire(self) -> None:
        self._timer.timeout.connect(self._append_new)
        self.level.currentIndexChanged.connect(self._show_all)
        self.filter.textChanged.connect(self._show_all)
        self.follow.toggled.connect(self._follow_toggled)
        self.copy.clicked.connect(self._copy)
        self.clear.clicked.connect(self._clear)
        self.log_file.clicked.connect(self._open_log)
        self._host.status_changed.connect(self._status_changed)
        theme.notifier().changed.connect(self._apply_theme)
        self.text.verticalScrollBar().sliderPressed.connect(self._stop_following)

    @Slot()
    def _append_new(self) -> None:
        lines = self._host.console.since(self._shown_to)
        if not lines:
            return
        self._shown_to = self._host.console.next_number
        self._append(lines)

    @Slot()
    def _show_all(self) -> None:
        self.text.clear()
        self._shown_to = 0
        self._append_new()

    def _append(self, lines: list[ConsoleLine]) -> None:
        levels = _LEVELS[self.level.currentData()]
        wanted = self.filter.text().casefold()
        shown = [line for line in lines if line.level in levels and wanted in line.text.casefold()]
        if not shown:
            return
        bar = self.text.verticalScrollBar()
        before = bar.value()
        cursor = QTextCursor(self.text.document())
        cursor.movePosition(QTextCursor.MoveOperation.End)
        cursor.beginEditBlock()
        # One piece of text for neighbours of one level; piece by piece would be ten times slower.
        start = 0
        for number in range(1, len(shown) + 1):
            if number == len(shown) or shown[number].level != shown[start].level:
                self._insert(cursor, shown[start:number])
                start = number
        cursor.endEditBlock()
        bar.setValue(bar.maximum() if self.follow.isChecked() else before)

    def _insert(self, cursor: QTextCursor, lines: list[ConsoleLine]) -> None:
        ink = QTextCharFormat()
        ink.setForeground(theme.colour(_TONES[lines[0].level]))
        text = "\n".join(f"{_clock(line.time)}  {line.text}" for line in lines)
        is_first = self.text.document().isEmpty()
        cursor.insertText(text if is_first else "\n" + text, ink)

    @Slot(bool)
    def _follow_toggled(self, is_on: bool) -> None:
        if is_on:
            bar = self.text.verticalScrollBar()
            bar.setValue(bar.maximum())

    @Slot()
    def _stop_following(self) -> None:
        # Who drags the bar wants to read, not to be carried away.
        self.follow.setChecked(False)

    @Slot()
    def _copy(self) -> None:
        selected = self.text.textCursor().selectedText().replace("\u2029", "\n")
        QGuiApplication.clipboard().setText(selected or self.text.toPlainText())

    @Slot()
    def _clear(self) -> None:
        self._host.console.clear()
        self._show_all()

    @Slot()
    def _open_log(self) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._log_path())))

    @Slot(object)
    def _status_changed(self, status: RunStatus) -> None:
        seen = (status.folder, status.state)
        if seen == self._seen:
            return
        self._seen = seen
        has_log = bool(status.folder) and self._log_path().is_file()
        self.log_file.setEnabled(has_log)
        missing = self.tr("There is a log file once a run has begun.")
        self.log_file.setToolTip(str(self._log_path()) if has_log else missing)

    @Slot()
    def _apply_theme(self) -> None:
        self.text.setFont(theme.mono_font())
        self._show_all()

    def _log_path(self) -> Path:
        return Path(self._host.status.folder) / "log.txt"


def _clock(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))


Page = ConsolePage
