"""What a choice of layers would take, beside the named sets of layers."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QWidget

from gui import theme
from gui.editors.numbers import format_parameters
from gui.forms.controls import Card, Tone, TonedLabel, rule
from gui.forms.shapes import shape_of
from gui.shell.estimate import Estimate, memory_words
from gui.words import between, memory_text, tr

_LAYERS = "targets.layers"


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """One choice of layers and what it takes.

    Attributes:
        name: What users read.
        trained: Parameters.
        vram: Most memory of the card, in words; empty where there is none.
        ram: Most main memory.
        step: How long a step takes.
        fits: Whether it can be trained on this computer.
        is_chosen: Whether it is the present choice.
    """

    name: str
    trained: str
    vram: str
    ram: str
    step: str
    fits: bool = True
    is_chosen: bool = False


def cost_rows(estimate: Estimate, trained: int) -> list[CostRow]:
    """Return what the present choice takes, where it is known, and what each set would.

    Args:
        estimate: The answer of a check.
        trained: Parameters of the present choice.
    """
    rows = [_chosen(estimate, trained)] if estimate.summary else []
    names = {value: tr(label) for value, label in shape_of(_LAYERS).info.value_labels}
    rows += [
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
    return rows


def _chosen(estimate: Estimate, trained: int) -> CostRow:
    return CostRow(
        name=tr("This choice"),
        trained=format_parameters(trained),
        vram=memory_words(estimate, "vram"),
        ram=memory_words(estimate, "ram"),
        step=between(seconds_text, estimate.span("step_seconds")),
        is_chosen=True,
    )


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


class LayerCosts(Card):
    """What the present choice takes and what others would; old figures are shown as such."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(tr("What it takes"), parent=parent)
        self.note = TonedLabel()
        self.note.setWordWrap(True)
        self.body.addWidget(self.note)
        self._table = QWidget()
        self._grid = QGridLayout(self._table)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(theme.GAP_4)
        self._grid.setVerticalSpacing(theme.GAP_1)
        self._grid.setColumnStretch(0, 1)
        self.body.addWidget(self._table)
        self.source = TonedLabel()
        self.source.setWordWrap(True)
        self.body.addWidget(self.source)
        self.rows: list[CostRow] = []
        self.is_old = False
        self.show_costs([], "", "", is_old=False)

    def show_costs(self, rows: list[CostRow], note: str, source: str, *, is_old: bool) -> None:
        """Show ``rows``.

        Args:
            rows: The first is the present choice, if that is known.
            note: What keeps figures from being there or from being new.
            source: What the figures rest on.
            is_old: Whether the figures are those of an earlier choice.
        """
        for label, text in ((self.note, note), (self.source, source)):
            label.setText(text)
            label.setVisible(bool(text))
        if (rows, is_old) != (self.rows, self.is_old):
            self.rows, self.is_old = rows, is_old
            self._fill()
        self._table.setVisible(bool(rows))

    def _fill(self) -> None:
        while (item := self._grid.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        has_card = any(row.vram for row in self.rows)
        heads = [tr("Trained"), *([tr("VRAM")] if has_card else []), tr("RAM"), tr("A step")]
        for column, head in enumerate(heads, 1):
            self._put(TonedLabel(head), 0, column)
        self._grid.addWidget(rule(), 1, 0, 1, len(heads) + 1)
        for number, row in enumerate(self.rows, 2):
            tone: Tone = "muted" if self.is_old else "text" if row.fits else "warn"
            name = row.name if row.fits else tr("{0} (does not fit)").format(row.name)
            cells = [name, row.trained, *([row.vram] if has_card else []), row.ram, row.step]
            for column, text in enumerate(cells):
                label = TonedLabel(text, tone)
                font = theme.number_font() if column else label.font()
                font.setBold(row.is_chosen)
                label.setFont(font)
                self._put(label, number, column)

    def _put(self, label: TonedLabel, row: int, column: int) -> None:
        if column:
            right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
            self._grid.addWidget(label, row, column, right)
        else:
            label.setWordWrap(True)
            self._grid.addWidget(label, row, column)
