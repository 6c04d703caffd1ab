"""The one thread the window knows of: whatever runs the engine, these are its signals."""

from __future__ import annotations

import traceback

from PySide6.QtCore import QObject, QThread, Signal

from aozora.events import Event
from gui.engine.bodies import EngineBody
from gui.engine.mailbox import LogLine, Mailbox
from gui.engine.states import EngineEnded


class EngineThread(QThread):
    """Runs one `EngineBody` and fills a `Mailbox`.

    Signals:
        arrived(): the mailbox was empty and is not any more.
        ended(int): the body is through; nothing comes after it. Carries the number of the run,
            because the signal of an earlier thread may come when a later one runs already.
    """

    arrived = Signal()
    ended = Signal(int)

    def __init__(
        self, number: int, body: EngineBody, mailbox: Mailbox, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._number = number
        self._body = body
        self._mailbox = mailbox
        self.end = EngineEnded(message="the engine's thread broke off")

    def run(self) -> None:
        """Run the body; called by Qt in the new thread."""
        try:
            self.end = self._body.run(self._post)
        except Exception as error:  # noqa: BLE001 - the thread's end: a bug is shown, not swallowed
            self.end = EngineEnded(
                message=f"{type(error).__name__}: {error}",
                hint="this is a bug in Aozora; please report it",
                output=traceback.format_exc(),
            )
        finally:
            self.ended.emit(self._number)

    def _post(self, item: Event | LogLine) -> None:
        if self._mailbox.put(item):
            self.arrived.emit()
