"""The sizes pictures are trained at, as the engine's check gave them: counts and what is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QRect, QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from gui import theme
from gui.words import tr, whole

_ROW = 26
_MOST_ROWS = 14
_NOTABLE_CROP = 0.1


@dataclass(frozen=True)
class Bucket:
    """One size.

    Attributes:
        pictures: Pictures trained at it.
        samples: How often they are drawn in an epoch.
        mean_crop: Share of their area that is cut away, on average.
        most_crop: The largest such share.
    """

    width: int
    height: int
    pictures: int
    samples: int
    mean_crop: float
    most_crop: float


def buckets_of(summary: Mapping[str, Any]) -> list[Bucket]:
    """Return the buckets in the summary of a check."""
    rows = summary.get("buckets")
    return [
        Bucket(
            int(row["width"]),
            int(row["height"]),
            int(row["num_images"]),
            int(row["num_samples"]),
            float(row["mean_crop_share"]),
            float(row["max_crop_share"]),
        )
        for row in (rows if isinstance(rows, list) else ())
    ]


class BucketChart(QWidget):
    """One bar a size; the part that is cut away is marked at its end."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._buckets: list[Bucket] = []
        self._rest = 0
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(tr("Sizes pictures are trained at"))

    def show_buckets(self, buckets: Sequence[Bucket]) -> None:
        """Show ``buckets``, the fullest first."""
        ordered = sorted(buckets, key=lambda b: (-b.samples, b.width, b.height))
        self._buckets = ordered[:_MOST_ROWS]
        self._rest = len(ordered) - len(self._buckets)
        self.setAccessibleDescription("; ".join(map(self._words, self._buckets)))
        self.updateGeometry()
        self.update()

    def _words(self, bucket: Bucket) -> str:
        return tr("{0} by {1}: {2} pictures, {3} cut away").format(
            bucket.width, bucket.height, bucket.pictures, f"{bucket.mean_crop:.0%}"
        )

    def sizeHint(self) -> QSize:
        """Return the size it would like."""
        rows = len(self._buckets) + (1 if self._rest else 0) + 1
        return QSize(400, rows * _ROW)

    def minimumSizeHint(self) -> QSize:
        """Return the size below which it is no use."""
        return QSize(320, self.sizeHint().height())

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint it."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setFont(theme.number_font())
        most = max((bucket.samples for bucket in self._buckets), default=1)
        left, right = 122, 214
        room = max(40, self.width() - left - right)
        self._head(painter, left, left + room)
        for number, bucket in enumerate(self._buckets, 1):
            top = number * _ROW
            painter.setPen(theme.colour("text"))
            size = f"{bucket.width} x {bucket.height}"
            self._text(painter, QRect(0, top, left - 14, _ROW), size, is_right=True)
            bar = QRectF(left, top + 6, max(3.0, room * bucket.samples / most), _ROW - 12)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(theme.colour("accent", 0.75))
            painter.drawRoundedRect(bar, 3, 3)
            x = left + room + 14
            painter.setPen(theme.colour("text"))
            self._text(painter, QRect(x, top, 60, _ROW), whole(bucket.pictures), is_right=True)
            is_notable = bucket.most_crop >= _NOTABLE_CROP
            painter.setPen(theme.colour("warn" if is_notable else "muted"))
            crop = f"{bucket.mean_crop:.1%} ({bucket.most_crop:.0%})"
            self._text(painter, QRect(x + 70, top, 120, _ROW), crop, is_right=True)
        if self._rest:
            painter.setPen(theme.colour("muted"))
            text = tr("and {0} more sizes").format(self._rest)
            top = (len(self._buckets) + 1) * _ROW
            self._text(painter, QRect(left, top, room, _ROW), text)

    def _head(self, painter: QPainter, left: int, end: int) -> None:
        painter.setPen(theme.colour("muted"))
        self._text(painter, QRect(0, 0, left - 14, _ROW), tr("size in px"), is_right=True)
        self._text(painter, QRect(left, 0, 200, _ROW), tr("samples an epoch"))
        self._text(painter, QRect(end + 14, 0, 60, _ROW), tr("pictures"), is_right=True)
        cut = tr("cut, mean (most)")
        self._text(painter, QRect(end + 84, 0, 120, _ROW), cut, is_right=True)

    def _text(self, painter: QPainter, rect: QRect, text: str, *, is_right: bool = False) -> None:
        side = Qt.AlignmentFlag.AlignRight if is_right else Qt.AlignmentFlag.AlignLeft
        painter.drawText(rect, side | Qt.AlignmentFlag.AlignVCenter, text)
