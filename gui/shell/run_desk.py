"""Starting, stopping and resuming the run from the window, with the questions that belong to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from PySide6.QtCore import QObject, Signal, Slot

from aozora.errors import Problem
from gui.document import Document
from gui.engine.bodies import DemoJob, Job
from gui.engine.host import EngineHost
from gui.engine.states import RunStatus
from gui.preferences import PreferenceKeeper, Preferences
from gui.shell.checker import RunChecker
from gui.shell.dialogs import Dialogs
from gui.words import tr


class RunDesk(QObject):
    """Stands between buttons and the engine.

    Args:
        settle: Called before the document is started, so that it holds what is being typed.

    Signals:
        problems_changed: `problems` may say something else.
        page_asked: A page is worth looking at now; carries its key.
        refused: A start was asked for that cannot be; `problems` may say why.
        over: The run that the window waited for before closing is over.
    """

    problems_changed = Signal()
    page_asked = Signal(str)
    refused = Signal()
    over = Signal()

    def __init__(
        self,
        document: Document,
        host: EngineHost,
        checker: RunChecker,
        preferences: PreferenceKeeper,
        dialogs: Dialogs,
        parent: QObject | None = None,
        *,
        settle: Callable[[], None],
    ) -> None:
        super().__init__(parent)
        self._document = document
        self._host = host
        self._checker = checker
        self._preferences = preferences
        self._dialogs = dialogs
        self._settle = settle
        self._is_closing = False
        document.problems_changed.connect(self._tell)
        checker.changed.connect(self._tell)
        host.status_changed.connect(self._follow)
        host.started.connect(self._started)
        host.ended.connect(self._ended)
        preferences.changed.connect(self._take_preferences)
        self._take_preferences(preferences.now)
        self._tell()

    def problems(self) -> tuple[Problem, ...]:
        """Return what keeps the document from being trained, as far as it is known."""
        estimate = self._checker.estimate
        own = self._document.problems()
        return own or (estimate.problems if estimate is not None else ())

    @Slot()
    def train(self) -> None:
        """Start a new run of the document as it is."""
        self._start("")

    @Slot()
    def resume_last(self) -> None:
        """Go on from the newest state in the document's output folder."""
        self._start("last")

    @Slot(object)
    def start_demo(self, folder: Path) -> None:
        """Run the demo in ``folder``."""
        if not self._host.start_demo(str(folder)):
            self._dialogs.tell(tr("The trial cannot start now"), self._host.hindrance)

    def _start(self, resume: str) -> None:
        self._settle()
        is_ready = self._host.status.can_start
        if not (is_ready and self._host.start(self._document.config(), resume=resume)):
            self.refused.emit()

    @Slot(object)
    def _started(self, job: Job) -> None:
        if isinstance(job, DemoJob):
            folder = Path(job.folder, "output")
        else:
            output = job.config.get("output", {})
            name = output.get("folder") if isinstance(output, Mapping) else None
            folder = Path(str(name or self._document.default("output.folder")))
        preferences = self._preferences
        preferences.take(preferences.now.with_runs_in(str(folder.absolute())))
        self.page_asked.emit("run")

    @Slot()
    def stop(self) -> None:
        """Ask how to stop, and do it."""
        status = self._host.status
        if not status.is_active:
            return
        answer = self._dialogs.stopping(status.unsaved_steps, is_closing=False)
        if answer != "keep":
            self._host.stop(save=answer == "save")

    @Slot()
    def save_and_stop(self) -> None:
        """Stop and keep everything; needs no question."""
        self._host.stop(save=True)

    @Slot()
    def stop_now(self) -> None:
        """Stop without saving, after asking when that loses something."""
        lost = self._host.status.unsaved_steps
        text = tr("{0} steps since the last save will be lost.").format(lost)
        if not lost or self._dialogs.confirm(tr("Stop now?"), text, tr("Stop now")):
            self._host.stop(save=False)

    @Slot()
    def force_quit(self) -> None:
        """End the engine at once, after asking."""
        text = tr(
            "The engine is ended at once. What was not saved is lost; saved files stay whole."
        )
        if self._dialogs.confirm(tr("Force quit?"), text, tr("Force quit")):
            self._host.force_quit()

    def closes(self) -> bool:
        """Return whether the window may close now; asks, and remembers to close later."""
        if self._host.status.is_free:
            return True
        # While a question is open, a run that ends must not close the window from under it.
        was_closing, self._is_closing = self._is_closing, False
        if was_closing and self._host.can_force_quit:
            self._offer_force()
        elif not self._stops_to_close():
            return False
        # Only an engine that is still there will say that it is over.
        self._is_closing = not self._host.status.is_free
        return not self._is_closing

    def _offer_force(self) -> None:
        text = tr("The run is still ending. Ending it by force loses what is not saved yet.")
        if self._dialogs.confirm(tr("Still saving"), text, tr("Force quit")):
            self._host.force_quit()
            self._host.wait(5.0)

    def _stops_to_close(self) -> bool:
        """Ask how to stop, and do it; return False when the window is to be kept."""
        answer = self._dialogs.stopping(self._host.status.unsaved_steps, is_closing=True)
        if answer != "keep":
            self._host.stop(save=answer == "save")
        return answer != "keep"

    @Slot(object)
    def _follow(self, status: RunStatus) -> None:
        self._checker.pause(status.is_active)

    @Slot(object)
    def _ended(self, status: RunStatus) -> None:
        if self._is_closing:
            self._is_closing = False
            self.over.emit()

    @Slot()
    def _tell(self) -> None:
        self._host.set_problems(len(self.problems()))
        self.problems_changed.emit()

    @Slot(object)
    def _take_preferences(self, preferences: Preferences) -> None:
        self._host.set_mode(preferences.engine_host)
