"""Painting the ticket chart."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QFontMetricsF, QPainter, QPainterPath, QPen

from gui.editors.inks import Inks, faded, mixed
from gui.editors.ticket_axes import TicketAxes
from gui.editors.ticket_view import TicketView, spoken_bar
from gui.words import tr

_LABEL_PX = 34.0


@dataclass(frozen=True)
class TicketScene:
    """A picture of the chart before it is painted.

    Attributes:
        axes: Where everything lies.
        view: The pool.
        chosen: The chosen bars.
        locked: Bars that stay as they are.
        hovered: The bar under the mouse, or None.
        current: The bar the keys act on, or None.
        ghost: Bars to compare with, as a dashed outline.
        planned: Tickets of a whole run, by bar; empty when there is none to be shown.
        drawn: Those of them that were drawn so far.
        losses: Mean loss so far in a run, by bar; NaN where there was none.
        factor: Factor of a running scaling, or None.
        focused: Whether the chart has the keyboard.
        enabled: Whether it can be edited.
        compact: Whether there is no room for labels.
    """

    axes: TicketAxes
    view: TicketView
    chosen: frozenset[int] = frozenset()
    locked: frozenset[int] = frozenset()
    hovered: int | None = None
    current: int | None = None
    ghost: tuple[float, ...] | None = None
    planned: tuple[int, ...] = ()
    drawn: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()
    factor: float | None = None
    focused: bool = False
    enabled: bool = True
    compact: bool = False


def paint_tickets(painter: QPainter, scene: TicketScene, inks: Inks) -> None:
    """Paint ``scene``."""
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    _paint_ground(painter, scene, inks)
    _paint_bars(painter, scene, inks)
    _paint_outside(painter, scene, inks)
    _paint_one(painter, scene, inks)
    shifted = scene.view.shifted()
    if shifted is not None:
        _paint_outline(painter, scene, shifted, QPen(inks.live, 1.8))
    if scene.ghost is not None:
        pen = QPen(inks.ghost, 1.8, Qt.PenStyle.DashLine)
        _paint_outline(painter, scene, scene.ghost, pen)
    _paint_losses(painter, scene, inks)
    if not scene.compact:
        _paint_labels(painter, scene, inks)
        _paint_bubble(painter, scene, inks)


def _paint_ground(painter: QPainter, scene: TicketScene, inks: Inks) -> None:
    axes = scene.axes
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
    step = 1.0 if axes.highest <= 8.0 else axes.highest / 8.0
    painter.setPen(QPen(inks.faint, 1))
    for number in range(1, round(axes.highest / step) + 1):
        py = float(round(axes.to_py(number * step)))
        painter.drawLine(QPointF(axes.left, py), QPointF(axes.right, py))
    painter.setPen(QPen(inks.border, 1))
    painter.drawLine(QPointF(axes.left, axes.bottom), QPointF(axes.right, axes.bottom))
    if scene.focused:
        painter.setPen(QPen(inks.accent, 2))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRect(QRectF(axes.left, axes.top, axes.width, axes.height))
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, True)


def bar_rect(axes: TicketAxes, index: int, weight: float) -> QRectF:
    """Return the rectangle of a bar."""
    gap = 1.0 if axes.bar_width < 12.0 else min(axes.bar_width * 0.12, 6.0)
    top = axes.to_py(weight)
    left = axes.bar_left(index) + gap / 2
    return QRectF(left, top, max(axes.bar_width - gap, 1.0), axes.bottom - top)


def _bar_path(rect: QRectF) -> QPainterPath:
    """Return a bar with a rounded head."""
    radius = min(3.0, rect.width() / 2, rect.height())
    path = QPainterPath()
    path.moveTo(rect.left(), rect.bottom())
    path.lineTo(rect.left(), rect.top() + radius)
    path.quadTo(rect.left(), rect.top(), rect.left() + radius, rect.top())
    path.lineTo(rect.right() - radius, rect.top())
    path.quadTo(rect.right(), rect.top(), rect.right(), rect.top() + radius)
    path.lineTo(rect.right(), rect.bottom())
    path.closeSubpath()
    return path


def _paint_bars(painter: QPainter, scene: TicketScene, inks: Inks) -> None:
    axes = scene.axes
    for index, weight in enumerate(scene.view.weights):
        rect = bar_rect(axes, index, weight)
        ink = inks.accent if scene.enabled and index not in scene.locked else inks.muted
        ground = 0.55 if index in (scene.hovered, *scene.chosen) else 0.34
        painter.setPen(Qt.PenStyle.NoPen)
        if rect.height() > 0.5:
            painter.setBrush(mixed(inks.base, ink, ground))
            painter.drawPath(_bar_path(rect))
            painter.fillRect(QRectF(rect.left(), rect.top(), rect.width(), 2.0), ink)
        if scene.drawn and scene.planned[index]:
            part = min(scene.drawn[index] / scene.planned[index], 1.0)
            inner = rect.adjusted(rect.width() * 0.25, 0, -rect.width() * 0.25, 0)
            inner.setTop(rect.bottom() - rect.height() * part)
            painter.fillRect(inner, inks.live)
        if index in scene.chosen:
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(inks.text, 1.5))
            frame = rect if rect.height() > 4 else rect.adjusted(0, -4, 0, 0)
            painter.drawRoundedRect(frame, 3, 3)
        if index in scene.locked:
            _paint_lock(painter, rect, inks)
        if scene.focused and index == scene.current:
            marker = QRectF(rect.left(), axes.bottom + 2, rect.width(), 3)
            painter.fillRect(marker, inks.accent)


def _paint_lock(painter: QPainter, rect: QRectF, inks: Inks) -> None:
    """Paint a padlock at the foot of a bar, so that a locked bar differs not by colour alone."""
    size = min(rect.width() * 0.7, 10.0)
    if size < 4.0:
        return
    body = QRectF(rect.center().x() - size / 2, rect.bottom() - size - 4, size, size * 0.7)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(inks.text)
    painter.drawRoundedRect(body, 1.5, 1.5)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.setPen(QPen(inks.text, 1.4))
    bow = QRectF(body.left() + size * 0.2, body.top() - size * 0.4, size * 0.6, size * 0.8)
    painter.drawArc(bow, 0, 180 * 16)


def _paint_outside(painter: QPainter, scene: TicketScene, inks: Inks) -> None:
    """Shade what lies below the lowest and above the highest timestep drawn."""
    axes, pool = scene.axes, scene.view.pool()
    if pool is None:
        return
    shade = faded(inks.text, 0.12)
    if pool.minimum > 0:
        right = axes.timestep_px(pool.minimum)
        painter.fillRect(QRectF(axes.left, axes.top, right - axes.left, axes.height), shade)
    if pool.maximum < 999:
        left = axes.timestep_px(pool.maximum + 1)
        painter.fillRect(QRectF(left, axes.top, axes.right - left, axes.height), shade)


def _paint_one(painter: QPainter, scene: TicketScene, inks: Inks) -> None:
    axes = scene.axes
    py = float(round(axes.to_py(1.0))) + 0.5
    painter.setPen(QPen(inks.muted, 1, Qt.PenStyle.DashLine))
    painter.drawLine(QPointF(axes.left, py), QPointF(axes.right, py))


def _paint_outline(
    painter: QPainter, scene: TicketScene, weights: tuple[float, ...], pen: QPen
) -> None:
    axes = scene.axes
    path = QPainterPath()
    width = axes.width / len(weights)
    for index, weight in enumerate(weights):
        py = axes.to_py(weight)
        left = axes.left + index * width
        if index == 0:
            path.moveTo(left, py)
        else:
            path.lineTo(left, py)
        path.lineTo(left + width, py)
    painter.setPen(pen)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.drawPath(path)


def _paint_losses(painter: QPainter, scene: TicketScene, inks: Inks) -> None:
    known = [loss for loss in scene.losses if math.isfinite(loss)]
    if not known:
        return
    axes, top = scene.axes, max(known) or 1.0
    painter.setPen(QPen(inks.base, 1))
    painter.setBrush(inks.ghost)
    for index, loss in enumerate(scene.losses):
        if math.isfinite(loss):
            px = axes.bar_left(index) + axes.bar_width / 2
            py = axes.bottom - loss / top * axes.height * 0.92
            painter.drawEllipse(QPointF(px, py), 3.2, 3.2)


def _paint_labels(painter: QPainter, scene: TicketScene, inks: Inks) -> None:
    axes, view = scene.axes, scene.view
    metrics = QFontMetricsF(painter.font())
    height = metrics.height()
    painter.setPen(inks.muted)
    right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
    stride = axes.highest / 4.0
    for number in range(5):
        py = axes.to_py(number * stride)
        text = f"{number * stride:g}\u00d7"
        painter.drawText(QRectF(0, py - height / 2, axes.left - 8, height), right, text)
    centre = Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignTop
    every = 100 if axes.width > 460 else 250
    for timestep in range(0, 1000, every):
        px = axes.timestep_px(timestep)
        painter.drawText(QRectF(px - 40, axes.bottom + 8, 80, height), centre, str(timestep))
    last = QRectF(axes.right - 40, axes.bottom + 8, 64, height)
    painter.drawText(last, centre, "999")
    row = axes.bottom + 10 + height
    left_text = QRectF(axes.left, row, axes.width / 2, height)
    painter.drawText(left_text, Qt.AlignmentFlag.AlignLeft, tr("\u25c2 fine detail"))
    right_text = QRectF(axes.left + axes.width / 2, row, axes.width / 2, height)
    words = tr("composition, pure noise \u25b8")
    painter.drawText(right_text, Qt.AlignmentFlag.AlignRight, words)
    if axes.bar_width >= _LABEL_PX and view.total:
        _paint_counts(painter, scene, inks, metrics)


def _paint_counts(
    painter: QPainter, scene: TicketScene, inks: Inks, metrics: QFontMetricsF
) -> None:
    axes, view = scene.axes, scene.view
    counts = view.counts()
    if max(metrics.horizontalAdvance(str(c)) for c in counts) > axes.bar_width - 2:
        return
    painter.setPen(inks.text)
    centre = Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignBottom
    for index, count in enumerate(counts):
        py = max(axes.to_py(view.weights[index]), axes.top + metrics.height())
        place = QRectF(axes.bar_left(index), py - metrics.height() - 2, axes.bar_width, 0)
        place.setHeight(metrics.height())
        if scene.ghost is not None:
            # The outline would run through the figures.
            painter.fillRect(place.adjusted(2, 1, -2, 0), faded(inks.base, 0.75))
        painter.drawText(place, centre, str(count))


def _paint_bubble(painter: QPainter, scene: TicketScene, inks: Inks) -> None:
    axes, view = scene.axes, scene.view
    index = scene.hovered
    if index is None and scene.focused and len(scene.chosen) <= 1:
        index = scene.current
    if scene.factor is not None:
        text, centre = f"\u00d7{scene.factor:.2f}", axes.left + axes.width / 2
    elif index is not None and index < view.bins:
        text = spoken_bar(view, index)
        centre = axes.bar_left(index) + axes.bar_width / 2
    else:
        return
    metrics = QFontMetricsF(painter.font())
    width, height = metrics.horizontalAdvance(text) + 20, metrics.height() + 10
    left = min(max(centre - width / 2, axes.left + 4), axes.right - width - 4)
    box = QRectF(left, axes.top + 4, width, height)
    painter.setPen(QPen(inks.border, 1))
    painter.setBrush(inks.raised)
    painter.drawRoundedRect(box, 6, 6)
    painter.setPen(inks.text)
    painter.drawText(box, Qt.AlignmentFlag.AlignCenter, text)
