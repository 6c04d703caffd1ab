"""A window whose theme is changed looks like one that was made in that theme."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QEvent
from PySide6.QtWidgets import QWidget

from gui import theme
from gui.preferences import PreferenceKeeper
from gui.shell.compare import Difference
from gui.shell.compare_dialog import CompareDialog
from gui.shell.page_list import page_specs
from gui.shell.window import MainWindow
from tests.gui.shell_fakes import FakeDialogs

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")


@pytest.fixture
def make_window(qapp, tmp_path):
    made = []

    def make(name):
        preferences = PreferenceKeeper(tmp_path / f"{len(made)}.json")
        preferences.change(theme=name)
        window = MainWindow(preferences, dialogs=FakeDialogs())
        window.checker.pause(True)
        window.resize(1280, 800)
        window.show()
        made.append(window)
        return window

    yield make
    for window in made:
        window.dialogs.answers["unsaved"] = "discard"
        window.close()
        qapp.processEvents()
        window.deleteLater()
    qapp.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    theme.apply(qapp, "dark")


@pytest.fixture
def pictures(qapp, qtbot):
    """Return a function that gives a picture of each page of a window."""

    def take(window):
        found = {}
        for spec in page_specs():
            window.show_page(spec.key)
            page = window.pages.page(spec.key)
            qtbot.waitUntil(lambda page=page: not getattr(page, "is_busy", False))
            qapp.processEvents()
            found[spec.key] = window.grab().toImage()
        return found

    return take


def test_a_change_of_theme_leaves_nothing_of_the_old_one(make_window, pictures):
    window = make_window("dark")
    pictures(window)
    for name in ("light", "contrast", "dark"):
        window.preferences.change(theme=name)
        changed = pictures(window)
        other = make_window(name)
        fresh = pictures(other)
        other.hide()
        assert [key for key in changed if changed[key] != fresh[key]] == [], name


def test_an_open_dialog_follows_too(qapp, qtbot, make_window):
    rows = [Difference("training.seed", "Seed", "42", "7")]

    def made(parent):
        dialog = CompareDialog(rows, "preset", parent)
        qtbot.addWidget(dialog)
        dialog.show()
        qtbot.waitUntil(dialog.isVisible)
        return dialog

    window = make_window("dark")
    dialog = made(window)
    window.preferences.change(theme="light")
    qapp.processEvents()
    assert dialog.grab().toImage() == made(window).grab().toImage()


def test_parts_out_of_sight_are_polished_when_they_are_shown(qapp, qtbot):
    class Part(QWidget):
        polished = 0

        def changeEvent(self, event):
            self.polished += event.type() == QEvent.Type.StyleChange

    theme.apply(qapp, "dark")
    part = Part()
    qtbot.addWidget(part)
    theme.follow(part)
    part.show()
    part.hide()
    part.polished = 0
    theme.apply(qapp, "light")
    assert part.polished == 0
    part.show()
    assert part.polished == 1
    part.hide()
    part.show()
    assert part.polished == 1
    theme.apply(qapp, "dark")
    assert part.polished == 2
