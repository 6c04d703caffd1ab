"""Asking the engine about a configuration, which is handed over in a file of its own."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal, Slot

from gui.shell.checker import EngineQuestion


class ConfigQuestion(QObject):
    """One question about a configuration that is answered with JSON.

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
        handle, name = tempfile.mkstemp(prefix=f"aozora-{verb}-", suffix=".json")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(config, file)
        self._file = Path(name)
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
        if self._file is not None:
            self._file.unlink(missing_ok=True)
            self._file = None
