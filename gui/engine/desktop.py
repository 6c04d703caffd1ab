"""The computer around the window: kept awake, told of progress, told of the end.

Each of the three is a small Protocol, so that tests see what would happen. Staying awake and the
taskbar (`gui.engine.desktop_windows`) are real on Windows and do nothing elsewhere, quietly; the
end is announced through the tray where there is one.
"""

from __future__ import annotations

import sys
from typing import Literal, Protocol

from PySide6.QtCore import QObject, Slot
from PySide6.QtGui import QIcon
from PySide6.QtWidgets import QApplication, QSystemTrayIcon, QWidget

from aozora.runtime import stay_awake
from gui.engine.figures import RunFigures
from gui.engine.host import EngineHost
from gui.engine.states import RunState, RunStatus
from gui.words import duration_text, tr, whole

ProgressLook = Literal["none", "unknown", "normal", "paused", "error"]


class SleepBlocker(Protocol):
    """Keeps the computer awake; the screen may go dark."""

    def block(self) -> None:
        """Keep it awake from now on."""

    def release(self) -> None:
        """Let it sleep again."""


class Taskbar(Protocol):
    """The progress on the window's button in the taskbar."""

    def show(self, look: ProgressLook, share: float) -> None:
        """Show ``share``, 0 to 1, in a look."""


class Announcer(Protocol):
    """Tells a person who looks elsewhere."""

    def announce(self, title: str, text: str) -> None:
        """Tell it once."""


class SystemSleepBlocker:
    """Asks this computer's system, where it can be asked."""

    def block(self) -> None:
        """Keep the computer awake."""
        stay_awake(True)

    def release(self) -> None:
        """Let it sleep again."""
        stay_awake(False)


class NoTaskbar:
    """Does nothing: this system's taskbar shows no progress."""

    def show(self, look: ProgressLook, share: float) -> None:
        """Do nothing."""


class TrayAnnouncer:
    """Lets the window's taskbar button flash and shows a message in the tray where there is one."""

    def __init__(self, window: QWidget, icon: QIcon) -> None:
        self._window = window
        self._icon = icon
        self._tray: QSystemTrayIcon | None = None

    def announce(self, title: str, text: str) -> None:
        """Tell it, unless the window is in front: its user sees it anyway."""
        if self._window.isActiveWindow():
            return
        QApplication.alert(self._window)
        if not QSystemTrayIcon.isSystemTrayAvailable():
            return
        if self._tray is None:
            self._tray = QSystemTrayIcon(self._icon, self._window)
        self._tray.show()
        self._tray.showMessage(title, text, self._icon)


def taskbar(window: QWidget) -> Taskbar:
    """Return the taskbar's button of ``window``."""
    if sys.platform == "win32":
        from gui.engine.desktop_windows import WindowsTaskbar

        return WindowsTaskbar(int(window.winId()))
    return NoTaskbar()


def look_of(status: RunStatus) -> ProgressLook:
    """Return how the taskbar shows ``status``."""
    match status.state:
        case RunState.PREPARING:
            return "normal" if status.total else "unknown"
        case RunState.TRAINING | RunState.SAVING:
            return "normal"
        case RunState.STOPPING:
            return "paused"
        case RunState.FAILED:
            return "error"
        case _:
            return "none"


def ending_words(status: RunStatus, figures: RunFigures) -> tuple[str, str]:
    """Return title and text of the announcement at the end of a run."""
    step = tr("step {0}").format(whole(status.step))
    match status.state:
        case RunState.FINISHED:
            return tr("Training finished"), tr("{0} is done.").format(step)
        case RunState.FAILED:
            return tr("Training failed"), status.message
        case _:
            return tr("Training stopped"), tr("At {0}.").format(step)


def title_words(status: RunStatus, figures: RunFigures) -> str:
    """Return what the window's title says of a run; empty when none goes on."""
    if not status.is_active:
        return ""
    share = status.share_done
    if status.state is RunState.PREPARING or share is None:
        return tr("preparing")
    left = figures.seconds_left
    text = f"{share:.0%}"
    return text if left != left else tr("{0}, {1} left").format(text, duration_text(left))


class DesktopLink(QObject):
    """Keeps the desktop in step with the host.

    Args:
        host: Whom to follow.
        window: Its window, for the taskbar and the tray; also the parent.
    """

    def __init__(
        self,
        host: EngineHost,
        window: QWidget,
        *,
        blocker: SleepBlocker | None = None,
        bar: Taskbar | None = None,
        announcer: Announcer | None = None,
    ) -> None:
        super().__init__(window)
        self._host = host
        self._window = window
        self._blocker = blocker if blocker is not None else SystemSleepBlocker()
        self._bar = bar
        self._announcer = announcer or TrayAnnouncer(window, window.windowIcon())
        self._is_blocking = False
        self._shown: tuple[ProgressLook, int] = ("none", 0)
        self.keeps_awake = True
        self.notifies = True
        host.status_changed.connect(self._follow)
        host.ended.connect(self._ended)

    def set_wishes(self, *, keeps_awake: bool, notifies: bool) -> None:
        """Take the user's preferences."""
        self.keeps_awake, self.notifies = keeps_awake, notifies
        self._follow(self._host.status)

    @Slot(object)
    def _follow(self, status: RunStatus) -> None:
        should_block = self.keeps_awake and status.is_engine_alive
        if should_block != self._is_blocking:
            self._is_blocking = should_block
            if should_block:
                self._blocker.block()
            else:
                self._blocker.release()
        shown = (look_of(status), round(100 * (status.share_done or 0.0)))
        if shown != self._shown:
            self._shown = shown
            if self._bar is None:
                # The window has its place in the taskbar only once it is shown.
                self._bar = taskbar(self._window)
            self._bar.show(shown[0], shown[1] / 100)

    @Slot(object)
    def _ended(self, status: RunStatus) -> None:
        self._follow(status)
        if self.notifies:
            self._announcer.announce(*ending_words(status, self._host.figures))
