"""What comes from outside: dropped files, files given at the start, files of a second start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QMimeData, QObject, Slot

from gui.shell.drops import kind_of_drop

if TYPE_CHECKING:
    from gui.shell.window import MainWindow


class Intake(QObject):
    """Does with a path what it is good for."""

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window

    @Slot(object)
    def take(self, path: Path) -> None:
        """Open a configuration, train a model, add pictures, resume a state, or show a run."""
        window = self._window
        kind = kind_of_drop(path)
        if kind == "config":
            window.files.open(path)
        elif kind == "model":
            window.document.set_values({"model.base": str(path)}, self.tr("base model"))
            window.go_to("model.base")
        elif kind == "pictures":
            self._add_pictures(path)
        elif kind == "state":
            window.links.resume_from(path)
        elif kind == "run":
            window.links.show_run(path)
        else:
            text = self.tr("{0} is no model, folder of pictures, configuration or state.")
            title = self.tr("Nothing can be done with this")
            window.dialogs.tell(title, text.format(path.name))

    def _add_pictures(self, path: Path) -> None:
        document = self._window.document
        value = document.value("data.folders")
        # A faulty file is shown with its faults, so that there may be anything here.
        folders = value if isinstance(value, list) else []
        if not any(isinstance(f, dict) and f.get("path") == str(path) for f in folders):
            new = [*folders, {"path": str(path)}]
            document.set_values({"data.folders": new}, self.tr("add folder"))
        self._window.show_page("data")

    def take_urls(self, data: QMimeData) -> None:
        """Take everything that was dropped."""
        for url in data.urls():
            if url.isLocalFile():
                self.take(Path(url.toLocalFile()))

    @Slot(object)
    def take_from_second_start(self, paths: Sequence[Path]) -> None:
        """Come to the front and take in what the second start was given."""
        window = self._window
        if window.isMinimized():
            window.showNormal()
        window.show()
        window.raise_()
        window.activateWindow()
        for path in paths:
            self.take(path)
