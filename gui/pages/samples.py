"""The page of sample pictures: prompts against steps, two of them side by side."""

from __future__ import annotations

import threading
from pathlib import Path

from PySide6.QtCore import QTimer, QUrl, Signal, Slot
from PySide6.QtGui import QDesktopServices, QHideEvent, QShowEvent
from PySide6.QtWidgets import QFileDialog, QVBoxLayout, QWidget

from gui import theme
from gui.document import Document
from gui.engine.host import EngineHost
from gui.engine.run_folders import list_runs
from gui.forms.controls import Card, TonedLabel, picture_button
from gui.pages.sample_files import SampleGrid, find_samples, grid_of
from gui.pages.samples_compare import CompareSamples
from gui.pages.samples_grid import SamplesView
from gui.shell.form_page import PageHead
from gui.words import counted

_LOOK_AGAIN_MS = 3_000


class SamplesPage(QWidget):
    """Shows the pictures in the samples folder of the current or newest run."""

    _found = Signal(int, object, object)

    def __init__(self, document: Document, host: EngineHost, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._host = host
        self._chosen: Path | None = None
        self._folder: Path | None = None
        self._request = 0
        self.head = PageHead(self.tr("Samples"), "")
        self.view = SamplesView()
        self.compare = picture_button("compare", self.tr("Compare two"))
        self.open = picture_button("folder", self.tr("Open folder"))
        self.other = picture_button("open", self.tr("Other folder…"))
        self.empty = Card(self.tr("No sample pictures"))
        self._how = TonedLabel()
        self._how.setWordWrap(True)
        self._timer = QTimer(self)
        self._timer.setInterval(_LOOK_AGAIN_MS)
        self._lay_out()
        self._timer.timeout.connect(self.refresh)
        self._found.connect(self._show_found)
        self.view.picked.connect(self._picked)
        self.view.doubleClicked.connect(self._open_picture)
        self.compare.clicked.connect(self._compare)
        self.open.clicked.connect(self._open_folder)
        self.other.clicked.connect(self._choose_folder)
        self._picked()

    def showEvent(self, event: QShowEvent) -> None:
        """Look for pictures while it can be seen."""
        super().showEvent(event)
        self.refresh()
        self._timer.start()

    def hideEvent(self, event: QHideEvent) -> None:
        """Rest."""
        super().hideEvent(event)
        self._timer.stop()

    @Slot()
    def refresh(self) -> None:
        """Look for pictures, in a thread."""
        self._request += 1
        request, chosen, current = self._request, self._chosen, self._host.status.folder
        output = Path(str(self._document.value("output.folder")))

        def look() -> None:
            folder = chosen
            if folder is None and current:
                folder = Path(current) / "samples"
            if folder is None:
                runs = list_runs(output)
                folder = runs[0].path / "samples" if runs else None
            grid = find_samples(folder) if folder is not None else grid_of(())
            self._found.emit(request, folder, grid)

        threading.Thread(target=look, name="samples-folder", daemon=True).start()

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(theme.GAP_5, theme.GAP_4, theme.GAP_4, theme.GAP_5)
        column.setSpacing(theme.GAP_3)
        for button in (self.compare, self.open, self.other):
            self.head.buttons.addWidget(button)
        column.addWidget(self.head)
        self.empty.body.addWidget(self._how)
        column.addWidget(self.empty)
        self._frame = Card()
        self._frame.body.setContentsMargins(1, 1, 1, 1)
        self._frame.body.addWidget(self.view)
        column.addWidget(self._frame, 1)
        self._space = QWidget()
        column.addWidget(self._space, 1)
        self._show_found(0, None, grid_of(()))

    @Slot(int, object, object)
    def _show_found(self, request: int, folder: Path | None, grid: SampleGrid) -> None:
        if request != self._request:
            return
        self._folder = folder
        self.view.grid_model().show_grid(grid, self.devicePixelRatioF())
        count = len(grid.pictures)
        self.empty.setVisible(not count)
        self._frame.setVisible(count > 0)
        self._space.setVisible(not count)
        self.open.setEnabled(folder is not None)
        words = counted(count, self.tr("picture"), self.tr("pictures"))
        purpose = self.tr("{0}; Ctrl+click a second one to compare.").format(words)
        self.head.purpose.setText(purpose if count else self.tr("How the model changes."))
        self._how.setText(self._way(folder))

    def _way(self, folder: Path | None) -> str:
        text = self.tr(
            "This version does not paint pictures while it trains. Load a saved model in the "
            "program you make pictures with, and put what it makes into the samples folder of the "
            "run: the grid sorts it by the step and the prompt in the file names, such as "
            "portrait_step_000500.png or run_step_000500_portrait.png."
        )
        if folder is None:
            return text + "\n\n" + self.tr("A samples folder belongs to a run; none is known yet.")
        return text + "\n\n" + str(folder)

    @Slot()
    def _picked(self) -> None:
        is_pair = len(self.view.chosen()) == 2
        self.compare.setEnabled(is_pair)
        self.compare.setToolTip(
            "" if is_pair else self.tr("Choose two pictures: click one, Ctrl+click another.")
        )

    @Slot()
    def _compare(self) -> None:
        left, right = self.view.chosen()
        CompareSamples(left, right, self).exec()

    @Slot()
    def _open_picture(self) -> None:
        chosen = self.view.chosen()
        if chosen:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(chosen[0].path)))

    @Slot()
    def _open_folder(self) -> None:
        if self._folder is None:
            return
        # The folder of a run is there; that for pictures is made when it is first wanted.
        if self._folder.parent.is_dir():
            self._folder.mkdir(exist_ok=True)
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._folder)))

    @Slot()
    def _choose_folder(self) -> None:
        start = str(self._folder or self._document.value("output.folder"))
        chosen = QFileDialog.getExistingDirectory(self, self.tr("Folder with pictures"), start)
        if chosen:
            self._chosen = Path(chosen)
            self.refresh()


Page = SamplesPage
