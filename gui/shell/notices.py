"""What the window says above its pages, and what the run adds to its title."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Signal, Slot

from gui.engine.desktop import title_words
from gui.engine.figures import RunFigures
from gui.engine.run_folders import RunFolder
from gui.engine.states import RunStatus
from gui.shell.banner import Banner
from gui.shell.page_list import spec_of
from gui.shell.recovery import RunRecovery, recovery_words

if TYPE_CHECKING:
    from gui.shell.window import MainWindow


class Notices(QObject):
    """Fills two banners: one about the last session, one about the run that goes on.

    Signals:
        title_changed: `run_words` says something else.
    """

    title_changed = Signal()

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window
        self._lost: RunFolder | None = None
        self.run_words = ""
        self.about_session = Banner()
        self.about_run = Banner()
        self.recovery = RunRecovery(self)
        self.recovery.found.connect(self._tell_lost_run)
        self.about_session.acted.connect(self._act)
        self.about_session.dismissed.connect(self._dismiss)
        window.files.restored.connect(self._tell_restored)
        window.host.status_changed.connect(self.follow_run)
        window.host.figures_changed.connect(self._follow_figures)
        window.pages.shown.connect(self._follow_page)

    @Slot(object)
    def follow_run(self, status: RunStatus) -> None:
        """Say on setup pages that a run that goes on does not see their changes."""
        key = self._window.pages.current
        is_setup = key not in ("", "start") and spec_of(key).group == "setup"
        if status.is_active and is_setup:
            text = self.tr(
                "The running job uses its own snapshot; changes apply to the next start."
            )
            self.about_run.show_words(text, "run")
        else:
            self.about_run.hide()

    @Slot(str)
    def _follow_page(self, key: str) -> None:
        self.follow_run(self._window.host.status)

    @Slot(object)
    def _follow_figures(self, figures: RunFigures) -> None:
        words = title_words(self._window.host.status, figures)
        if words != self.run_words:
            self.run_words = words
            self.title_changed.emit()

    @Slot()
    def _tell_restored(self) -> None:
        text = self.tr("Unsaved changes of the last session are back.")
        self.about_session.show_words(text, "undo", can_close=True)

    @Slot(object)
    def _tell_lost_run(self, run: RunFolder) -> None:
        self._lost = run
        button = self.tr("Resume…") if run.state else self.tr("Show it")
        words = recovery_words(run)
        self.about_session.show_words(words, "warning", button=button, can_close=True)

    @Slot()
    def _act(self) -> None:
        run, self._lost = self._lost, None
        if run is not None and run.state:
            self._window.links.resume_from(Path(run.state))
        elif run is not None:
            self._window.links.show_run(run.path)

    @Slot()
    def _dismiss(self) -> None:
        run, self._lost = self._lost, None
        if run is not None:
            preferences = self._window.preferences
            preferences.take(preferences.now.with_dismissed(run.path.name))
