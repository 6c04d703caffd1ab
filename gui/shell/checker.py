"""Asking the engine about the document, in a child process: the window itself loads no torch."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QProcess, QProcessEnvironment, QTimer, Signal, Slot

from gui.document import Document
from gui.engine.program import engine_command
from gui.shell.estimate import Estimate, parse_estimate

log = logging.getLogger(__name__)

_SETTLE_MS = 600


def plain_failure(text: str) -> str:
    """Return what the engine's command line said went wrong, without its titles."""
    return text.replace("Error: ", "").replace("What to do: ", "")


class EngineQuestion(QObject):
    """One question to the engine's command line that is answered with JSON.

    Signals:
        answered: The JSON value, and a text that says why there is none.
    """

    answered = Signal(object, str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._process: QProcess | None = None

    @property
    def is_asking(self) -> bool:
        """Whether an answer is still to come."""
        return self._process is not None

    def ask(self, arguments: list[str]) -> None:
        """Ask; an answer that is still to come to an earlier question never will."""
        self.drop()
        process = QProcess(self)
        environment = QProcessEnvironment.systemEnvironment()
        environment.insert("PYTHONIOENCODING", "utf-8")
        process.setProcessEnvironment(environment)
        process.finished.connect(self._finished)
        process.errorOccurred.connect(self._failed)
        self._process = process
        program, *rest = engine_command("aozora", *arguments)
        process.start(program, rest)

    def drop(self) -> None:
        """Forget the question that is being asked."""
        process, self._process = self._process, None
        if process is not None:
            process.finished.disconnect(self._finished)
            process.errorOccurred.disconnect(self._failed)
            process.kill()
            process.waitForFinished(2000)
            process.deleteLater()

    @Slot(QProcess.ProcessError)
    def _failed(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart and self._process is not None:
            process, self._process = self._process, None
            text = process.errorString()
            process.deleteLater()
            self.answered.emit(None, text)

    @Slot(int)
    def _finished(self, code: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        output = bytes(process.readAllStandardOutput().data()).decode("utf-8", errors="replace")
        said = bytes(process.readAllStandardError().data()).decode("utf-8", errors="replace")
        process.deleteLater()
        try:
            data: Any = json.loads(output)
        except ValueError:
            lines = [line for line in said.strip().splitlines() if line.strip()]
            log.warning("The engine gave no answer (exit code %d): %s", code, said.strip())
            self.answered.emit(None, "\n".join(lines[-3:]) or f"exit code {code}")
            return
        self.answered.emit(data, "")


class ConfigQuestion(QObject):
    """One question about a configuration, which is handed over in a file of its own.

    Signals:
        answered: The JSON value, and a text that says why there is none.
    """

    answered = Signal(object, str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._question = EngineQuestion(self)
        self._question.answered.connect(self._take)
        self._file: Path | None = None

    @property
    def is_asking(self) -> bool:
        """Whether an answer is still to come."""
        return self._question.is_asking

    def ask(self, verb: str, config: Mapping[str, Any]) -> None:
        """Ask; an answer that is still to come to an earlier question never will."""
        self.drop()
        try:
            handle, name = tempfile.mkstemp(prefix=f"aozora-{verb}-", suffix=".json")
            self._file = Path(name)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(config, file)
        except OSError as error:
            # As on a full disk; nothing can be asked then.
            self._take(None, str(error))
            return
        self._question.ask([verb, name, "--json"])

    def drop(self) -> None:
        """Forget the question that is being asked."""
        self._question.drop()
        self._remove_file()

    @Slot(object, str)
    def _take(self, data: Any, failure: str) -> None:
        self._remove_file()
        self.answered.emit(data, failure)

    def _remove_file(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            # Windows deletes no file that is open, be it in a process that is just being ended.
            log.warning("%s is left behind: %s", file, error)


class RunChecker(QObject):
    """Keeps an estimate of the run in step with the document.

    Asked automatically when the document has no problems of its own and has been still for a
    moment; never while a run needs the computer.

    Signals:
        changed: `estimate` or `is_checking` changed.
    """

    changed = Signal()

    def __init__(self, document: Document, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._estimate: Estimate | None = None
        self._is_paused = False
        self._question = ConfigQuestion(self)
        self._question.answered.connect(self._take)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MS)
        self._timer.timeout.connect(self.check_now)
        document.changed.connect(self._outdate)
        document.problems_changed.connect(self._outdate)

    @property
    def estimate(self) -> Estimate | None:
        """The answer for the document as it is; None while there is none."""
        return self._estimate

    @property
    def is_checking(self) -> bool:
        """Whether an answer is to come."""
        return self._timer.isActive() or self._question.is_asking

    @property
    def is_paused(self) -> bool:
        """Whether nothing is asked, since a run goes on."""
        return self._is_paused

    def pause(self, is_paused: bool) -> None:
        """Ask nothing while a run goes on, and ask anew once it is over: it was measured."""
        if is_paused == self._is_paused:
            return
        self._is_paused = is_paused
        if is_paused:
            self._timer.stop()
            self._question.drop()
            self.changed.emit()
        else:
            self._outdate()

    @Slot()
    def check_now(self) -> None:
        """Ask now, if there is anything to ask about."""
        self._timer.stop()
        if self._is_paused or self._document.problems():
            return
        self._question.ask("check", self._document.config())
        self.changed.emit()

    def stop(self) -> None:
        """End for good; for the end of the program."""
        self._timer.stop()
        self._question.drop()

    @Slot()
    def _outdate(self) -> None:
        self._estimate = None
        self._question.drop()
        if self._document.problems() or self._is_paused:
            self._timer.stop()
        else:
            self._timer.start()
        self.changed.emit()

    @Slot(object, str)
    def _take(self, data: Any, failure: str) -> None:
        try:
            self._estimate = (
                Estimate(summary={}, failure=failure) if failure else parse_estimate(data)
            )
        except ValueError as error:
            self._estimate = Estimate(summary={}, failure=str(error))
        self.changed.emit()
