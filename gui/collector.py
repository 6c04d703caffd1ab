"""Garbage is searched for in the window's thread, and in no other.

Python searches in whichever thread happens to make the next object. If that is the engine's, or the
one that reads the engine's output, then a widget that is garbage is destroyed there, and Qt hangs
or crashes. So Python's own search is off, and a timer of the window does it instead.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from types import TracebackType

from PySide6.QtCore import QObject, Qt, QTimer, Signal, Slot

from aozora.runtime import garbage_collected_by

_LOOK_INTERVAL_MS = 250
# The window's thread may be waiting for the thread that asks.
_PATIENCE_SECONDS = 5.0


class GarbageCollector(QObject):
    """Searches for garbage in the thread it was made in, between ``with`` and its end.

    The other threads' requests (`aozora.runtime.collect_garbage`) are carried out there too.
    """

    _asked = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._home = threading.get_ident()
        self._in_charge = contextlib.ExitStack()
        self._timer = QTimer(self)
        self._timer.setInterval(_LOOK_INTERVAL_MS)
        self._timer.timeout.connect(self.look)
        self._asked.connect(self._answer, Qt.ConnectionType.QueuedConnection)

    def __enter__(self) -> GarbageCollector:
        self._in_charge.enter_context(garbage_collected_by(self.collect))
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.stop()
        self._in_charge.close()

    def collect(self) -> None:
        """Search all objects; asked in another thread, return when the window's has done it.

        A thread that is waited for by the window's gets no search and goes on after some seconds.
        """
        if threading.get_ident() == self._home:
            gc.collect()
            return
        done = threading.Event()
        self._asked.emit(done)
        done.wait(_PATIENCE_SECONDS)

    @Slot()
    def look(self) -> None:
        """Search what Python would have searched by now."""
        for generation in (2, 1, 0):
            if gc.get_count()[generation] > gc.get_threshold()[generation]:
                gc.collect(generation)
                return

    @Slot(object)
    def _answer(self, done: threading.Event) -> None:
        gc.collect()
        done.set()
