"""The dialog before a run goes on from a state: its facts, what differs, how far it shall go."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path
from typing import Any

from PySide6.QtCore import QEvent, Qt, Slot
from PySide6.QtGui import QCloseEvent, QColor
from PySide6.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QButtonGroup,
    QDialog,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QScrollArea,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from aozora.config.schema import SCHEMA_VERSION
from aozora.config.ticket_segments import OnResume, SegmentedPool
from gui import theme
from gui.charts.numbers import DASH, short_number
from gui.document import Document
from gui.engine.host import EngineHost
from gui.engine.resume_curve import ResumeCurve
from gui.engine.resume_parts import TEXT_LEFT, CountField, Option, TicketChoice
from gui.engine.resume_plan import (
    ResumePlan,
    moved_places,
    plan_resume,
    resumed_settings,
    without_schema,
)
from gui.engine.state_question import StateFacts, StateQuestion
from gui.forms.controls import Card, TonedLabel
from gui.forms.message_box import warn
from gui.forms.settling import settle
from gui.settings_tree import effective, value_at, with_value
from gui.shell.compare import differences
from gui.shell.form_page import PageHead
from gui.words import counted, tr, whole

_NOTABLE_JUMP = 2.0
_ROW_HEIGHT = 28
_RULE = "timesteps.on_resume"


class ResumeWizard(QDialog):
    """Asks how to go on from ``state``; accepted, `settings` is what to start with.

    It starts nothing by itself; `resume_with_wizard` does all of it.
    """

    def __init__(self, document: Document, state: Path, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._state = state
        self._facts: StateFacts | None = None
        self._plan: ResumePlan | None = None
        self._stored_steps = 0
        self.setWindowTitle(self.tr("Resume"))
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
        room = self.screen().availableSize()
        self.resize(min(780, room.width()), min(820, room.height()))
        self.head = PageHead(self.tr("Resume a run"), state.name)
        self.head.purpose.setToolTip(str(state))
        self.message = TonedLabel(self.tr("Reading the state …"))
        self.message.setWordWrap(True)
        self._facts_card = Card(self.tr("The state"))
        self._grid = QGridLayout()
        self._grid.setHorizontalSpacing(theme.GAP_4)
        self._grid.setVerticalSpacing(theme.GAP_1)
        self._grid.setColumnStretch(1, 1)
        self._grid.setColumnStretch(3, 1)
        self.stored = Option(self.tr("Settings stored in the state"))
        self.current = Option(self.tr("Settings of the document"))
        self.steps = CountField()
        self.tickets = TicketChoice()
        self._rule: OnResume | None = None  # as the settings say, until chosen here
        self.curve = ResumeCurve()
        self.note = TonedLabel()
        self.note.setWordWrap(True)
        self.table = self._make_table()
        self.resume = QPushButton(self.tr("Resume"))
        self.resume.setProperty("primary", "true")
        self.resume.setDefault(True)
        self.cancel = QPushButton(self.tr("Cancel"))
        self._lay_out()
        self._question = StateQuestion(self)
        self._question.answered.connect(self._answered)
        self._question.ask(state)

    @property
    def plan(self) -> ResumePlan | None:
        """What the choice made now would mean; None until the state is read."""
        return self._plan

    def settings(self) -> dict[str, Any]:
        """Return what to start the engine with."""
        return {"schema": SCHEMA_VERSION, **self._wanted()}

    def done(self, result: int) -> None:
        """Close, whatever the answer is."""
        self._question.drop()
        super().done(result)

    def closeEvent(self, event: QCloseEvent) -> None:
        """Close."""
        self._question.drop()
        super().closeEvent(event)

    def _make_table(self) -> QTableWidget:
        table = QTableWidget(0, 4)
        titles = (
            self.tr("Setting"),
            self.tr("In the state"),
            self.tr("Document"),
            self.tr("On resuming"),
        )
        table.setHorizontalHeaderLabels(list(titles))
        table.setAccessibleName(self.tr("What differs"))
        table.verticalHeader().setVisible(False)
        table.verticalHeader().setDefaultSectionSize(_ROW_HEIGHT)
        table.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        table.setShowGrid(False)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        head = table.horizontalHeader()
        head.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        head.setSectionResizeMode(3, QHeaderView.ResizeMode.ResizeToContents)
        head.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        return table

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(theme.GAP_5, theme.GAP_4, theme.GAP_5, theme.GAP_4)
        column.setSpacing(theme.GAP_3)
        column.addWidget(self.head)
        column.addWidget(self.message)
        # On a low screen the rest scrolls; words are never cut off.
        body = QWidget()
        inner = QVBoxLayout(body)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.setSpacing(theme.GAP_3)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        area.setWidget(body)
        column.addWidget(area, 1)
        self._facts_card.body.addLayout(self._grid)
        inner.addWidget(self._facts_card)
        self._choice = Card(self.tr("Go on with"))
        group = QButtonGroup(self)
        for button in (self.stored, self.current):
            group.addButton(button)
        self.stored.setChecked(True)
        self._length = QWidget()
        row = QHBoxLayout(self._length)
        # Under the words of the choice it belongs to.
        row.setContentsMargins(TEXT_LEFT, 0, 0, 0)
        label = TonedLabel(self.tr("Steps in all"), tone="text")
        label.setBuddy(self.steps)
        self.steps.setAccessibleName(self.tr("Steps in all"))
        row.addWidget(label)
        row.addWidget(self.steps)
        row.addStretch(1)
        for part in (
            self.stored,
            self._length,
            self.current,
            self.curve,
            self.tickets,
            self.note,
        ):
            self._choice.body.addWidget(part)
        inner.addWidget(self._choice)
        self._table_card = Card(self.tr("What differs"))
        self._table_card.body.addWidget(self.table)
        inner.addWidget(self._table_card)
        inner.addStretch(1)
        buttons = QHBoxLayout()
        buttons.addStretch(1)
        buttons.addWidget(self.cancel)
        buttons.addWidget(self.resume)
        column.addLayout(buttons)
        self.cancel.clicked.connect(self.reject)
        self.resume.clicked.connect(self.accept)
        self.stored.toggled.connect(self._refresh)
        self.steps.changed.connect(self._refresh)
        self.tickets.changed.connect(self._choose_tickets)
        for widget in (self._facts_card, self._choice, self._table_card):
            widget.hide()
        self.resume.setEnabled(False)

    @Slot(object)
    def _answered(self, facts: StateFacts) -> None:
        if facts.problem:
            text = self.tr("This state cannot be gone on from: {0}")
            self.message.setText(text.format(facts.problem))
            self.message.set_tone("error")
            return
        self._facts = facts
        self.message.hide()
        self._show_facts(facts)
        values = effective(without_schema(facts.config))
        in_epochs = bool(value_at(values, "training.epochs"))
        steps = int(value_at(values, "training.steps"))
        self.steps.set_minimum(facts.step + 1)
        # A run that is through goes on for half its length, unless told otherwise.
        self.steps.set_value(steps if steps > facts.step else facts.step + max(1, steps // 2))
        # A length in epochs stays one; that in steps can be raised here.
        self._length.setVisible(not in_epochs)
        self._stored_steps = self.steps.value if in_epochs else steps
        for widget in (self._facts_card, self._choice, self._table_card):
            widget.show()
        self._refresh()
        # What was hidden has no place yet, and must not be seen without one.
        QApplication.sendPostedEvents(None, QEvent.Type.LayoutRequest)

    def _show_facts(self, facts: StateFacts) -> None:
        values = effective(without_schema(facts.config))
        epochs, steps = value_at(values, "training.epochs"), value_at(values, "training.steps")
        length = self.tr("{0} epochs").format(f"{epochs:g}") if epochs else whole(steps)
        pairs = [
            (self.tr("Run"), str(facts.facts.get("name", DASH))),
            (self.tr("Saved"), _saved_text(self._state)),
            (self.tr("Step"), self.tr("{0} of {1}").format(whole(facts.step), length)),
            (self.tr("Samples"), whole(int(facts.facts.get("samples", 0)))),
            (self.tr("Optimizer"), str(facts.facts.get("optimizer", DASH))),
            (self.tr("Precision"), str(facts.facts.get("precision", DASH))),
            (self.tr("Objective"), _objective_text(str(facts.facts.get("objective", DASH)))),
            (self.tr("Base model"), Path(str(facts.facts.get("base model", DASH))).name),
        ]
        for number, (name, value) in enumerate(pairs):
            row, side = divmod(number, 2)
            label = TonedLabel(value, tone="text")
            label.setToolTip(value)
            label.setWordWrap(True)
            self._grid.addWidget(TonedLabel(name), row, 2 * side)
            self._grid.addWidget(label, row, 2 * side + 1)

    def _wanted(self) -> dict[str, Any]:
        """Return the settings chosen now."""
        wanted = self._document.overlay()
        if self._facts is not None and self.stored.isChecked():
            is_changed = self.steps.value != self._stored_steps
            steps = self.steps.value if is_changed else None
            wanted = resumed_settings(self._facts.config, wanted, steps=steps)
        return with_value(wanted, _RULE, self._rule) if self._rule is not None else wanted

    @Slot()
    def _choose_tickets(self) -> None:
        self._rule = self.tickets.value
        self._refresh()

    @Slot()
    def _refresh(self) -> None:
        if self._facts is None:
            return
        stored, wanted = without_schema(self._facts.config), self._wanted()
        tickets = self._facts.tickets
        self._plan = plan_resume(
            stored,
            wanted,
            self._facts.step,
            samples=self._facts.samples,
            tickets=SegmentedPool.from_json(tickets) if tickets else None,
        )
        if self._plan.has_ticket_choice:
            self.tickets.offer(self._plan.tickets, value_at(effective(wanted), _RULE))
        self.tickets.setVisible(self._plan.has_ticket_choice and not self._plan.forbidden)
        against = plan_resume(stored, self._document.overlay(), self._facts.step)
        self.steps.setEnabled(self.stored.isChecked())
        self._fill_table(stored, against)
        self.curve.show_rates(self._plan.rates, self._facts.step)
        self._show_note(self._plan)
        can = not self._plan.ends_before and not self._plan.forbidden
        self.resume.setEnabled(can)
        if can and self.focusWidget() is self.cancel:
            self.resume.setFocus()  # a disabled button had to give the focus away

    def _fill_table(self, stored: dict[str, Any], against: ResumePlan) -> None:
        rows = differences(stored, self._document.overlay())
        # A choice is one row under its own path; what the plan names is its kind.
        forbidden = {path.removesuffix(".kind") for path in against.forbidden}
        paths = forbidden | {path.removesuffix(".kind") for path in against.allowed}
        rows = [row for row in rows if row.path in paths]
        rows.sort(key=lambda row: row.path not in forbidden)
        words = counted(len(rows), self.tr("setting"), self.tr("settings"))
        text = self.tr("Settings of the document ({0} other than in the state)").format(words)
        self.current.setText(text if rows else self.tr("Settings of the document (the same)"))
        self.table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            is_forbidden = row.path in forbidden
            may = self.tr("must match") if is_forbidden else self.tr("may change")
            for column, text in enumerate((row.label, row.old or DASH, row.new or DASH, may)):
                item = QTableWidgetItem(text)
                item.setToolTip(row.path if column == 0 else text)
                if column == 3:
                    item.setForeground(QColor(theme.colour("error" if is_forbidden else "warn")))
                self.table.setItem(number, column, item)
        # As high as its rows are: it is the dialog that scrolls.
        head = self.table.horizontalHeader().sizeHint().height()
        self.table.setFixedHeight(head + _ROW_HEIGHT * len(rows) + theme.GAP_1)
        self._table_card.setVisible(bool(rows))

    def _show_note(self, plan: ResumePlan) -> None:
        if plan.forbidden:
            words = counted(len(plan.forbidden), self.tr("setting"), self.tr("settings"))
            self._say(
                self.tr(
                    "{0} must match for the same run to go on: restore them, go on with the "
                    "stored settings, or start a new run from the saved model."
                ).format(words),
                "error",
            )
        elif plan.ends_before:
            text = self.tr("The run would end before this state: raise its steps to go on.")
            self._say(text, "error")
        else:
            parts = [self._rate_text(plan), self._tickets_text(plan), self._moved_text()]
            is_jump = math.isfinite(plan.jump) and not (
                1 / _NOTABLE_JUMP <= plan.jump <= _NOTABLE_JUMP
            )
            self._say(" ".join(part for part in parts if part), "warn" if is_jump else "muted")

    def _rate_text(self, plan: ResumePlan) -> str:
        if not math.isfinite(plan.jump):
            return self.tr("Model and pictures are compared by their content when it starts.")
        text = self.tr("The learning rate goes on at {0}, after {1} in the last step (x{2}).")
        before, after = short_number(plan.rate_before), short_number(plan.rate_after)
        return text.format(after, before, f"{plan.jump:.2f}")

    def _tickets_text(self, plan: ResumePlan) -> str:
        if plan.has_ticket_choice:
            return ""  # its options say it
        if plan.tickets:
            return self.tr("All timestep tickets were drawn; the samples left get new ones.")
        return self.tr("The timestep tickets that are left are drawn to the end.")

    def _moved_text(self) -> str:
        if self._facts is None or not self.stored.isChecked():
            return ""
        moved = moved_places(self._facts.config, self._document.overlay())
        if not moved:
            return ""
        text = self.tr("Not where they were, taken from the document: {0}.")
        return text.format(", ".join(sorted(moved)))

    def _say(self, text: str, tone: Any) -> None:
        self.note.setText(text)
        self.note.set_tone(tone)


def _objective_text(text: str) -> str:
    """Return an objective as it stands in a state, such as ``Epsilon()``, in words."""
    name, _, is_zero = text.partition(", zero terminal SNR ")
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.removesuffix("()"))
    return f"{words}, zero terminal SNR" if is_zero == "True" else words


def _saved_text(path: Path) -> str:
    try:
        moment = path.stat().st_mtime
    except OSError:
        return DASH
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def resume_with_wizard(
    document: Document, host: EngineHost, state: Path, parent: QWidget | None = None
) -> bool:
    """Ask how to go on from ``state`` and start it; return whether a run was begun.

    What is being typed in the window of ``parent`` belongs to the document first.
    """
    if parent is not None:
        settle(parent.window())
    wizard = ResumeWizard(document, state, parent)
    accepted = wizard.exec() == QDialog.DialogCode.Accepted
    is_begun = accepted and host.start(wizard.settings(), resume=str(state))
    if accepted and not is_begun:
        warn(parent or wizard, tr("The run cannot be resumed now"), host.hindrance)
    wizard.deleteLater()
    return is_begun
