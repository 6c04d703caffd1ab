"""How long the captions are, in tokens: a histogram with the marks where a further chunk begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QEvent, QPointF, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QHelpEvent, QMouseEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from gui import theme
from gui.words import counted, tr, whole

_HEIGHT = 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 24, 40
# Longer captions than six chunks are so rare that they share the last bar.
_MOST_CHUNKS = 6
_MOST_BARS = 60


@dataclass(frozen=True)
class Bar:
    """Captions of like length.

    Attributes:
        first: Fewest tokens of them.
        last: Most tokens of them; None for the last bar if it holds all that are longer.
        count: How many there are.
    """

    first: int
    last: int | None
    count: int


@dataclass(frozen=True)
class Histogram:
    """Captions by length.

    Attributes:
        bars: From no tokens to the limit, or beyond to what is longest.
        width: Tokens of one bar.
        marks: Lengths after which a further chunk begins; at the last of them captions are cut.
    """

    bars: tuple[Bar, ...] = ()
    width: int = 1
    marks: tuple[int, ...] = ()

    @property
    def end(self) -> int:
        """Where the axis ends, in tokens."""
        return self.width * len(self.bars)


def histogram(lengths: Sequence[int], limit: int, chunk: int) -> Histogram:
    """Return captions by length.

    A bar is a part of a chunk and holds what is longer than the one before it ends: 75 tokens stand
    before the mark at 75, and 76 behind it. Captions without a token belong to the first.

    Args:
        lengths: The length of each caption in tokens.
        limit: Tokens that are read; a multiple of ``chunk``.
        chunk: Tokens in a chunk.
    """
    longest = max(lengths, default=0)
    reach = max(limit, min(longest, _MOST_CHUNKS * chunk))
    step = tick_step(reach, chunk)
    reach = -(-reach // step) * step
    parts = [chunk // n for n in (15, 5, 3) if chunk % n == 0]
    width = next((part for part in parts if reach <= part * _MOST_BARS), chunk)
    number = reach // width
    counts = [0] * number
    for length in lengths:
        counts[min(max(0, length - 1) // width, number - 1)] += 1
    bars = [
        Bar(n * width + 1 if n else 0, (n + 1) * width, count) for n, count in enumerate(counts)
    ]
    if longest > number * width:
        bars[-1] = Bar(bars[-1].first, None, bars[-1].count)
    return Histogram(tuple(bars), width, tuple(range(chunk, limit + 1, chunk)))


def tick_step(end: int, chunk: int) -> int:
    """Return the tokens between two numbers on an axis up to ``end``: a part of a chunk or all."""
    part = chunk // 3 if chunk % 3 == 0 else chunk
    return part if end <= 12 * part else chunk


def bar_words(bar: Bar) -> str:
    """Return what a bar says."""
    captions = counted(bar.count, tr("caption"), tr("captions"))
    if bar.last is None:
        return tr("{0} tokens and more: {1}").format(whole(bar.first), captions)
    return tr("{0} to {1} tokens: {2}").format(whole(bar.first), whole(bar.last), captions)


def chunk_name(number: int) -> str:
    """Return the name of a chunk, counted from 1."""
    names = {2: tr("2nd chunk"), 3: tr("3rd chunk")}
    return names.get(number, tr("{0}th chunk").format(number))


class TokenChart(QWidget):
    """The histogram; what is cut has another colour, and a bar under the pointer says its count."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._shown = Histogram()
        self._under = -1
        self.setMouseTracking(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(tr("Lengths of captions in tokens"))

    def show_lengths(self, lengths: Sequence[int], limit: int, chunk: int) -> None:
        """Show captions of these lengths; see `histogram`."""
        self._shown = histogram(lengths, limit, chunk)
        self._under = -1
        self.setAccessibleDescription("; ".join(bar_words(b) for b in self._shown.bars if b.count))
        self.update()

    def sizeHint(self) -> QSize:
        """Return the size it would like."""
        return QSize(500, _HEIGHT)

    def minimumSizeHint(self) -> QSize:
        """Return the size below which it is no use."""
        return QSize(320, _HEIGHT)

    def _plot(self) -> QRectF:
        room = self.rect().adjusted(_LEFT, _TOP, -_RIGHT, -_BOTTOM)
        return QRectF(room)

    def _x(self, tokens: int) -> float:
        plot = self._plot()
        return plot.left() + plot.width() * tokens / self._shown.end

    def bar_at(self, x: float) -> int:
        """Return the number of the bar at ``x``, -1 beside all bars."""
        plot = self._plot()
        bars = self._shown.bars
        if not bars or not plot.left() <= x < plot.right():
            return -1
        return int((x - plot.left()) / plot.width() * len(bars))

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Follow the pointer."""
        self._point(self.bar_at(event.position().x()))

    def leaveEvent(self, event: QEvent) -> None:
        """Let go of the bar that was pointed at."""
        self._point(-1)

    def _point(self, number: int) -> None:
        if number != self._under:
            self._under = number
            self.update()

    def event(self, event: QEvent) -> bool:
        """Say what the bar under the pointer holds."""
        if isinstance(event, QHelpEvent):
            number = self.bar_at(event.pos().x())
            text = bar_words(self._shown.bars[number]) if number >= 0 else ""
            QToolTip.showText(event.globalPos(), text, self)
            return True
        return super().event(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint it."""
        if not self._shown.bars:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setFont(theme.number_font())
        plot = self._plot()
        most = max(max(bar.count for bar in self._shown.bars), 1)
        self._paint_axes(painter, plot, most)
        for number, bar in enumerate(self._shown.bars):
            if bar.count:
                self._paint_bar(painter, plot, number, most)
        for number in range(len(self._shown.marks)):
            self._paint_mark(painter, plot, number)

    def _paint_bar(self, painter: QPainter, plot: QRectF, number: int, most: int) -> None:
        bar, width = self._shown.bars[number], self._shown.width
        left, right = self._x(number * width), self._x((number + 1) * width)
        height = max(3.0, plot.height() * bar.count / most)
        gap = min(1.0, (right - left) / 6)
        rect = QRectF(left + gap, plot.bottom() - height, right - left - 2 * gap, height)
        is_cut = bar.first > self._shown.marks[-1]
        painter.setPen(Qt.PenStyle.NoPen)
        strength = 1.0 if number == self._under else 0.75
        painter.setBrush(theme.colour("warn" if is_cut else "accent", strength))
        painter.drawRoundedRect(rect, 2, 2)

    def _paint_axes(self, painter: QPainter, plot: QRectF, most: int) -> None:
        painter.setPen(QPen(theme.colour("border"), 1))
        painter.drawLine(plot.bottomLeft(), plot.bottomRight())
        painter.setPen(theme.colour("muted"))
        side = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        for count, y in ((most, plot.top()), (0, plot.bottom())):
            painter.drawText(QRect(0, round(y) - 9, _LEFT - 8, 18), side, whole(count))
        middle = Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignTop
        below, end = round(plot.bottom()) + 5, self._shown.end
        for tokens in range(0, end + 1, tick_step(end, self._shown.marks[0])):
            is_open = tokens == end and self._shown.bars[-1].last is None
            place = QRect(round(self._x(tokens)) - 30, below, 60, 16)
            painter.drawText(place, middle, whole(tokens) + ("+" if is_open else ""))
        words = QRect(round(plot.left()), below + 17, round(plot.width()), 18)
        painter.drawText(words, Qt.AlignmentFlag.AlignHCenter, tr("tokens in a caption"))

    def _paint_mark(self, painter: QPainter, plot: QRectF, number: int) -> None:
        marks = self._shown.marks
        is_end = number == len(marks) - 1
        x = self._x(marks[number])
        style = Qt.PenStyle.SolidLine if is_end else Qt.PenStyle.DashLine
        painter.setPen(QPen(theme.colour("warn" if is_end else "muted"), 1.5, style))
        painter.drawLine(QPointF(x, plot.top() - 6), QPointF(x, plot.bottom()))
        text = tr("cut") if is_end else chunk_name(number + 2)
        width = painter.fontMetrics().horizontalAdvance(text)
        # On the side that the words are about; before the mark where that has no room.
        left = x + 5 if x + 5 + width <= self.width() else x - 5 - width
        painter.drawText(QPointF(left, plot.top() - 9), text)
