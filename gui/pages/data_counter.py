"""Keeps what the engine says of the dataset in step with the settings and the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal, Slot

from gui.document import Document
from gui.pages.data_facts import Counting, DataFacts, parse_facts
from gui.shell.checker import ConfigQuestion, plain_failure

_SETTLE_MS = 700
# What decides the pictures, their captions and their entries in the cache.
_SECTIONS = frozenset({"model", "data", "buckets", "captions", "cache"})


class DataCounter(QObject):
    """Asks the engine in a child process, while the page is seen and nothing else needs it.

    Other questions come first, since one that comes second finds new pictures read already.

    Attributes:
        facts: The last answer that still holds; None if there is none.
        failure: Why there is no answer; empty if there is one or none was asked for.

    Signals:
        changed: `facts`, `failure` or `counting` changed.
    """

    changed = Signal()

    def __init__(self, document: Document, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.facts: DataFacts | None = None
        self.failure = ""
        self._document = document
        self._is_stale = True
        self._is_seen = False
        self._is_checking = True
        self._is_running = False
        self._question = ConfigQuestion(self)
        self._question.answered.connect(self._take)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MS)
        self._timer.timeout.connect(self._ask)
        document.changed.connect(self._follow)

    @property
    def counting(self) -> Counting:
        """Whether an answer is to come."""
        if not (self._is_stale or self._question.is_asking) or not self._can_ask():
            return "no"
        return "after the run" if self._is_running else "now"

    @property
    def is_busy(self) -> bool:
        """Whether an answer is being worked on."""
        return self._timer.isActive() or self._question.is_asking

    def set_seen(self, is_seen: bool) -> None:
        """Begin to count once the result is seen."""
        self._is_seen = is_seen
        self._begin()

    def set_engine(self, *, is_checking: bool, is_running: bool) -> None:
        """Wait while the engine checks the run; during a run, ask nothing and count anew after.

        Args:
            is_checking: Whether the engine answers other questions.
            is_running: Whether a run goes on, which fills the caches.
        """
        was_running, self._is_running = self._is_running, is_running
        self._is_checking = is_checking
        if is_running != was_running:
            self._outdate()
        self._begin()

    def forget(self, path: Path) -> None:
        """Count anew, since the picture at ``path`` or its caption has changed."""
        if self.facts is not None:
            self.facts = self.facts.without(path)
        self._outdate()
        self._begin()

    def stop(self) -> None:
        """Ask nothing more."""
        self._is_seen = False
        self._timer.stop()
        self._question.drop()

    @Slot(object)
    def _follow(self, paths: frozenset[str]) -> None:
        if any(path.split(".")[0] in _SECTIONS for path in paths):
            self.facts = None
            self._outdate()
            self._begin()

    def _outdate(self) -> None:
        self._timer.stop()
        self._question.drop()
        self.failure = ""
        self._is_stale = True
        self.changed.emit()

    def _begin(self) -> None:
        is_free = not (self._is_checking or self._is_running)
        if self._is_stale and self._is_seen and is_free and self._can_ask():
            self._timer.start()
        else:
            self._timer.stop()

    def _can_ask(self) -> bool:
        sections = _SECTIONS - {"model"}
        problems = self._document.problems()
        return not any(problem.path.split(".")[0] in sections for problem in problems)

    @Slot()
    def _ask(self) -> None:
        # Only what is needed, so that a fault elsewhere does not keep the answer back.
        config = self._document.config()
        sections = {key: config[key] for key in sorted(_SECTIONS & set(config))}
        self._is_stale = False
        self._question.ask("dataset", {"schema": config["schema"], **sections})
        self.changed.emit()

    @Slot(object, str)
    def _take(self, data: Any, failure: str) -> None:
        self.failure = plain_failure(failure)
        try:
            self.facts = None if failure else parse_facts(data)
        except ValueError as error:
            self.facts, self.failure = None, str(error)
        self.changed.emit()
