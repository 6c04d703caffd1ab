"""The navigation rail: one entry a page, with the number of problems on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QFont, QFontMetrics, QKeyEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import (
    QAbstractButton,
    QButtonGroup,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from gui import theme
from gui.forms.controls import TonedLabel
from gui.icons import paint_icon
from gui.shell.page_list import PageSpec

NARROW = 56
_ENTRY_HEIGHT = 34
# What an entry keeps free before its name for the icon, and behind it for the number of problems.
_BEFORE_NAME, _BEHIND_NAME = 42, 30


class RailEntry(QAbstractButton):
    """One entry of the rail.

    Attributes:
        is_narrow: Whether it shows its icon only.
    """

    def __init__(self, spec: PageSpec, shortcut: str) -> None:
        super().__init__()
        self.spec = spec
        self.setCheckable(True)
        self.setAutoExclusive(False)
        self.setText(spec.title)
        self.setAccessibleName(spec.title)
        self._shortcut = shortcut
        self._problems = 0
        self.is_narrow = False
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self._describe()

    def show_problems(self, count: int) -> None:
        """Show how many problems there are on the page."""
        if count != self._problems:
            self._problems = count
            self._describe()
            self.update()

    def show_narrow(self, is_narrow: bool) -> None:
        """Show the icon only."""
        self.is_narrow = is_narrow
        self.update()

    def _describe(self) -> None:
        text = self.spec.title + (f"  ({self._shortcut})" if self._shortcut else "")
        if self._problems:
            text += "\n" + self.tr("%n problem(s)", "", self._problems).replace("(s)", "s")
            self.setAccessibleDescription(self.tr("has problems"))
        else:
            self.setAccessibleDescription("")
        self.setToolTip(text)

    def sizeHint(self) -> QSize:
        """Return the size it would like: all of its name, whatever is shown beside it."""
        name = QFontMetrics(self._font_when_chosen()).horizontalAdvance(self.text())
        wide = _BEFORE_NAME + name + _BEHIND_NAME
        return QSize(NARROW if self.is_narrow else wide, _ENTRY_HEIGHT)

    def minimumSizeHint(self) -> QSize:
        """Return the size below which it is no use."""
        return QSize(NARROW - 16, _ENTRY_HEIGHT)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint it."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        tokens = theme.tokens()
        rect = QRectF(self.rect()).adjusted(1, 1, -1, -1)
        painter.setPen(Qt.PenStyle.NoPen)
        if self.isChecked():
            painter.setBrush(theme.colour("accent", 0.16))
            painter.drawRoundedRect(rect, theme.RADIUS, theme.RADIUS)
            painter.setBrush(theme.colour("accent"))
            painter.drawRoundedRect(
                QRectF(rect.left(), rect.top() + 8, 3, rect.height() - 16), 1, 1
            )
        elif self.underMouse():
            painter.setBrush(theme.colour("raised"))
            painter.drawRoundedRect(rect, theme.RADIUS, theme.RADIUS)
        if self.hasFocus():
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(theme.colour("accent"), 2))
            painter.drawRoundedRect(rect, theme.RADIUS, theme.RADIUS)
        left = (self.width() - 18) / 2 if self.is_narrow else 13.0
        ink = tokens.accent if self.isChecked() else tokens.muted
        paint_icon(painter, self.spec.key, QRectF(left, (self.height() - 18) / 2, 18, 18), ink)
        if not self.is_narrow:
            self._paint_text(painter)
        if self._problems:
            self._paint_badge(painter)

    def _paint_text(self, painter: QPainter) -> None:
        painter.setPen(theme.colour("text"))
        painter.setFont(self._font_when_chosen() if self.isChecked() else self.font())
        room = self.rect().adjusted(_BEFORE_NAME, 0, 0, 0)
        align = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft
        painter.drawText(room, align, self.text())

    def _font_when_chosen(self) -> QFont:
        font = self.font()
        font.setWeight(font.Weight.DemiBold)
        return font

    def _paint_badge(self, painter: QPainter) -> None:
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(theme.colour("error"))
        if self.is_narrow:
            painter.drawEllipse(QPointF(self.width() / 2 + 10, 9), 4, 4)
            return
        rect = QRectF(self.width() - 28, (self.height() - 18) / 2, 20, 18)
        painter.drawRoundedRect(rect, 9, 9)
        painter.setPen(theme.colour("window"))
        painter.setFont(theme.small_font())
        painter.drawText(rect, Qt.AlignmentFlag.AlignCenter, str(self._problems))


class Rail(QWidget):
    """All entries in their groups.

    Signals:
        chosen: The key of the page the user wants.
    """

    chosen = Signal(str)

    def __init__(self, specs: Sequence[PageSpec], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._entries: dict[str, RailEntry] = {}
        self._heads: list[TonedLabel] = []
        self._group = QButtonGroup(self)
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(theme.GAP_2, theme.GAP_2, theme.GAP_2, theme.GAP_2)
        column.setSpacing(2)
        for group, title in (("setup", self.tr("SETUP")), ("monitor", self.tr("MONITOR"))):
            self._head(column, title)
            self._add(column, specs, group)
        column.addStretch(1)
        self._add(column, specs, "foot")
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(inner)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addWidget(area)
        self.show_narrow(False)
        self._group.buttonClicked.connect(self._clicked)

    def _head(self, column: QVBoxLayout, title: str) -> None:
        head = TonedLabel(title)
        font = theme.small_font()
        font.setLetterSpacing(font.SpacingType.PercentageSpacing, 108)
        head.setFont(font)
        head.setContentsMargins(14, theme.GAP_3 if self._heads else theme.GAP_1, 0, 2)
        self._heads.append(head)
        column.addWidget(head)

    def _add(self, column: QVBoxLayout, specs: Sequence[PageSpec], group: str) -> None:
        for number, spec in enumerate(specs, 1):
            if spec.group == group:
                entry = RailEntry(spec, f"Ctrl+{number}" if number < 10 else "")
                self._entries[spec.key] = entry
                self._group.addButton(entry)
                column.addWidget(entry)

    def _clicked(self, entry: RailEntry) -> None:
        self.chosen.emit(entry.spec.key)

    def show_page(self, key: str) -> None:
        """Show the page called ``key`` as the current one."""
        self._entries[key].setChecked(True)

    def show_problems(self, counts: Mapping[str, int]) -> None:
        """Show how many problems each page has."""
        for key, entry in self._entries.items():
            entry.show_problems(counts.get(key, 0))

    def show_narrow(self, is_narrow: bool) -> None:
        """Show icons only, or icons and names."""
        for head in self._heads:
            head.setVisible(not is_narrow)
        for entry in self._entries.values():
            entry.show_narrow(is_narrow)
        widest = max(entry.sizeHint().width() for entry in self._entries.values())
        self.setFixedWidth(NARROW if is_narrow else widest + 2 * theme.GAP_2)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Handle a key."""
        entries = list(self._entries.values())
        move = {Qt.Key.Key_Up.value: -1, Qt.Key.Key_Down.value: 1}.get(event.key())
        focused = next((number for number, e in enumerate(entries) if e.hasFocus()), None)
        if move is None or focused is None:
            super().keyPressEvent(event)
            return
        entries[(focused + move) % len(entries)].setFocus(Qt.FocusReason.TabFocusReason)
