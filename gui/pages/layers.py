"""The page of the layers that are trained."""

from __future__ import annotations

from PySide6.QtCore import Slot
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QVBoxLayout, QWidget

from aozora.config.targeting import LAYER_SETS
from gui.document import Document
from gui.editors.folding_row import FoldingRow
from gui.editors.layer_nodes import LayerNode, kind_nodes, layer_tree, with_node
from gui.editors.layer_rules import LayerChoice, count
from gui.editors.layer_tree import LayerTree, ShareBar
from gui.editors.numbers import format_parameters
from gui.forms.controls import Card, TonedLabel, rule
from gui.forms.setting_row import sentence
from gui.forms.settings_card import SettingsCard
from gui.pages.layer_costs import (
    ChoiceCosts,
    SetCosts,
    choice_rows,
    set_rows,
    waiting_words,
)
from gui.pages.model_shapes import ModelShapes
from gui.shell.estimate import Estimate, source_words
from gui.shell.form_page import FormPage
from gui.theme import GAP_3
from gui.words import tr

_LAYERS, _BLOCKS = "targets.layers", "targets.blocks"
_FOLD_PX = 760
_INCLUDE, _EXCLUDE = "targets.include", "targets.exclude"


class Page(FormPage):
    """Shows and edits which layers of the UNet are trained, as boxes and as patterns."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        purpose = tr("Which parts of the UNet learn. Boxes and patterns always say the same.")
        super().__init__(document, tr("Layers"), purpose, parent, is_wide=True)
        self.model = ModelShapes(document, self)
        self._estimate: Estimate | None = None
        self._is_checking = False
        shapes = self._shapes = self.model.shapes
        self.root = layer_tree(shapes)
        self.tree = LayerTree(shapes, (self.root,), tr("Layers to train"))
        self.tree.setMinimumHeight(410)
        self.kinds = LayerTree(shapes, kind_nodes(shapes), tr("Kinds of layers to train"))
        self.kinds.fit_rows()
        self.figure = TonedLabel("", "text")
        self.share = ShareBar()
        self.share.setAccessibleName(tr("Share of the UNet that is trained"))
        self.notice = TonedLabel()
        self.notice.setWordWrap(True)
        self.model_note = TonedLabel()
        self.model_note.setWordWrap(True)
        self.costs = ChoiceCosts()
        self.sets = SetCosts()
        self.patterns = SettingsCard(
            document, tr("As patterns"), (_LAYERS, _BLOCKS, _INCLUDE, _EXCLUDE)
        )
        self.patterns.reveal(_INCLUDE)
        self._names = tuple(shapes)
        for tree in (self.tree, self.kinds):
            tree.setProperty("setting_path", _LAYERS)
        self._lay_out()
        self.tree.ticked.connect(self._tick)
        self.kinds.ticked.connect(self._tick)
        document.changed.connect(self._document_changed)
        self.model.changed.connect(self._model_changed)
        self._refresh()

    def _lay_out(self) -> None:
        row = FoldingRow(_FOLD_PX)
        boxes = Card(tr("By block"))
        boxes.body.addWidget(self.tree, 1)
        right = QWidget()
        side = QVBoxLayout(right)
        side.setContentsMargins(0, 0, 0, 0)
        side.setSpacing(GAP_3)
        summary = Card(tr("Trained"))
        summary.body.addWidget(self.figure)
        summary.body.addWidget(self.share)
        summary.body.addWidget(self.notice)
        summary.body.addWidget(self.model_note)
        summary.body.addWidget(rule())
        summary.body.addWidget(self.costs)
        side.addWidget(summary)
        kinds = Card(tr("By kind"))
        kinds.body.addWidget(self.kinds)
        side.addWidget(kinds)
        side.addStretch(1)
        row.add(boxes, 6)
        row.add(right, 5)
        self.add(row)
        self.add(self.sets)
        self.add(self.patterns)
        self.finish()

    @property
    def is_busy(self) -> bool:
        """Whether the model is still being read."""
        return self.model.is_busy

    def close_down(self) -> None:
        """End what runs in the background."""
        self.model.close_down()

    def showEvent(self, event: QShowEvent) -> None:
        """See whether there is another model by now."""
        super().showEvent(event)
        self.model.look()

    def show_check(self, estimate: Estimate | None, *, is_checking: bool) -> None:
        """Show what memory and time the run would take.

        Args:
            estimate: The answer for the settings as they are; None while there is none.
            is_checking: Whether an answer is to come.
        """
        self._estimate, self._is_checking = estimate, is_checking
        self._show_costs()

    def choice(self) -> LayerChoice:
        """Return the choice of layers in the document."""
        value = self.document.value
        layers = value(_LAYERS)
        lists = [_texts(value(path)) for path in (_BLOCKS, _INCLUDE, _EXCLUDE)]
        is_known = isinstance(layers, str) and layers in LAYER_SETS
        return LayerChoice(layers if is_known else "all", *lists)

    def _tick(self, node: LayerNode, on: bool) -> None:
        choice = self.choice()
        try:
            changed = with_node(choice, node, self.root, self._names, on=on)
        except ValueError as error:
            text = str(error)
            self._say(f"{text[:1].upper()}{text[1:]}.", is_fault=True)
            return
        changes = {
            _LAYERS: changed.layers,
            _BLOCKS: list(changed.blocks),
            _INCLUDE: list(changed.include),
            _EXCLUDE: list(changed.exclude),
        }
        verb = tr("train {}") if on else tr("do not train {}")
        self.document.set_values(changes, verb.format(node.key or node.label.lower()))

    def _document_changed(self, paths: frozenset[str]) -> None:
        if "model.base" in paths and self.isVisible():
            self.model.look()
        if any(path.startswith("targets") for path in paths):
            self._refresh()

    @Slot()
    def _model_changed(self) -> None:
        shapes = self.model.shapes
        if shapes != self._shapes:
            self._shapes, self._names = shapes, tuple(shapes)
            self.root = layer_tree(shapes)
            self.tree.show_layers(shapes, (self.root,))
            self.kinds.show_layers(shapes, kind_nodes(shapes))
        self._refresh()

    def _refresh(self) -> None:
        choice, shapes = self.choice(), self._shapes
        trained = choice.trained(self._names)
        for tree in (self.tree, self.kinds):
            tree.show_trained(trained)
        part, whole = count(shapes, trained), self.root.num_params
        self.figure.setText(
            tr("{0} of {1} parameters ({2:.1%})").format(
                format_parameters(part), format_parameters(whole), part / whole
            )
        )
        self.share.set_share(part / whole)
        faults = choice.faults(self._names)
        if faults:
            self._say(f"{faults[0][:1].upper()}{faults[0][1:]}.", is_fault=True)
        else:
            text = tr("{0:,} of {1:,} tensors.").format(len(trained), len(shapes))
            self._say(text, is_fault=False)
        self.model_note.setText(self.model.note)
        self._show_costs()

    def _show_costs(self) -> None:
        """Show what is known of the present choice, or what was known of an earlier one."""
        estimate = self._estimate
        is_ready = not self.document.problems()
        note = waiting_words(estimate, is_checking=self._is_checking, is_ready=is_ready)
        if estimate is None:
            self.costs.show_note(note, "muted")
            self.costs.show_as_old()
            self.sets.show_rows(self.sets.rows, are_old=True)
            return
        reasons = [sentence(problem) for problem in estimate.problems]
        words = "\n".join(filter(None, [note, *reasons]))
        self.costs.show_note(words, "text" if estimate.is_ready else "error")
        self.costs.show_figures(choice_rows(estimate), source_words(estimate))
        self.sets.show_rows(set_rows(estimate), are_old=False)

    def _say(self, text: str, *, is_fault: bool) -> None:
        self.notice.set_tone("error" if is_fault else "muted")
        self.notice.setText(text)


def _texts(value: object) -> tuple[str, ...]:
    """Return a list of texts; entries that are none are listed among the problems."""
    entries = value if isinstance(value, list | tuple) else ()
    return tuple(entry for entry in entries if isinstance(entry, str))
