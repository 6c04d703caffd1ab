"""The way from an empty window to a run, with the keyboard alone."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QEvent, Qt
from PySide6.QtWidgets import QApplication, QLineEdit

from aozora.events import RunStarted
from gui import theme
from gui.engine.host import EngineHost
from gui.forms.line_field import LineField
from gui.pages.preset_cards import PresetCard
from gui.preferences import PreferenceKeeper
from gui.shell.window import MainWindow
from tests.gui.shell_fakes import FakeBody, FakeDialogs

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")

_MOST_TABS = 80


@pytest.fixture
def bodies():
    return []


@pytest.fixture
def window(qtbot, qapp, tmp_path, bodies):
    theme.apply(qapp, "dark")

    def body(job, mode):
        bodies.append(FakeBody(job, mode, [RunStarted(run_id="r", folder=str(tmp_path))]))
        return bodies[-1]

    dialogs = FakeDialogs()
    dialogs.answers.update(unsaved="discard", stopping="now")
    host = EngineHost(make_body=body)
    window = MainWindow(PreferenceKeeper(tmp_path / "w.json"), host=host, dialogs=dialogs)
    window.checker.pause(True)
    window.show()
    window.show_page("start")
    qtbot.waitUntil(window.isActiveWindow)
    yield window
    for made in bodies:
        made.over.set()
    host.wait(5)
    window.close()
    qapp.processEvents()
    window.deleteLater()
    qapp.sendPostedEvents(None, QEvent.Type.DeferredDelete)


def _tab_to(qtbot, window, is_wanted):
    """Press Tab until a wanted widget has the focus; return it."""
    for _ in range(_MOST_TABS):
        focus = QApplication.focusWidget()
        if focus is not None and is_wanted(focus):
            return focus
        qtbot.keyClick(focus or window, Qt.Key.Key_Tab)
    raise AssertionError("Tab does not lead there")


def _type_into(qtbot, field, text):
    field.selectAll()
    qtbot.keyClicks(field, text)
    qtbot.keyClick(field, Qt.Key.Key_Return)


def test_preset_model_pictures_and_train(window, qtbot, tmp_path, bodies):
    def is_smoke(widget):
        return isinstance(widget, PresetCard) and widget.preset.name == "smoke-test"

    def field(name):
        return lambda widget: isinstance(widget, QLineEdit) and widget.accessibleName() == name

    qtbot.keyClick(_tab_to(qtbot, window, is_smoke), Qt.Key.Key_Space)
    _type_into(qtbot, _tab_to(qtbot, window, field("Base model")), "base.safetensors")
    _type_into(qtbot, _tab_to(qtbot, window, field("Folder with pictures")), str(tmp_path))
    qtbot.keyClick(QApplication.focusWidget(), Qt.Key.Key_F5)
    (body,) = bodies
    assert body.job.config["training"]["steps"] == 20
    assert body.job.config["model"]["base"] == "base.safetensors"
    assert body.job.config["data"]["folders"][0]["path"] == str(tmp_path)
    assert window.pages.current == "run"


def test_tab_goes_round_and_is_caught_nowhere(window, qtbot):
    for page in ("start", "model", "optimizer", "output"):
        window.show_page(page)
        seen = []
        for _ in range(4 * _MOST_TABS):
            qtbot.keyClick(QApplication.focusWidget() or window, Qt.Key.Key_Tab)
            seen.append(QApplication.focusWidget())
        names = {type(widget).__name__ for widget in seen}
        assert {"SearchBox", "RailEntry", "StateChip"} <= names, page
        assert any(isinstance(widget, LineField) for widget in seen), page
        assert seen.count(window.top.search) > 1, page


def test_a_running_job_is_stopped(window, qtbot, tmp_path, bodies):
    inputs = {"model.base": "b", "data.folders": [{"path": str(tmp_path)}]}
    window.document.set_values(inputs, "inputs")
    qtbot.keyClick(window, Qt.Key.Key_F5)
    qtbot.waitUntil(lambda: window.host.status.run_id == "r")
    window.dialogs.answers["stopping"] = "save"
    qtbot.keyClick(window, Qt.Key.Key_F5, Qt.KeyboardModifier.ShiftModifier)
    assert bodies[0].commands == ["stop_and_save"]


def test_a_drop_down_a_switch_and_more_settings_are_changed(window, qtbot):
    window.show_page("model")

    def named(name):
        return lambda widget: widget.accessibleName() == name

    attention = _tab_to(qtbot, window, named("Attention"))
    qtbot.keyClick(attention, Qt.Key.Key_Down)
    assert window.document.value("model.attention") == "sdpa"
    more = _tab_to(qtbot, window, lambda w: getattr(w, "text", str)().startswith("More settings"))
    qtbot.keyClick(more, Qt.Key.Key_Space)
    _type_into(qtbot, _tab_to(qtbot, window, named("VAE scale")), "0.2")
    assert window.document.value("model.vae_scale") == 0.2
    window.show_page("output")
    qtbot.keyClick(_tab_to(qtbot, window, named("TensorBoard files")), Qt.Key.Key_Space)
    assert window.document.value("logging.tensorboard") is False


def test_saving_goes_by_keys(window, qtbot, tmp_path):
    target = tmp_path / "mine.json"
    window.dialogs.answers["save_path"] = target
    qtbot.keyClick(window, Qt.Key.Key_S, Qt.KeyboardModifier.ControlModifier)
    assert target.is_file()
