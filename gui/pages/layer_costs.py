"""What the present choice of layers takes, and what the named sets of layers would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtWidgets import QGridLayout, QVBoxLayout, QWidget

from gui import theme
from gui.editors.numbers import format_parameters
from gui.forms.controls import Card, Tone, TonedLabel
from gui.forms.shapes import shape_of
from gui.shell.estimate import Estimate, memory_words
from gui.words import between, memory_text, tr

_LAYERS = "targets.layers"


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """A set of layers and what it would take.

    Attributes:
        name: What users read.
        trained: Parameters.
        vram: Most memory of the card, in words; empty where there is none.
        ram: Most main memory.
        step: How long a step takes.
        fits: Whether it can be trained on this computer.
    """

    name: str
    trained: str
    vram: str
    ram: str
    step: str
    fits: bool


def set_rows(estimate: Estimate) -> list[CostRow]:
    """Return what each named set of layers would take."""
    names = {value: tr(label) for value, label in shape_of(_LAYERS).info.value_labels}
    return [
        CostRow(
            name=names[cost.layers],
            trained=format_parameters(cost.trained),
            vram=memory_text(cost.vram) if cost.vram else "",
            ram=memory_text(cost.ram),
            step=seconds_text(cost.seconds),
            fits=cost.fits,
        )
        for cost in estimate.layer_sets
        if cost.layers in names
    ]


def choice_rows(estimate: Estimate) -> list[tuple[str, str]]:
    """Return what the present choice takes, each figure with its name."""
    found = [
        (tr("Graphics memory"), memory_words(estimate, "vram")),
        (tr("Main memory"), memory_words(estimate, "ram")),
        (tr("A step"), between(seconds_text, estimate.span("step_seconds"))),
    ]
    return [(name, words) for name, words in found if words]


def seconds_text(seconds: float) -> str:
    """Return a short duration: ``0.42 s``, ``3.7 s``, ``41 s``."""
    digits = 2 if seconds < 1 else 1 if seconds < 10 else 0
    return f"{seconds:.{digits}f} s"


def waiting_words(estimate: Estimate | None, *, is_checking: bool, is_ready: bool) -> str:
    """Return why there are no figures for the present choice; empty when there are.

    Args:
        estimate: The answer for the settings as they are; None while there is none.
        is_checking: Whether an answer is to come.
        is_ready: Whether the settings have no problems of their own.
    """
    if estimate is not None:
        if estimate.failure:
            return tr("The run could not be forecast.")
        return "" if estimate.summary else tr("This run cannot start as it is.")
    if is_checking:
        return tr("Being forecast for this choice…")
    if not is_ready:
        return tr("Forecast once the run has no problems: it depends on model and pictures.")
    return tr("Forecast again once the run is over.")


class ChoiceCosts(QWidget):
    """What the present choice takes; figures of an earlier one are faint until new ones come."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(theme.GAP_2)
        self._table, self._grid = _table()
        self.note = TonedLabel()
        self.source = TonedLabel()
        for label in (self.note, self.source):
            label.setWordWrap(True)
        for widget in (self._table, self.note, self.source):
            column.addWidget(widget)
        self.rows: Sequence[tuple[str, str]] = ()
        self.is_old = False

    def show_figures(self, rows: Sequence[tuple[str, str]], source: str) -> None:
        """Show what holds for the present choice, and what it rests on."""
        self.rows, self.is_old = rows, False
        self.source.setText(source)
        self._fill()

    def show_note(self, text: str, tone: Tone) -> None:
        """Say what keeps figures from being there or from being new."""
        self.note.setText(text)
        self.note.set_tone(tone)
        self.note.setVisible(bool(text))

    def show_as_old(self) -> None:
        """Let the figures be seen to be those of an earlier choice."""
        self.is_old = True
        self._fill()

    def _fill(self) -> None:
        _clear(self._grid)
        for number, (name, words) in enumerate(self.rows):
            value = TonedLabel(words, "muted" if self.is_old else "text")
            value.setFont(theme.number_font())
            self._grid.addWidget(TonedLabel(name), number, 0)
            self._grid.addWidget(value, number, 1)
        self._grid.setColumnStretch(1, 1)
        self._table.setVisible(bool(self.rows))
        self.source.setVisible(bool(self.rows and self.source.text()))


class SetCosts(Card):
    """What the named sets of layers would take; hidden until that is known."""

    def __init__(self, parent: QWidget | None = None) -> None:
        remark = tr("With all other settings as they are.")
        super().__init__(tr("What the sets of layers would take"), remark, parent)
        table, self._grid = _table()
        self.body.addWidget(table)
        self.rows: Sequence[CostRow] = ()
        self.setVisible(False)

    def show_rows(self, rows: Sequence[CostRow], *, are_old: bool) -> None:
        """Show ``rows``, faint if they are those of earlier settings."""
        self.rows = rows
        _clear(self._grid)
        vram = [tr("Graphics memory")] if any(row.vram for row in rows) else []
        heads = [tr("Layers"), tr("Trained"), *vram, tr("Main memory"), tr("A step")]
        for column, head in enumerate(heads):
            self._grid.addWidget(TonedLabel(head), 0, column)
        for number, row in enumerate(rows, 1):
            tone: Tone = "muted" if are_old else "text" if row.fits else "warn"
            name = row.name if row.fits else tr("{0} (does not fit)").format(row.name)
            cells = [name, row.trained, *([row.vram] if vram else []), row.ram, row.step]
            for column, text in enumerate(cells):
                label = TonedLabel(text, tone)
                if column:
                    label.setFont(theme.number_font())
                self._grid.addWidget(label, number, column)
        self._grid.setColumnStretch(len(heads), 1)
        self.setVisible(bool(rows))


def _table() -> tuple[QWidget, QGridLayout]:
    table = QWidget()
    grid = QGridLayout(table)
    grid.setContentsMargins(0, 0, 0, 0)
    grid.setHorizontalSpacing(theme.GAP_5)
    grid.setVerticalSpacing(theme.GAP_1)
    return table, grid


def _clear(grid: QGridLayout) -> None:
    while (item := grid.takeAt(0)) is not None:
        widget = item.widget()
        if widget is not None:
            widget.hide()
            widget.deleteLater()
