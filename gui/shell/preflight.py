"""The panel above the run bar: what stops the run, each with Go to, or what the run would be."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal, Slot
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import (
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from aozora.errors import Problem
from gui import theme
from gui.engine.figures import RunFigures
from gui.engine.host import EngineHost
from gui.engine.states import RunState, RunStatus
from gui.forms.controls import TonedLabel, rule, tool_button
from gui.forms.setting_row import sentence
from gui.forms.shapes import shape_of
from gui.shell.checker import RunChecker
from gui.shell.estimate import (
    MEASURED_STEPS,
    Estimate,
    facts,
    measured_facts,
    memory_arrangement,
    source_words,
)
from gui.shell.run_bar import HEIGHT as RUN_BAR_HEIGHT
from gui.shell.run_desk import RunDesk
from gui.words import counted, tr

_WIDTH = 520
_MOST_HEIGHT = 420


def problem_title(problem: Problem) -> str:
    """Return the name of the setting ``problem`` is about."""
    path = problem.path.split("[")[0]
    try:
        return tr(shape_of(path).info.label)
    except KeyError:
        return problem.path or tr("Configuration")


class Preflight(QFrame):
    """A panel that floats over the page.

    Signals:
        go_asked: The path of the setting the user wants to mend.
    """

    go_asked = Signal(str)

    def __init__(
        self, parent: QWidget, desk: RunDesk, checker: RunChecker, host: EngineHost
    ) -> None:
        super().__init__(parent)
        self._desk = desk
        self._checker = checker
        self._host = host
        desk.problems_changed.connect(self.refresh)
        desk.refused.connect(self.open)
        host.status_changed.connect(self.refresh)
        self.setProperty("card", "true")
        self.setAutoFillBackground(True)
        self.setFixedWidth(_WIDTH)
        column = QVBoxLayout(self)
        column.setContentsMargins(theme.GAP_4, theme.GAP_2, theme.GAP_2, theme.GAP_4)
        head = QHBoxLayout()
        self._title = QLabel()
        self._title.setFont(theme.group_font())
        close = tool_button("close", self.tr("Close"), token="muted")
        close.clicked.connect(self.hide)
        head.addWidget(self._title)
        head.addStretch(1)
        head.addWidget(close)
        column.addLayout(head)
        self._area = QScrollArea()
        self._area.setWidgetResizable(True)
        self._area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        column.addWidget(self._area, 1)
        self._height = 0
        self.hide()

    @Slot()
    def toggle(self) -> None:
        """Show or hide it."""
        self.setVisible(not self.isVisible())
        self.refresh()

    @Slot()
    def open(self) -> None:
        """Show it."""
        self.show()
        self.refresh()

    @Slot()
    def refresh(self) -> None:
        """Say what holds now, if it is seen."""
        if self.isVisible():
            host = self._host
            self.show_for(self._desk.problems(), self._checker.estimate, host.status, host.figures)
            self.place()

    def place(self) -> None:
        """Stand above the run bar."""
        self.place_above(self.window().height() - RUN_BAR_HEIGHT, theme.GAP_3)

    def show_for(
        self,
        problems: tuple[Problem, ...],
        estimate: Estimate | None,
        status: RunStatus,
        figures: RunFigures,
    ) -> None:
        """Fill the panel."""
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(0, 0, theme.GAP_2, 0)
        column.setSpacing(theme.GAP_2)
        if status.state is RunState.FAILED and status.message:
            self._title.setText(self.tr("The run failed"))
            self._words(column, status.message, "error")
            self._words(column, status.hint, "text")
        elif status.is_active:
            self._title.setText(self.tr("The run is going on"))
            measured = measured_facts(figures)
            column.addLayout(self._facts(measured))
            if not measured:
                text = self.tr("After {0} steps, what it takes by its own measure stands here.")
                self._words(column, text.format(MEASURED_STEPS), "muted")
        elif problems:
            count = counted(len(problems), tr("problem"), tr("problems"))
            self._title.setText(self.tr("{0} before it can start").format(count))
            for number, problem in enumerate(problems):
                if number:
                    column.addWidget(rule())
                column.addLayout(self._problem(problem))
        elif estimate is not None and estimate.failure:
            self._title.setText(self.tr("The run could not be checked"))
            self._words(column, estimate.failure, "warn")
            column.addWidget(self._again(), 0, Qt.AlignmentFlag.AlignLeft)
        elif estimate is not None:
            self._title.setText(self.tr("Ready to train"))
            self._words(column, memory_arrangement(estimate), "text")
            column.addLayout(self._facts(facts(estimate)))
            self._words(column, source_words(estimate), "muted")
            for note in estimate.notes:
                self._words(column, note, "muted")
        else:
            self._title.setText(self.tr("Checking the run"))
            text = self.tr("Model, pictures and memory are being looked at.")
            self._words(column, text, "muted")
        column.addStretch(1)
        old = self._area.takeWidget()
        if old is not None:
            old.deleteLater()
        self._area.setWidget(inner)
        # The ground of the card shows through.
        inner.setAutoFillBackground(False)
        self._area.viewport().setAutoFillBackground(False)
        inner.setFixedWidth(_WIDTH - theme.GAP_4 - theme.GAP_2 - 14)
        self._height = column.heightForWidth(inner.width())
        if self._height < 0:
            self._height = inner.sizeHint().height()

    def place_above(self, bottom: int, left: int) -> None:
        """Stand with the lower left corner at this place of the parent."""
        height = min(self._height + 68, _MOST_HEIGHT, max(bottom - 16, 120))
        self.setGeometry(left, bottom - height - 8, _WIDTH, height)
        self.raise_()

    def _words(self, column: QVBoxLayout, text: str, tone: str) -> None:
        if text:
            label = TonedLabel(text, tone)  # type: ignore[arg-type]
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            column.addWidget(label)

    def _problem(self, problem: Problem) -> QHBoxLayout:
        row = QHBoxLayout()
        words = QVBoxLayout()
        words.setSpacing(1)
        title = QLabel(problem_title(problem))
        title.setTextFormat(Qt.TextFormat.PlainText)
        text = TonedLabel(sentence(problem))
        text.setWordWrap(True)
        words.addWidget(title)
        words.addWidget(text)
        row.addLayout(words, 1)
        if problem.path:
            button = QPushButton(self.tr("Go to"))
            button.setAccessibleName(self.tr("Go to {0}").format(title.text()))
            button.setProperty("problem_path", problem.path)
            button.clicked.connect(self._go)
            row.addWidget(button, 0, Qt.AlignmentFlag.AlignTop)
        return row

    def _go(self) -> None:
        sender = self.sender()
        assert sender is not None
        self.hide()
        self.go_asked.emit(str(sender.property("problem_path")))

    def _again(self) -> QPushButton:
        button = QPushButton(self.tr("Check again"))
        button.clicked.connect(self._checker.check_now)
        return button

    def _facts(self, rows: list[tuple[str, str]]) -> QGridLayout:
        grid = QGridLayout()
        grid.setHorizontalSpacing(theme.GAP_5)
        grid.setVerticalSpacing(theme.GAP_1)
        grid.setColumnStretch(1, 1)
        for row, (name, value) in enumerate(rows):
            text = QLabel(value)
            text.setFont(theme.number_font())
            grid.addWidget(TonedLabel(name), row, 0)
            grid.addWidget(text, row, 1)
        return grid

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Handle a key."""
        if event.key() == Qt.Key.Key_Escape:
            self.hide()
        else:
            super().keyPressEvent(event)
