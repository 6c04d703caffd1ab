"""Runs that ended without a word: found at the start, so that none is lost silently."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from PySide6.QtCore import QObject, Signal, Slot

from gui.engine.run_folders import RunFolder, list_runs
from gui.words import tr, whole


def lost_run(runs: Iterable[RunFolder], dismissed: Sequence[str]) -> RunFolder | None:
    """Return the newest of ``runs`` if it died and the user has not put it aside."""
    newest = max(runs, key=lambda run: run.started, default=None)
    if newest is None or newest.outcome != "died" or newest.path.name in dismissed:
        return None
    return newest


def recovery_words(run: RunFolder) -> str:
    """Return what is said about a run that died."""
    text = tr("{0} ended unexpectedly at step {1}.").format(run.name, whole(run.step))
    if not run.state:
        return f"{text} {tr('No state of it was saved.')}"
    return f"{text} {tr('Its last state is of step {0}.').format(whole(run.state_step))}"


class RunRecovery(QObject):
    """Looks for a run that died, in a thread.

    Signals:
        found: The run, a `RunFolder`.
    """

    found = Signal(object)
    _looked = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._looked.connect(self._tell)

    def look(self, outputs: Sequence[str], dismissed: Sequence[str]) -> None:
        """Look in the output folders ``outputs``."""

        def work() -> None:
            runs = [run for output in outputs for run in list_runs(Path(output))]
            self._looked.emit(lost_run(runs, dismissed))

        if outputs:
            threading.Thread(target=work, name="recovery", daemon=True).start()

    @Slot(object)
    def _tell(self, run: RunFolder | None) -> None:
        if run is not None:
            self.found.emit(run)
