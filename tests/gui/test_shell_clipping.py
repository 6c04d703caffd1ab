"""No text of the window is cut off: in any width, size and theme, and in longer languages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PySide6.QtCore import QEvent

from gui import theme
from gui.preferences import PreferenceKeeper
from gui.shell.page_list import page_specs
from gui.shell.window import MainWindow
from tests.gui.clipping import faults
from tests.gui.shell_fakes import FakeDialogs

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")

ROOT = Path(__file__).parent.parent.parent
# The offscreen platform's own screen is smaller than a window at twice the size.
SCREEN = {"name": "large", "x": 0, "y": 0, "width": 3840, "height": 2400}
SCREEN |= {"logicalDpi": 96, "logicalBaseDpi": 96, "dpr": 1}


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


def nothing_is_cut(window):
    assert faults(window) == []


@pytest.mark.parametrize("width", [1024, 1280, 1440, 1920])
def test_nothing_that_is_written_is_cut_off(window, qtbot, width):
    window.resize(width, 800)
    for spec in page_specs():
        window.show_page(spec.key)
        page = window.pages.page(spec.key)
        qtbot.waitUntil(lambda page=page: not getattr(page, "is_busy", False))
        qtbot.waitUntil(lambda: nothing_is_cut(window))


@pytest.mark.parametrize(("scale", "widths"), [(1, (1024, 1440)), (1.5, (1280,)), (2, (1024,))])
def test_long_words_fit_in_every_theme_on_every_page_and_dialog(tmp_path, scale, widths):
    screen = tmp_path / "screen.json"
    screen.write_text(json.dumps({"screens": [SCREEN]}), encoding="utf-8")
    environment = {
        **os.environ,
        "QT_QPA_PLATFORM": f"offscreen:configfile={screen}",
        "QT_SCALE_FACTOR": f"{scale:g}",
    }
    run = subprocess.run(
        [sys.executable, "-m", "tests.gui.clipping", *map(str, widths)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {"scale": scale, "cut": []}
