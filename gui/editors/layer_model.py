"""The tree of layers for Qt's views, with boxes that are ticked, half ticked or empty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import (
    QAbstractItemModel,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    Qt,
    Signal,
)

from gui.editors.layer_nodes import LayerNode
from gui.editors.layer_rules import count
from gui.editors.numbers import format_parameters
from gui.editors.unet_shapes import Shapes
from gui.words import tr

_Index = QModelIndex | QPersistentModelIndex
LAYER, TRAINED = range(2)
SHARE_ROLE = Qt.ItemDataRole.UserRole + 1
_BOXES = {
    "all": Qt.CheckState.Checked,
    "some": Qt.CheckState.PartiallyChecked,
    "none": Qt.CheckState.Unchecked,
}


class LayerModel(QAbstractItemModel):
    """Layers with how much of each is trained.

    Args:
        shapes: Shapes of all parameters.
        tops: What stands at the top.
        parent: The owner.

    Signals:
        ticked: A LayerNode and whether it is to be trained.
    """

    ticked = Signal(object, bool)

    def __init__(
        self, shapes: Shapes, tops: Sequence[LayerNode], parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._lay_out(shapes, tops)

    def _lay_out(self, shapes: Shapes, tops: Sequence[LayerNode]) -> None:
        self.shapes = shapes
        self._nodes: list[LayerNode] = []
        self._places: list[tuple[int, int]] = []
        self._children: dict[int, list[int]] = {-1: []}
        for row, top in enumerate(tops):
            self._add(top, -1, row)
        self._trained: frozenset[str] = frozenset(shapes)
        self._counts = [node.num_params for node in self._nodes]

    def show_layers(self, shapes: Shapes, tops: Sequence[LayerNode]) -> None:
        """Show the layers of another model, all of them trained."""
        self.beginResetModel()
        self._lay_out(shapes, tops)
        self.endResetModel()

    def _add(self, node: LayerNode, parent: int, row: int) -> None:
        number = len(self._nodes)
        self._nodes.append(node)
        self._places.append((parent, row))
        self._children.setdefault(parent, []).append(number)
        self._children[number] = []
        for place, child in enumerate(node.children):
            self._add(child, number, place)

    def show_trained(self, trained: frozenset[str]) -> None:
        """Show which parameters are trained."""
        if trained == self._trained:
            return
        self._trained = trained
        self._counts = [
            node.num_params if node.names <= trained else count(self.shapes, node.names & trained)
            for node in self._nodes
        ]
        for number, children in self._children.items():
            if children:
                parent = QModelIndex() if number < 0 else self.index_of(number)
                last = self.index(len(children) - 1, TRAINED, parent)
                self.dataChanged.emit(self.index(0, 0, parent), last)

    @property
    def nodes(self) -> tuple[LayerNode, ...]:
        """All nodes; `index_of` takes their numbers."""
        return tuple(self._nodes)

    def node(self, index: _Index) -> LayerNode:
        """Return the node at ``index``."""
        return self._nodes[index.internalId()]

    def index_of(self, number: int) -> QModelIndex:
        """Return the index of node ``number``."""
        return self.createIndex(self._places[number][1], 0, number)

    def find(self, pattern: str) -> QModelIndex:
        """Return the index of the node with ``pattern``.

        Raises:
            KeyError: if there is none.
        """
        for number, node in enumerate(self._nodes):
            if node.pattern == pattern:
                return self.index_of(number)
        raise KeyError(pattern)

    # Qt's side

    def index(
        self,
        row: int,
        column: int,
        parent: _Index = QModelIndex(),  # noqa: B008
    ) -> QModelIndex:
        """Return the index of a child."""
        above = parent.internalId() if parent.isValid() else -1
        children = self._children[above]
        if 0 <= row < len(children) and 0 <= column < 2:
            return self.createIndex(row, column, children[row])
        return QModelIndex()

    def parent(self, child: _Index = QModelIndex()) -> Any:  # noqa: B008
        """Return the index of the parent."""
        if not child.isValid():
            return QModelIndex()
        above = self._places[child.internalId()][0]
        return QModelIndex() if above < 0 else self.index_of(above)

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        """Return the number of children."""
        if parent.column() > 0:
            return 0
        return len(self._children[parent.internalId() if parent.isValid() else -1])

    def columnCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        """Return the number of columns."""
        return 2

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Return the title of a column."""
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return self.tr(("Layer", "Trained")[section])
        return None

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what a cell shows."""
        node, column = self.node(index), index.column()
        if role == Qt.ItemDataRole.CheckStateRole and column == LAYER:
            return _BOXES[node.state(self._trained)]
        if role == SHARE_ROLE:
            return self._counts[index.internalId()] / node.num_params
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return f"{node.label}, {self._trained_text(index.internalId())}"
        if role == Qt.ItemDataRole.ToolTipRole:
            return node.key or node.pattern
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        return tr(node.label) if column == LAYER else self._trained_text(index.internalId())

    def _trained_text(self, number: int) -> str:
        whole = format_parameters(self._nodes[number].num_params)
        part = format_parameters(self._counts[number])
        return whole if part == whole else tr("{0} of {1}").format(part, whole)

    def flags(self, index: _Index) -> Qt.ItemFlag:
        """Return what can be done with a cell."""
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        return flags | Qt.ItemFlag.ItemIsUserCheckable if index.column() == LAYER else flags

    def setData(self, index: _Index, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        """Tell that a box was ticked; it changes once the choice does."""
        if role != Qt.ItemDataRole.CheckStateRole or not index.isValid():
            return False
        self.ticked.emit(self.node(index), Qt.CheckState(value) == Qt.CheckState.Checked)
        return True
