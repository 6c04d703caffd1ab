"""Pictures of parts of the window as one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PySide6.QtCore import QPointF
from PySide6.QtGui import QPainter, QPixmap

from gui import theme


def stacked(pictures: Sequence[QPixmap]) -> QPixmap:
    """Return ``pictures`` one under the other on the ground of the window, which they lack."""
    edge, gap = theme.GAP_4, theme.GAP_3
    sizes = [picture.deviceIndependentSize() for picture in pictures]
    width = max(size.width() for size in sizes) + 2 * edge
    height = sum(size.height() for size in sizes) + gap * (len(sizes) - 1) + 2 * edge
    ratio = pictures[0].devicePixelRatioF()
    whole = QPixmap(math.ceil(width * ratio), math.ceil(height * ratio))
    whole.setDevicePixelRatio(ratio)
    whole.fill(theme.colour("window"))
    painter = QPainter(whole)
    y = float(edge)
    for picture, size in zip(pictures, sizes, strict=True):
        painter.drawPixmap(QPointF(edge, y), picture)
        y += size.height() + gap
    painter.end()
    return whole
