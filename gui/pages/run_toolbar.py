"""The line of controls above the charts."""

from __future__ import annotations

import math

from PySide6.QtCore import QSignalBlocker, Qt, Signal, Slot
from PySide6.QtWidgets import QHBoxLayout, QMenu, QPushButton, QSlider, QToolButton, QWidget

from gui import theme
from gui.charts.view import ChartView, Place
from gui.editors.folding_row import FoldingRow
from gui.forms.controls import DropDown, TonedLabel, picture_button

_SLIDER_TOP = 300
_FOLD_PX = 695


def slider_of(smoothing: float) -> int:
    """Return where the slider stands at a smoothing weight: each third is a factor of ten."""
    return round(-100 * math.log10(max(1.0 - smoothing, 1e-3)))


def smoothing_of(slider: int) -> float:
    """Return the smoothing weight of a place of the slider."""
    kept: float = 1.0 - 10.0 ** (-slider / 100)
    return round(kept, 4)


def _row() -> QHBoxLayout:
    row = QHBoxLayout()
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(theme.GAP_2)
    return row


class RunToolbar(QWidget):
    """Shows a `ChartView` and asks for others.

    `whole` and `export` belong to it, but stand in the head of the page; `add` puts more buttons
    behind its own.

    Signals:
        asked(ChartView): the person wants this view.
        whole_asked(): everything again.
        pause_asked(bool): leave the charts as they are, or let them go on.
        picture_asked(), table_asked(): save the charts, or their numbers.
    """

    asked = Signal(object)
    whole_asked = Signal()
    pause_asked = Signal(bool)
    picture_asked = Signal()
    table_asked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._view = ChartView()
        self.place = DropDown()
        self.place.setAccessibleName(self.tr("Horizontal axis"))
        for key, name in (
            ("step", self.tr("Steps")),
            ("seconds", self.tr("Time")),
            ("epoch", self.tr("Epochs")),
        ):
            self.place.addItem(name, key)
        self.smoothing = QSlider(Qt.Orientation.Horizontal)
        self.smoothing.setRange(0, _SLIDER_TOP)
        self.smoothing.setFixedWidth(92)
        self.smoothing.setAccessibleName(self.tr("Smoothing of the loss"))
        self.smoothing.setToolTip(self.tr("How much of the past the smoothed loss keeps"))
        self._weight = TonedLabel()
        self._weight.setFont(theme.number_font())
        self._weight.setFixedWidth(44)
        self.log = self._toggle(self.tr("Log"), self.tr("Logarithmic axis of the loss"))
        self.clip = self._toggle(
            self.tr("Clip outliers"),
            self.tr("Let the highest and lowest hundredth of the losses lie outside"),
        )
        self.follow = self._toggle(
            self.tr("Follow"), self.tr("Keep the newest step in view; off after a zoom or a pan")
        )
        self.pause = self._toggle(
            self.tr("Pause"), self.tr("Draw nothing new for now; the run goes on and is recorded")
        )
        self.whole = QPushButton(self.tr("Show all"))
        self.whole.setToolTip(self.tr("Undo every zoom (double-click a chart)"))
        self.export = picture_button("external", self.tr("Export"))
        menu = QMenu(self)
        menu.addAction(self.tr("Picture of the charts (PNG)…"), self.picture_asked.emit)
        menu.addAction(self.tr("Numbers of every step (CSV)…"), self.table_asked.emit)
        self.export.setMenu(menu)
        self._lay_out()
        self.place.currentIndexChanged.connect(self._ask)
        self.smoothing.valueChanged.connect(self._ask)
        for button in (self.log, self.clip, self.follow):
            button.toggled.connect(self._ask)
        self.pause.toggled.connect(self.pause_asked)
        self.whole.clicked.connect(self.whole_asked)
        self.show_view(self._view)

    def show_view(self, view: ChartView) -> None:
        """Let the controls say what ``view`` is."""
        self._view = view
        controls = (self.place, self.smoothing, self.log, self.clip, self.follow)
        blockers = [QSignalBlocker(control) for control in controls]
        self.place.setCurrentIndex(self.place.findData(view.place))
        if smoothing_of(self.smoothing.value()) != view.smoothing:
            self.smoothing.setValue(slider_of(view.smoothing))
        self.log.setChecked(view.is_log)
        self.clip.setChecked(view.is_clipped)
        self.follow.setChecked(view.follow)
        self._weight.setText(f"{view.smoothing:.3f}")
        del blockers

    def add(self, button: QWidget) -> None:
        """Put one more button behind the others."""
        self._buttons.insertWidget(self._buttons.count() - 1, button)

    def _toggle(self, text: str, tip: str) -> QToolButton:
        button = QToolButton()
        button.setText(text)
        button.setToolTip(tip)
        button.setCheckable(True)
        button.setFixedHeight(theme.CONTROL_HEIGHT)
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        return button

    def _lay_out(self) -> None:
        measures, self._buttons = _row(), _row()
        measures.addWidget(self.place)
        measures.addSpacing(theme.GAP_2)
        measures.addWidget(TonedLabel(self.tr("Smoothing")))
        measures.addWidget(self.smoothing)
        measures.addWidget(self._weight)
        for button in (self.log, self.clip, self.follow, self.pause):
            self._buttons.addWidget(button)
        folding = FoldingRow(_FOLD_PX)
        for row, stretch in ((measures, 0), (self._buttons, 1)):
            row.addStretch(1)
            part = QWidget()
            part.setLayout(row)
            folding.add(part, stretch)
        whole = QHBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addWidget(folding)

    @Slot()
    def _ask(self) -> None:
        place: Place = self.place.currentData()
        view = self._view.along(place)
        moved = self.follow.isChecked() if place == self._view.place else True
        self.asked.emit(
            ChartView(
                place=view.place,
                window=view.window,
                follow=moved,
                smoothing=smoothing_of(self.smoothing.value()),
                is_log=self.log.isChecked(),
                is_clipped=self.clip.isChecked(),
            )
        )
