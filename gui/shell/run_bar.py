"""The bar at the bottom: what the run does, and what can be done about it."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import (
    QAbstractButton,
    QHBoxLayout,
    QMenu,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from gui import theme
from gui.engine.figures import RunFigures
from gui.engine.host import EngineHost
from gui.engine.states import RunState, RunStatus
from gui.forms.controls import TonedLabel, rule
from gui.icons import icon, paint_icon
from gui.shell import run_words
from gui.shell.checker import RunChecker
from gui.shell.run_words import Chip

HEIGHT = 65


class StateChip(QAbstractButton):
    """The state of the run as icon and words; a click says more."""

    def __init__(self) -> None:
        super().__init__()
        self._chip = Chip("", "muted", "clock")
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)

    @property
    def chip(self) -> Chip:
        """What it shows."""
        return self._chip

    def show_chip(self, chip: Chip) -> None:
        """Show ``chip``."""
        if chip != self._chip:
            self._chip = chip
            self.setText(chip.text)
            self.setAccessibleName(self.tr("State: {0}").format(chip.text))
            self.setToolTip(chip.text)
            self.updateGeometry()
            self.update()

    def sizeHint(self) -> QSize:
        """Return the size it would like."""
        return QSize(self.fontMetrics().horizontalAdvance(self.text()) + 46, 30)

    def minimumSizeHint(self) -> QSize:
        """Return the size below which it is no use."""
        return QSize(110, 30)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint it."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        tone = self._chip.tone
        rect = QRectF(self.rect()).adjusted(1, 1, -1, -1)
        painter.setPen(QPen(theme.colour("accent" if self.hasFocus() else tone), 1.2))
        painter.setBrush(theme.colour(tone, 0.22 if self.underMouse() else 0.12))
        painter.drawRoundedRect(rect, rect.height() / 2, rect.height() / 2)
        ink = getattr(theme.tokens(), tone)
        paint_icon(painter, self._chip.icon, QRectF(12, (self.height() - 16) / 2, 16, 16), ink)
        painter.setPen(theme.colour("text"))
        room = self.rect().adjusted(34, 0, -10, 0)
        text = painter.fontMetrics().elidedText(
            self.text(), Qt.TextElideMode.ElideRight, room.width()
        )
        painter.drawText(room, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, text)


class Meter(QWidget):
    """A thin bar filled to a share; an unknown share is an empty bar."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setFixedHeight(6)
        self.setAccessibleName(name)
        self._share = 0.0
        self._tone = "accent"

    def show_share(self, share: float | None, tone: str = "accent") -> None:
        """Fill it to ``share``."""
        if (share or 0.0, tone) != (self._share, self._tone):
            self._share, self._tone = share or 0.0, tone
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint it."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        rect = QRectF(self.rect())
        # Of the same colour as what is done, only faint: a border can be brighter than it.
        painter.setBrush(theme.colour(self._tone, 0.22))
        painter.drawRoundedRect(rect, 3, 3)
        if self._share > 0:
            painter.setBrush(theme.colour(self._tone))
            rect.setWidth(max(6.0, rect.width() * min(self._share, 1.0)))
            painter.drawRoundedRect(rect, 3, 3)


class RunBar(QWidget):
    """State, progress and the buttons of the run.

    Signals:
        train_asked, stop_asked, resume_last_asked, resume_file_asked, problems_asked: The user
            wants it; the window decides how.
        stop_now_asked, force_quit_asked: From the menu of Stop.
    """

    train_asked = Signal()
    stop_asked = Signal()
    stop_now_asked = Signal()
    force_quit_asked = Signal()
    resume_last_asked = Signal()
    resume_file_asked = Signal()
    problems_asked = Signal()

    def __init__(
        self, host: EngineHost, checker: RunChecker, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._host = host
        self._checker = checker
        self.setFixedHeight(HEIGHT)
        self.chip = StateChip()
        self.progress_text = TonedLabel(tone="text")
        self.pace_text = TonedLabel()
        self.progress = Meter(self.tr("Progress"))
        self.loss_text = TonedLabel(tone="text")
        self.memory_text = TonedLabel()
        self.memory = Meter(self.tr("Memory"))
        self.save = QPushButton(" " + self.tr("Save now"))
        self.stop = QPushButton(" " + self.tr("Stop"))
        self.resume = QPushButton(" " + self.tr("Resume"))
        self.train = QPushButton(" " + self.tr("Train"))
        self._lay_out()
        self._wire()
        self._show_status(host.status)
        self._show_figures(host.figures)

    def _lay_out(self) -> None:
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.setSpacing(0)
        whole.addWidget(rule())
        line = QWidget()
        bar = QHBoxLayout(line)
        bar.setContentsMargins(theme.GAP_4, 0, theme.GAP_4, 0)
        bar.setSpacing(theme.GAP_4)
        whole.addWidget(line, 1)
        bar.addWidget(self.chip)
        numbers = theme.number_font()
        for label in (self.progress_text, self.pace_text, self.loss_text, self.memory_text):
            label.setFont(numbers)
        words = QHBoxLayout()
        words.addWidget(self.progress_text)
        words.addStretch(1)
        words.addWidget(self.pace_text)
        middle = QVBoxLayout()
        middle.setSpacing(5)
        middle.addStretch(1)
        middle.addLayout(words)
        middle.addWidget(self.progress)
        middle.addStretch(1)
        self._middle = QWidget()
        self._middle.setLayout(middle)
        middle.setContentsMargins(0, 0, 0, 0)
        right = QVBoxLayout()
        right.setSpacing(5)
        right.setContentsMargins(0, 0, 0, 0)
        right.addStretch(1)
        figures = QHBoxLayout()
        figures.setSpacing(theme.GAP_3)
        figures.addWidget(self.loss_text)
        figures.addWidget(self.memory_text)
        right.addLayout(figures)
        right.addWidget(self.memory)
        right.addStretch(1)
        self._right = QWidget()
        self._right.setLayout(right)
        bar.addWidget(self._middle, 1)
        bar.addWidget(self._right)
        self._space = QWidget()
        bar.addWidget(self._space, 1)
        for button in (self.save, self.stop, self.resume, self.train):
            button.setFixedHeight(theme.PRIMARY_HEIGHT)
            bar.addWidget(button)
            bar.setSpacing(theme.GAP_3)

    def _wire(self) -> None:
        self.train.setProperty("primary", "true")
        self.train.setIcon(icon("play", "on_accent"))
        self.train.setMinimumWidth(100)
        self.stop.setProperty("danger", "true")
        self.stop.setIcon(icon("stop", "error"))
        self.resume.setIcon(icon("resume"))
        self.save.setIcon(icon("save"))
        self.train.setToolTip(self.tr("Train (F5)"))
        self.stop.setToolTip(self.tr("Stop (Shift+F5)"))
        self.save.setToolTip(self.tr("Write a checkpoint at the end of this step and go on"))
        stop_menu = QMenu(self)
        stop_menu.addAction(self.tr("Save and stop"), self.stop_asked.emit)
        stop_menu.addAction(self.tr("Stop now"), self.stop_now_asked.emit)
        self._force = stop_menu.addAction(self.tr("Force quit"), self.force_quit_asked.emit)
        self.stop.setMenu(stop_menu)
        resume_menu = QMenu(self)
        last = self.tr("Last state of this output")
        self._resume_last = resume_menu.addAction(last, self.resume_last_asked.emit)
        resume_menu.addAction(self.tr("From a state file…"), self.resume_file_asked.emit)
        self.resume.setMenu(resume_menu)
        self.train.clicked.connect(self.train_asked)
        self.chip.clicked.connect(self.problems_asked)
        self.save.clicked.connect(self._host.save_now)
        self._host.status_changed.connect(self._show_status)
        self._host.figures_changed.connect(self._show_figures)
        self._checker.changed.connect(self._show_chip)

    def _show_chip(self) -> None:
        status = self._host.status
        estimate = self._checker.estimate
        self.chip.show_chip(run_words.chip(status, estimate, self._checker.is_checking))

    def _show_status(self, status: RunStatus) -> None:
        self._show_chip()
        is_shown = status.is_active or status.total_steps > 0
        self._middle.setVisible(is_shown)
        self._space.setVisible(not is_shown)
        self.progress_text.setText(run_words.progress_words(status))
        tone = {RunState.FAILED: "error", RunState.FINISHED: "ok"}.get(status.state, "accent")
        self.progress.show_share(status.share_done, tone)
        self.train.setVisible(not status.is_active)
        self.resume.setVisible(not status.is_active)
        self.train.setEnabled(status.can_start)
        self.resume.setEnabled(not status.is_active and not status.is_engine_alive)
        self._resume_last.setEnabled(status.can_start)
        self.stop.setVisible(status.is_active)
        self.stop.setEnabled(status.can_stop or self._host.can_force_quit)
        self._force.setEnabled(self._host.can_force_quit)
        self.save.setVisible(status.is_active)
        self.save.setEnabled(status.can_save_now)

    def _show_figures(self, figures: RunFigures) -> None:
        self.pace_text.setText(run_words.pace_words(figures, self._host.status))
        self.loss_text.setText(run_words.loss_words(figures))
        self.memory_text.setText(run_words.memory_words(figures))
        share = run_words.memory_share(figures)
        self.memory.show_share(share, "warn" if share > 0.95 else "accent")
        is_known = bool(self.loss_text.text() or self.memory_text.text())
        self._right.setVisible(is_known and self.width() >= 900)
