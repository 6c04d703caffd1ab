"""The tree of layers with its boxes and a bar for how much of each is trained."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import (
    QModelIndex,
    QPersistentModelIndex,
    QPointF,
    QRectF,
    QSize,
    Qt,
    Signal,
)
from PySide6.QtGui import QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTreeView,
    QWidget,
)

from gui.editors.inks import faded, inks
from gui.editors.layer_model import LAYER, SHARE_ROLE, TRAINED, LayerModel
from gui.editors.layer_nodes import LayerNode
from gui.editors.unet_shapes import Shapes
from gui.theme import colour

_Index = QModelIndex | QPersistentModelIndex
_ROW = 28
_BAR = 72


class _ShareDelegate(QStyledItemDelegate):
    """Paints a bar before the figures."""

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: _Index) -> None:
        share = index.data(SHARE_ROLE)
        super().paint(painter, option, index)
        if share is None:
            return
        colours = inks()
        is_chosen = bool(option.state & QStyle.StateFlag.State_Selected)
        ink = colours.base if is_chosen else colours.accent
        rect = option.rect
        bar = QRectF(rect.right() - _BAR - 8, rect.center().y() - 2, _BAR, 5)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(faded(ink, 0.22))
        painter.drawRoundedRect(bar, 2.5, 2.5)
        if share > 0.0:
            bar.setWidth(max(_BAR * share, 3.0))
            painter.setBrush(ink)
            painter.drawRoundedRect(bar, 2.5, 2.5)
        painter.restore()

    def sizeHint(self, option: QStyleOptionViewItem, index: _Index) -> QSize:
        return QSize(super().sizeHint(option, index).width() + _BAR + 16, _ROW)


class _BoxDelegate(QStyledItemDelegate):
    """Paints boxes in the theme's colours; the style's own are hard to see on a dark ground."""

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: _Index) -> None:
        super().paint(painter, option, index)
        whole = QStyleOptionViewItem(option)
        self.initStyleOption(whole, index)
        widget = whole.widget
        part = QStyle.SubElement.SE_ItemViewItemCheckIndicator
        rect = QRectF(widget.style().subElementRect(part, whole, widget))
        state = Qt.CheckState(index.data(Qt.ItemDataRole.CheckStateRole))
        paint_box(painter, rect, state)

    def sizeHint(self, option: QStyleOptionViewItem, index: _Index) -> QSize:
        return QSize(super().sizeHint(option, index).width(), _ROW)


def paint_box(painter: QPainter, rect: QRectF, state: Qt.CheckState) -> None:
    """Paint a ticked, half ticked or empty box into the middle of ``rect``."""
    box = QRectF(0, 0, 14, 14)
    box.moveCenter(rect.center())
    is_empty = state == Qt.CheckState.Unchecked
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    # Over whatever the style has painted there.
    painter.fillRect(rect.adjusted(-1, -1, 1, 1), colour("base"))
    painter.setPen(QPen(colour("control" if is_empty else "accent"), 1.2))
    painter.setBrush(colour("base" if is_empty else "accent"))
    painter.drawRoundedRect(box.adjusted(0.5, 0.5, -0.5, -0.5), 3, 3)
    mark = QPen(colour("on_accent"), 2)
    mark.setCapStyle(Qt.PenCapStyle.RoundCap)
    painter.setPen(mark)
    left, top = box.left(), box.top()
    if state == Qt.CheckState.Checked:
        corners = ((3.6, 7.2), (6.0, 9.8), (10.4, 4.4))
        painter.drawPolyline([QPointF(left + x, top + y) for x, y in corners])
    elif state == Qt.CheckState.PartiallyChecked:
        painter.drawLine(QPointF(left + 4, top + 7), QPointF(left + 10, top + 7))
    painter.restore()


class LayerTree(QTreeView):
    """Ticks layers to be trained.

    Args:
        shapes: Shapes of all parameters.
        tops: What stands at the top.
        name: What it is called by those who read it out.
        parent: The owner.

    Signals:
        ticked: A LayerNode and whether it is to be trained.
    """

    ticked = Signal(object, bool)

    def __init__(
        self,
        shapes: Shapes,
        tops: Sequence[LayerNode],
        name: str,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.layers = LayerModel(shapes, tops, self)
        self.setModel(self.layers)
        self.setItemDelegateForColumn(TRAINED, _ShareDelegate(self))
        self.setItemDelegateForColumn(LAYER, _BoxDelegate(self))
        self.setUniformRowHeights(True)
        self.setAlternatingRowColors(True)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setAccessibleName(name)
        header = self.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(LAYER, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(TRAINED, QHeaderView.ResizeMode.Interactive)
        header.setSectionsMovable(False)
        header.setMinimumSectionSize(80)
        self.setColumnWidth(TRAINED, 200)
        self._unfold()
        self.layers.ticked.connect(self.ticked)
        self.setIndentation(16)
        # Titles begin where the rows under them do.
        self.setStyleSheet("QHeaderView::section { padding: 5px 4px; }")
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def fit_rows(self) -> None:
        """Be just as high as all rows at the top need."""
        rows = self.layers.rowCount()
        self.setFixedHeight(self.header().sizeHint().height() + rows * _ROW + 2)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def show_layers(self, shapes: Shapes, tops: Sequence[LayerNode]) -> None:
        """Show the layers of another model, unfolded and selected as far as it has the same."""
        layers, current = self.layers, self.currentIndex()
        chosen = layers.node(current).pattern if current.isValid() else ""
        indexes = ((node, layers.index_of(number)) for number, node in enumerate(layers.nodes))
        unfolded = {node.pattern for node, index in indexes if self.isExpanded(index)}
        layers.show_layers(shapes, tops)
        self._unfold()
        for number, node in enumerate(layers.nodes):
            if node.pattern in unfolded:
                self.expand(layers.index_of(number))
            if node.pattern == chosen:
                self.setCurrentIndex(layers.index_of(number))

    def _unfold(self) -> None:
        self.setRootIsDecorated(any(node.children for node in self.layers.nodes))
        self.expandToDepth(0)

    def show_trained(self, trained: frozenset[str]) -> None:
        """Show which parameters are trained."""
        self.layers.show_trained(trained)


class ShareBar(QWidget):
    """A thin bar for a share of a whole."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._share = 0.0
        self.setFixedHeight(8)

    def set_share(self, share: float) -> None:
        """Show ``share`` of the bar filled."""
        self._share = share
        self.setAccessibleDescription(f"{share:.1%}")
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint the bar."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        ink = inks().accent
        whole = QRectF(self.rect())
        painter.setBrush(faded(ink, 0.22))
        painter.drawRoundedRect(whole, 4, 4)
        if self._share > 0.0:
            whole.setWidth(max(whole.width() * self._share, 8.0))
            painter.setBrush(ink)
            painter.drawRoundedRect(whole, 4, 4)
        painter.end()
