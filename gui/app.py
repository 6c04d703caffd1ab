"""Making the application and its window."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QLocale, QObject, QRectF, Qt, QTimer, Slot
from PySide6.QtGui import QColor, QIcon, QPainter, QPixmap, QSessionManager
from PySide6.QtWidgets import QApplication

from gui import theme
from gui.collector import GarbageCollector
from gui.engine.desktop_windows import name_program
from gui.icons import paint_icon
from gui.preferences import PreferenceKeeper
from gui.shell.crash import CrashCatcher, start_log
from gui.shell.single import SingleWindow, hand_over
from gui.shell.window import MainWindow

_NAME = "Aozora"
# About as long Windows waits for a program that may not hold up the end of a session.
_SESSION_END_SECONDS = 5.0
# A page of a run that is long over is no place to begin.
_FIRST_PAGES = ("start", "model", "data", "schedule", "timesteps", "layers", "optimizer", "output")


def make_application(preferences: PreferenceKeeper, arguments: list[str]) -> QApplication:
    """Return the application, in the preferred size and colours."""
    zoom = preferences.now.zoom_percent
    if zoom != 100:
        os.environ.setdefault("QT_SCALE_FACTOR", f"{zoom / 100:g}")
    app = QApplication([sys.argv[0], *arguments])
    app.setApplicationName(_NAME)
    app.setDesktopFileName("aozora")
    app.setStyle("Fusion")
    # Figures in files and fields are written with a point everywhere; words follow the system.
    QLocale.setDefault(QLocale(QLocale.Language.English, QLocale.Country.UnitedStates))
    theme.apply(app, theme.resolved(preferences.now.theme))
    app.setWindowIcon(window_icon())
    return app


def window_icon() -> QIcon:
    """Return the program's own icon: a curve rising out of noise."""
    result = QIcon()
    for size in (16, 32, 48, 64, 128):
        picture = QPixmap(size, size)
        picture.fill(Qt.GlobalColor.transparent)
        painter = QPainter(picture)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(theme.DARK.window))
        painter.drawRoundedRect(QRectF(0, 0, size, size), size * 0.2, size * 0.2)
        inner = QRectF(size * 0.14, size * 0.14, size * 0.72, size * 0.72)
        paint_icon(painter, "schedule", inner, theme.DARK.accent)
        painter.end()
        result.addPixmap(picture)
    return result


def open_window(preferences: PreferenceKeeper, paths: Sequence[Path]) -> MainWindow:
    """Return the window, as the last session left it, with ``paths`` taken in."""
    window = MainWindow(preferences)
    window.files.restore()
    page = preferences.now.page
    window.show_page(page if page in _FIRST_PAGES else "start")
    window.notices.recovery.look(preferences.now.seen_runs, preferences.now.dismissed)
    for path in paths:
        window.intake.take(path)
    return window


class SessionEnd(QObject):
    """Keeps the end of the user's session, as when the computer shuts down, from losing a run.

    Args:
        window: Whose run it is; also the parent.
    """

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window

    @Slot(QSessionManager)
    def begin(self, session: QSessionManager) -> None:
        """Call it off while a run goes on and ask as closing the window does, or else just save."""
        host = self._window.host
        if host.status.is_free:
            return
        if session.allowsInteraction():
            session.cancel()
            session.release()
            # The system waits for an answer; the question comes after it.
            QTimer.singleShot(0, self._close)
        else:
            host.stop(save=True)
            host.wait(_SESSION_END_SECONDS)

    @Slot()
    def _close(self) -> None:
        # Nobody sees a question of a window that is down in the taskbar.
        state = self._window.windowState()
        self._window.setWindowState(state & ~Qt.WindowState.WindowMinimized)
        self._window.close()


def run_application(paths: Sequence[Path]) -> int:
    """Open the window and stay until it is closed; return the exit code."""
    if hand_over(paths):
        return 0
    # In a terminal Ctrl+C ends the program at once; Python's own handler waits for Qt to return.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    crashes = start_log()
    preferences = PreferenceKeeper()
    name_program(_NAME)
    app = make_application(preferences, [])
    catcher = CrashCatcher(app)
    catcher.install()
    with GarbageCollector(app):
        window = open_window(preferences, paths)
        catcher.watch(window, window.document.config)
        single = SingleWindow(app)
        single.asked.connect(window.intake.take_from_second_start)
        app.commitDataRequest.connect(SessionEnd(window).begin)
        window.show()
        code = app.exec()
        single.close()
        # Qt's objects go in an order of ours, not in that of the interpreter's end.
        window.deleteLater()
        app.processEvents()
    if crashes is not None:
        faulthandler.disable()
        crashes.close()
    return code
