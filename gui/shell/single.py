"""One window a user: a second start hands its files to the first and ends."""

from __future__ import annotations

import getpass
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QObject, Signal, Slot
from PySide6.QtNetwork import QLocalServer, QLocalSocket

from aozora.runtime import config_folder

_PATIENCE_MS = 500


def _name() -> str:
    # The folder of the settings is what two windows must not both write to.
    identity = f"{getpass.getuser()} {config_folder()}"
    return "aozora-" + hashlib.sha256(identity.encode("utf-8")).hexdigest()[:16]


def hand_over(paths: Sequence[Path]) -> bool:
    """Give ``paths`` to the window that is open already; return whether there is one."""
    socket = QLocalSocket()
    socket.connectToServer(_name())
    if not socket.waitForConnected(_PATIENCE_MS):
        return False
    text = json.dumps([str(path.absolute()) for path in paths])
    socket.write(text.encode("utf-8"))
    socket.waitForBytesWritten(_PATIENCE_MS)
    socket.disconnectFromServer()
    return True


class SingleWindow(QObject):
    """Listens for second starts.

    Signals:
        asked: Another start happened; carries its paths.
    """

    asked = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._server = QLocalServer(self)
        self._server.newConnection.connect(self._take)
        if not self._server.listen(_name()):
            # Left over from a program that died; nobody answered there a moment ago.
            QLocalServer.removeServer(_name())
            self._server.listen(_name())

    @Slot()
    def _take(self) -> None:
        socket = self._server.nextPendingConnection()
        if socket is None:
            return
        socket.waitForReadyRead(_PATIENCE_MS)
        try:
            names = json.loads(bytes(socket.readAll().data()).decode("utf-8"))
            paths = [Path(name) for name in names if isinstance(name, str)]
        except ValueError:
            paths = []
        socket.deleteLater()
        self.asked.emit(paths)

    def close(self) -> None:
        """Listen no more."""
        self._server.close()
