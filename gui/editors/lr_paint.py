"""Painting the learning-rate chart."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QFontMetricsF, QPainter, QPen, QPolygonF

from aozora.config.lr_schedule import LrSchedule
from gui.editors.inks import Inks, faded
from gui.editors.lr_axes import ZERO_LANE
from gui.editors.lr_scene import LrScene, place_labels, place_text
from gui.editors.numbers import format_rate
from gui.words import tr

_HANDLE = 5.0
_CHOSEN = 6.5


def paint_lr(painter: QPainter, scene: LrScene, inks: Inks) -> None:
    """Paint ``scene``."""
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    _paint_ground(painter, scene, inks)
    if not scene.compact:
        _paint_labels(painter, scene, inks)
    _paint_marks(painter, scene, inks)
    painter.save()
    painter.setClipRect(_plot(scene).adjusted(-1, -1, 1, 1))
    _paint_guides(painter, scene, inks)
    if scene.ghost is not None:
        pen = QPen(inks.ghost, 1.5, Qt.PenStyle.DashLine)
        _paint_line(painter, scene, scene.ghost, pen)
    _paint_curve(painter, scene, inks)
    _paint_applied(painter, scene, inks)
    painter.restore()
    _paint_handles(painter, scene, inks)
    _paint_bubble(painter, scene, inks)
    _paint_band(painter, scene, inks)


def _plot(scene: LrScene) -> QRectF:
    axes = scene.axes
    return QRectF(axes.left, axes.top, axes.width, axes.height)


def _paint_ground(painter: QPainter, scene: LrScene, inks: Inks) -> None:
    axes = scene.axes
    lane = QRectF(axes.left, axes.lane_top, axes.width, ZERO_LANE)
    painter.fillRect(lane, faded(inks.text, 0.05))
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
    painter.setPen(QPen(inks.faint, 1))
    for rate in axes.minor_lines():
        _horizontal(painter, scene, axes.to_px_y(rate))
    painter.setPen(QPen(inks.grid, 1))
    for exponent in axes.decade_lines():
        _horizontal(painter, scene, axes.to_px_y(10.0**exponent))
    painter.setPen(QPen(inks.faint, 1))
    for x, _ in place_labels(scene.run, scene.units, axes.width):
        px = float(round(axes.to_px_x(x)))
        painter.drawLine(QPointF(px, axes.top), QPointF(px, axes.bottom))
    # The axis is broken here: below the line is 0 itself, not the next decade.
    painter.setPen(QPen(inks.border, 1, Qt.PenStyle.DotLine))
    _horizontal(painter, scene, axes.lane_top)
    painter.setPen(QPen(inks.accent, 2) if scene.focused else QPen(inks.border, 1))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.drawRect(_plot(scene))
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, True)


def _horizontal(painter: QPainter, scene: LrScene, py: float) -> None:
    py = round(py)
    painter.drawLine(QPointF(scene.axes.left, py), QPointF(scene.axes.right, py))


def _paint_labels(painter: QPainter, scene: LrScene, inks: Inks) -> None:
    axes = scene.axes
    metrics = QFontMetricsF(painter.font())
    painter.setPen(inks.muted)
    flags = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
    height = metrics.height()

    def left_label(py: float, text: str) -> None:
        painter.drawText(QRectF(0, py - height / 2, axes.left - 8, height), flags, text)

    lines = list(axes.decade_lines())
    room = (axes.lane_top - axes.top) / max(axes.decades.high - axes.decades.low, 1e-9)
    stride = max(1, round(height * 1.4 / room + 0.5)) if room < height * 1.4 else 1
    for exponent in lines[::stride]:
        py = axes.to_px_y(10.0**exponent)
        # The lowest decade lies on the break, where its label would touch that of 0.
        if py <= axes.lane_top - height * 0.35 or axes.lane_top - py < 0.5:
            lifted = min(py, axes.lane_top - height * 0.3)
            left_label(lifted, f"1e{exponent}")
    left_label(axes.bottom - ZERO_LANE / 2 + 1, "0")
    places = place_labels(scene.run, scene.units, axes.width)
    centre = Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignTop
    for x, text in places:
        px = axes.to_px_x(x)
        painter.drawText(QRectF(px - 60, axes.bottom + 6, 120, height), centre, text)


def _paint_marks(painter: QPainter, scene: LrScene, inks: Inks) -> None:
    """Paint epochs, saves, what is trained already and where the run is."""
    axes = scene.axes
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
    epochs = scene.run.epoch_places()
    if len(epochs) * 12 < axes.width:
        painter.setPen(QPen(faded(inks.live, 0.55), 1, Qt.PenStyle.DotLine))
        for x in epochs:
            px = float(round(axes.to_px_x(x)))
            painter.drawLine(QPointF(px, axes.top), QPointF(px, axes.bottom))
    saves = scene.run.checkpoint_places()
    if len(saves) * 4 < axes.width:
        painter.setPen(QPen(inks.muted, 1))
        for x in saves:
            px = float(round(axes.to_px_x(x)))
            painter.drawLine(QPointF(px, axes.bottom - 5), QPointF(px, axes.bottom))
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, True)
    if scene.run.trained is not None:
        px = axes.to_px_x(scene.run.trained)
        shade = QRectF(axes.left, axes.top, px - axes.left, axes.height)
        painter.fillRect(shade, faded(inks.text, 0.08))
        painter.setPen(QPen(inks.muted, 1.5))
        painter.drawLine(QPointF(px, axes.top), QPointF(px, axes.bottom))
        if px - axes.left > 70 and not scene.compact:
            painter.drawText(QPointF(axes.left + 8, axes.top + 16), tr("trained"))
    if scene.applied:
        px = axes.to_px_x(scene.applied[-1][0])
        painter.setPen(QPen(inks.live, 1.5))
        painter.drawLine(QPointF(px, axes.top), QPointF(px, axes.bottom))


def _paint_guides(painter: QPainter, scene: LrScene, inks: Inks) -> None:
    snap = scene.gesture.snap if scene.gesture else None
    if snap is None:
        return
    axes = scene.axes
    painter.setPen(QPen(inks.ghost, 1, Qt.PenStyle.DashLine))
    if snap.guide_x is not None:
        px = axes.to_px_x(snap.guide_x)
        painter.drawLine(QPointF(px, axes.top), QPointF(px, axes.bottom))
    if snap.guide_lr is not None:
        _horizontal(painter, scene, axes.to_px_y(snap.guide_lr))


def _line(scene: LrScene, schedule: LrSchedule) -> QPolygonF:
    return QPolygonF([QPointF(x, y) for x, y in scene.axes.polyline(schedule)])


def _paint_line(painter: QPainter, scene: LrScene, schedule: LrSchedule, pen: QPen) -> None:
    painter.setPen(pen)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.drawPolyline(_line(scene, schedule))


def _paint_curve(painter: QPainter, scene: LrScene, inks: Inks) -> None:
    axes = scene.axes
    line = _line(scene, scene.schedule)
    area = QPolygonF(line)
    area.append(QPointF(axes.right, axes.bottom))
    area.append(QPointF(axes.left, axes.bottom))
    ink = inks.accent if scene.enabled else inks.muted
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(faded(ink, 0.10))
    painter.drawPolygon(area)
    pen = QPen(ink, 2)
    pen.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
    painter.setPen(pen)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.drawPolyline(line)


def _paint_applied(painter: QPainter, scene: LrScene, inks: Inks) -> None:
    if not scene.applied:
        return
    axes = scene.axes
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(inks.live)
    last = -100.0
    for x, lr in scene.applied:
        px = axes.to_px_x(x)
        # Denser dots would only hide the line they prove.
        if px - last >= 6.0:
            painter.drawEllipse(QPointF(px, axes.to_px_y(lr)), 2.2, 2.2)
            last = px


def _paint_handles(painter: QPainter, scene: LrScene, inks: Inks) -> None:
    axes = scene.axes
    for index, point in enumerate(scene.schedule.points):
        centre = QPointF(axes.to_px_x(point.x), axes.to_px_y(point.lr))
        chosen = index in scene.chosen
        edge = inks.error if index in scene.faulty else inks.accent
        if scene.run.is_locked(point.x) or not scene.enabled:
            edge = inks.muted
        if index == scene.hovered and not chosen:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(faded(edge, 0.25))
            painter.drawEllipse(centre, _HANDLE + 6, _HANDLE + 6)
        if chosen:
            painter.setPen(QPen(faded(edge, 0.55), 2))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawEllipse(centre, _CHOSEN + 4, _CHOSEN + 4)
        painter.setPen(QPen(edge, 2))
        painter.setBrush(edge if chosen else inks.base)
        radius = _CHOSEN if chosen else _HANDLE
        painter.drawEllipse(centre, radius, radius)


def _paint_bubble(painter: QPainter, scene: LrScene, inks: Inks) -> None:
    gesture = scene.gesture
    if gesture is not None and gesture.factor is not None:
        _bubble(painter, scene, inks, QPointF(scene.axes.right, scene.axes.top + 20),
                f"\u00d7{gesture.factor:.3g}", inks.text)  # fmt: skip
        return
    if gesture is not None and gesture.removing:
        place = QPointF(scene.axes.left + scene.axes.width / 2, scene.axes.top + 20)
        _bubble(painter, scene, inks, place, tr("release to remove"), inks.error)
        return
    index = scene.chosen[0] if len(scene.chosen) == 1 else scene.hovered
    if index is None or index >= len(scene.schedule.points) or scene.compact:
        return
    point = scene.schedule.points[index]
    centre = QPointF(scene.axes.to_px_x(point.x), scene.axes.to_px_y(point.lr))
    place_unit = tr(" steps") if scene.run.steps > 1 else ""
    text = f"{place_text(point.x, scene.run)}{place_unit}   {format_rate(point.lr)}"
    _bubble(painter, scene, inks, centre, text, inks.text)


def _bubble(
    painter: QPainter, scene: LrScene, inks: Inks, centre: QPointF, text: str, ink: QColor
) -> None:
    metrics = QFontMetricsF(painter.font())
    width, height = metrics.horizontalAdvance(text) + 20, metrics.height() + 10
    axes = scene.axes
    left = min(max(centre.x() - width / 2, axes.left + 4), axes.right - width - 4)
    top = centre.y() - height - 16
    if top < axes.top + 2:
        top = min(centre.y() + 16, axes.bottom - height - 2)
    box = QRectF(left, top, width, height)
    painter.setPen(QPen(inks.border, 1))
    painter.setBrush(inks.raised)
    painter.drawRoundedRect(box, 6, 6)
    painter.setPen(ink)
    painter.drawText(box, Qt.AlignmentFlag.AlignCenter, text)


def _paint_band(painter: QPainter, scene: LrScene, inks: Inks) -> None:
    band = scene.gesture.band if scene.gesture else None
    if band is None:
        return
    left, top, right, bottom = band
    painter.setPen(QPen(inks.accent, 1, Qt.PenStyle.DashLine))
    painter.setBrush(faded(inks.accent, 0.12))
    painter.drawRect(QRectF(left, top, right - left, bottom - top))
