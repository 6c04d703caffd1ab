"""No text of the window is cut off, in any width it can have."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QEvent
from PySide6.QtWidgets import QAbstractButton, QComboBox, QLabel, QLineEdit

from gui import theme
from gui.preferences import PreferenceKeeper
from gui.shell.page_list import page_specs
from gui.shell.rail import RailEntry
from gui.shell.window import MainWindow
from tests.gui.shell_fakes import FakeDialogs

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")


@pytest.fixture(scope="module")
def window(qapp, tmp_path_factory):
    theme.apply(qapp, "dark")
    preferences = PreferenceKeeper(tmp_path_factory.mktemp("preferences") / "window.json")
    window = MainWindow(preferences, dialogs=FakeDialogs())
    window.checker.pause(True)
    window.document.set_values({"training.seed": 7, "loss.weighting": "min_snr"}, "some")
    window.show()
    yield window
    window.dialogs.answers["unsaved"] = "discard"
    window.close()
    qapp.processEvents()
    window.deleteLater()
    qapp.sendPostedEvents(None, QEvent.Type.DeferredDelete)


def _cut(widget):
    """Return what is cut off of ``widget``'s text, as words; empty when nothing is."""
    metrics = widget.fontMetrics()
    if isinstance(widget, QLabel):
        if not widget.text() or widget.wordWrap():
            needed = widget.heightForWidth(widget.width()) if widget.text() else 0
            return f"needs {needed} of height" if needed > widget.height() + 1 else ""
        room = widget.contentsRect().width()
        needed = max(map(metrics.horizontalAdvance, widget.text().splitlines()))
        return f"needs {needed} of {room}" if needed > room + 1 else ""
    if isinstance(widget, QComboBox):
        needed, room = metrics.horizontalAdvance(widget.currentText()) + 38, widget.width()
        return f"needs {needed} of {room}" if needed > room else ""
    if isinstance(widget, RailEntry) or not widget.text():
        return ""
    needed = metrics.horizontalAdvance(widget.text().replace("&", ""))
    return f"needs {needed} of {widget.width()}" if needed > widget.width() else ""


@pytest.mark.parametrize("width", [1024, 1280, 1440, 1920])
def test_nothing_that_is_written_is_cut_off(window, qapp, qtbot, width):
    window.resize(width, 800)
    cut = []
    for spec in page_specs():
        window.show_page(spec.key)
        page = window.pages.page(spec.key)
        qtbot.waitUntil(lambda page=page: not getattr(page, "is_busy", False))
        qapp.processEvents()
        kinds = (QLabel, QAbstractButton, QComboBox)
        found = [widget for kind in kinds for widget in window.findChildren(kind)]
        for widget in found:
            if not widget.isVisible() or isinstance(widget, QLineEdit):
                continue
            fault = _cut(widget)
            if fault:
                words = widget.currentText() if isinstance(widget, QComboBox) else widget.text()
                cut.append(f"{spec.key}: {words!r} {fault}")
    assert sorted(set(cut)) == []


def test_names_of_pages_fit_the_rail(window, qapp):
    window.resize(1440, 800)
    qapp.processEvents()
    for entry in window.rail.findChildren(RailEntry):
        font = entry.font()
        font.setWeight(font.Weight.DemiBold)
        metrics = entry.fontMetrics().__class__(font)
        assert metrics.horizontalAdvance(entry.text()) <= entry.width() - 48, entry.text()
