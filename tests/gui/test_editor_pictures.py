"""Both editors as pictures, compared with kept ones; look at those before keeping new ones.

`AOZORA_KEEP_PICTURES=1` in the environment writes the kept pictures anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QPoint
from PySide6.QtGui import QFont, QFontInfo, QImage, QPixmap

from aozora.config.lr_presets import cosine_restarts
from aozora.config.lr_schedule import LrPoint, LrSchedule
from gui import theme
from gui.document import Document
from gui.editors.lr_chart import LrChart
from gui.editors.lr_edit import Run
from gui.editors.ticket_chart import TicketChart
from gui.editors.ticket_view import TicketView

KEPT = Path(__file__).parent / "pictures"
WIDTH, HEIGHT = 560, 260
FONT = "DejaVu Sans"
# Letters are smoothed a little differently by every version of the font library.
NOTICEABLE, SHARE = 40, 0.005


def lr_chart():
    chart = LrChart()
    points = (
        LrPoint(0.0, 1e-7, "log"),
        LrPoint(0.1, 4e-6, "hold"),
        LrPoint(0.4, 4e-6, "linear"),
        LrPoint(0.7, 8e-7, "cosine"),
        LrPoint(1.0, 0.0),
    )
    chart.set_schedule(LrSchedule(points))
    chart.set_run(Run(2000, 250.0, 500, 0.2))
    chart.set_ghost(cosine_restarts(2e-6, 1e-7))
    chart.choose((3,))
    return chart


def ticket_chart():
    document = Document()
    bars = [abs(10 - k) / 4 for k in range(20)]
    changes = {
        "timesteps.distribution": {"kind": "custom", "weights": bars},
        "timesteps.maximum": 949,
        "objective.prediction": {"kind": "flow"},
    }
    document.set_values(changes, "x")
    chart = TicketChart()
    chart.set_view(TicketView.of_settings(document.value, 8000))
    chart.set_ghost(tuple(1.0 + k / 20 for k in range(20)))
    counts = chart.view.counts()
    chart.set_progress(counts, [c // 3 for c in counts], [0.1 + k / 100 for k in range(20)])
    chart.choose([2])
    chart.lock([16], on=True)
    return chart


def picture(chart, ratio):
    chart.setFont(QFont(FONT, 9))
    chart.resize(WIDTH, HEIGHT)
    pixmap = QPixmap(WIDTH * ratio, HEIGHT * ratio)
    pixmap.setDevicePixelRatio(ratio)
    pixmap.fill(theme.colour("base"))
    chart.render(pixmap, QPoint())
    return pixmap.toImage().convertToFormat(QImage.Format.Format_RGB32)


def pixels(image):
    count = image.width() * image.height()
    flat = np.frombuffer(image.constBits(), dtype=np.uint8, count=count * 4)
    return flat.reshape(image.height(), image.width(), 4)[:, :, :3].astype(np.int16)


@pytest.mark.parametrize(
    ("name", "ratio"), [("dark", 1), ("dark", 2), ("light", 1), ("light", 2), ("contrast", 1)]
)
@pytest.mark.parametrize("make", [lr_chart, ticket_chart])
def test_the_editors_look_as_they_did(qtbot, qapp, make, name, ratio):
    if QFontInfo(QFont(FONT, 9)).family() != FONT:
        pytest.skip(f"pictures are only the same with {FONT}")
    theme.apply(qapp, name)
    chart = make()
    qtbot.addWidget(chart)
    image = picture(chart, ratio)
    kept = KEPT / f"{make.__name__}-{name}-{ratio}x.png"
    if os.environ.get("AOZORA_KEEP_PICTURES") == "1":
        kept.parent.mkdir(exist_ok=True)
        assert image.save(str(kept))
    known = QImage(str(kept)).convertToFormat(QImage.Format.Format_RGB32)
    assert known.size() == image.size()
    apart = np.abs(pixels(image) - pixels(known)).max(axis=2) > NOTICEABLE
    assert apart.mean() <= SHARE
