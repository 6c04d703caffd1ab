"""When the program itself fails: the report, kept, shown, copied, and packed to be sent."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import platform
import sys
import threading
import time
import traceback
import zipfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from PySide6.QtCore import QObject, Qt, Signal, Slot
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QDialog,
    QFileDialog,
    QHBoxLayout,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from aozora import __version__
from aozora.runtime import cache_folder, write_text_atomic
from gui import theme
from gui.shell.form_page import PageHead
from gui.words import tr

log = logging.getLogger(__name__)

_PACKAGES = ("PySide6-Essentials", "torch", "diffusers", "transformers", "numpy", "pyqtgraph")
_LOG_TAIL_BYTES = 200_000


def log_path() -> Path:
    """Return the window's own log file."""
    return cache_folder() / "window.log"


def start_log() -> IO[str] | None:
    """Write log records and native crashes to the log file; return the latter's open file."""
    path = log_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and path.stat().st_size > 4 * _LOG_TAIL_BYTES:
            path.replace(path.with_suffix(".old.log"))
        handler = logging.FileHandler(path, encoding="utf-8")
        crashes = path.with_suffix(".crash.log").open("a", encoding="utf-8")
    except OSError:
        return None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    faulthandler.enable(crashes)
    return crashes


def report_text(trace: str) -> str:
    """Return the whole report: versions, then what happened."""
    lines = [
        f"Aozora {__version__}, {time.strftime('%Y-%m-%d %H:%M:%S')}",
        f"Python {platform.python_version()} on {platform.system()} {platform.release()}",
    ]
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            lines.append(f"{name} {version(name)}")
    return "\n".join([*lines, "", trace.rstrip(), ""])


def write_report_zip(target: Path, text: str, config: str) -> None:
    """Write report, settings and the end of the log into ``target``.

    Raises:
        OSError: if it cannot be written.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("report.txt", text)
        archive.writestr("settings.json", config)
        for path in (log_path(), log_path().with_suffix(".crash.log")):
            with contextlib.suppress(OSError):
                archive.writestr(path.name, path.read_bytes()[-_LOG_TAIL_BYTES:])


class CrashDialog(QDialog):
    """Shows one report."""

    def __init__(self, text: str, config: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._text = text
        self._config = config
        theme.follow(self)
        self.setWindowTitle(tr("Something went wrong"))
        self.resize(720, 460)
        column = QVBoxLayout(self)
        column.setContentsMargins(theme.GAP_5, theme.GAP_4, theme.GAP_5, theme.GAP_4)
        column.setSpacing(theme.GAP_3)
        purpose = tr(
            "This is a fault of the program, not of your settings. They are kept, and a run that"
            " goes on is not touched. Please report it with the text below."
        )
        column.addWidget(PageHead(tr("Something went wrong"), purpose))
        view = QPlainTextEdit(text)
        view.setReadOnly(True)
        view.setFont(theme.mono_font())
        view.setAccessibleName(tr("Report"))
        column.addWidget(view, 1)
        row = QHBoxLayout()
        row.addStretch(1)
        for words, slot, is_primary in (
            (tr("Copy"), self._copy, False),
            (tr("Save report zip…"), self._save, False),
            (tr("Go on"), self.accept, True),
        ):
            button = QPushButton(words)
            button.setProperty("primary", "true" if is_primary else "false")
            button.setDefault(is_primary)
            button.clicked.connect(slot)
            row.addWidget(button)
        column.addLayout(row)

    @Slot()
    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(self._text)

    @Slot()
    def _save(self) -> None:
        name, _ = QFileDialog.getSaveFileName(
            self, tr("Save the report"), "aozora-report.zip", tr("Archives (*.zip)")
        )
        if name:
            write_report_zip(Path(name), self._text, self._config)


class CrashCatcher(QObject):
    """Catches what nobody else caught, in any thread, and shows it in the window's."""

    _caught = Signal(str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._window: QWidget | None = None
        self._settings: Callable[[], Any] = dict
        self._is_showing = False
        self._caught.connect(self._show, Qt.ConnectionType.QueuedConnection)

    def watch(self, window: QWidget, settings: Callable[[], Any]) -> None:
        """Show reports over ``window`` and add what ``settings`` returns to those packed."""
        self._window = window
        self._settings = settings

    def install(self) -> None:
        """Begin to catch."""
        sys.excepthook = self._take
        threading.excepthook = self._take_from_thread

    def _take(
        self,
        kind: type[BaseException],
        error: BaseException,
        trace: TracebackType | None,
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
            return
        text = "".join(traceback.format_exception(kind, error, trace))
        log.error("Not caught:\n%s", text)
        sys.__excepthook__(kind, error, trace)
        self._caught.emit(text)

    def _take_from_thread(self, arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None and not isinstance(arguments.exc_value, SystemExit):
            self._take(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)

    @Slot(str)
    def _show(self, trace: str) -> None:
        text = report_text(trace)
        with contextlib.suppress(OSError):
            write_text_atomic(log_path().with_name("last-report.txt"), text, sync=False)
        if self._is_showing:
            # A fault that repeats with every paint must not bury the screen in dialogs.
            return
        self._is_showing = True
        try:
            config = json.dumps(self._settings(), indent=2)
            CrashDialog(text, config, self._window).exec()
        finally:
            self._is_showing = False
