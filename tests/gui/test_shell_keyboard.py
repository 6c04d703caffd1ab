"""The way from an empty window to a run, with the keyboard alone."""

from __future__ import annotations

import json

import pytest
from PySide6.QtCore import QEvent, Qt
from PySide6.QtWidgets import QApplication, QLineEdit, QToolButton

from aozora.config.lr_schedule import LrSchedule
from aozora.events import RunStarted
from gui import theme
from gui.editors.lr_table import RATE
from gui.engine import resume_wizard
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


# What is still being typed

_CTRL = Qt.KeyboardModifier.ControlModifier


def _field_of(window, path):
    """Go to the setting at ``path`` and return its field, which has the focus."""
    assert window.go_to(path)
    field = QApplication.focusWidget()
    field.selectAll()
    return field


@pytest.fixture
def ready(window, tmp_path):
    """A window whose document is saved and could be trained."""
    inputs = {"model.base": "b", "data.folders": [{"path": str(tmp_path)}]}
    window.document.set_values(inputs, "inputs")
    window.document.save(tmp_path / "mine.json")
    return window


def _resume_last(window, field, qtbot):
    window.bar.resume_last_asked.emit()


@pytest.mark.parametrize(
    "start", [lambda window, field, qtbot: qtbot.keyClick(field, Qt.Key.Key_F5), _resume_last]
)
def test_what_is_being_typed_is_trained(ready, qtbot, bodies, start):
    field = _field_of(ready, "training.steps")
    qtbot.keyClicks(field, "777")
    start(ready, field, qtbot)
    (body,) = bodies
    assert body.job.config["training"]["steps"] == 777


def test_what_is_being_typed_stands_in_the_choices_of_a_resume(ready, qtbot, tmp_path, monkeypatch):
    seen = []

    class Wizard(resume_wizard.ResumeWizard):
        def exec(self):
            seen.append(self._document.value("training.steps"))
            return 0

    monkeypatch.setattr(resume_wizard.StateQuestion, "ask", lambda self, path: None)
    monkeypatch.setattr(resume_wizard, "ResumeWizard", Wizard)
    qtbot.keyClicks(_field_of(ready, "training.steps"), "777")
    ready.links.resume_from(tmp_path / "s.pt")
    assert seen == [777]


def _save_by_key(window, field, qtbot):
    qtbot.keyClick(field, Qt.Key.Key_S, _CTRL)


def _save_by_button(window, field, qtbot):
    buttons = window.top.findChildren(QToolButton)
    save = next(b for b in buttons if b.accessibleName().startswith("Save") and b.isVisible())
    qtbot.mouseClick(save, Qt.MouseButton.LeftButton)


def _save_elsewhere(window, field, qtbot):
    window.dialogs.answers["save_path"] = window.document.origin.path
    qtbot.keyClick(field, Qt.Key.Key_S, _CTRL | Qt.KeyboardModifier.ShiftModifier)


@pytest.mark.parametrize("save", [_save_by_key, _save_by_button, _save_elsewhere])
def test_what_is_being_typed_is_saved_and_the_field_keeps_the_focus(ready, qtbot, save):
    field = _field_of(ready, "training.steps")
    qtbot.keyClicks(field, "777")
    save(ready, field, qtbot)
    path = ready.document.origin.path
    assert json.loads(path.read_text(encoding="utf-8"))["training"]["steps"] == 777
    assert not ready.document.is_dirty
    assert field.hasFocus()
    qtbot.keyClicks(field, "8")
    assert field.text() == "7778", "typing goes on where it was"


def test_what_is_being_typed_is_asked_about_before_the_window_closes(ready, qtbot):
    ready.dialogs.answers["unsaved"] = "cancel"
    qtbot.keyClicks(_field_of(ready, "training.steps"), "777")
    assert not ready.close()
    assert ready.dialogs.asked == [("unsaved", "mine")]
    ready.dialogs.answers["unsaved"] = "discard"


def test_what_is_being_typed_is_asked_about_before_a_file_is_opened(ready, qtbot, tmp_path):
    other = tmp_path / "other.json"
    other.write_text('{"training": {"steps": 7}}', encoding="utf-8")
    ready.dialogs.answers["unsaved"] = "cancel"
    qtbot.keyClicks(_field_of(ready, "training.steps"), "777")
    assert not ready.files.open(other)
    assert ready.document.value("training.steps") == 777
    ready.dialogs.answers["unsaved"] = "discard"


def test_what_cannot_be_taken_is_marked_as_when_the_field_is_left(ready, qtbot):
    field = _field_of(ready, "training.steps")
    qtbot.keyClicks(field, "0")
    qtbot.keyClick(field, Qt.Key.Key_S, _CTRL)
    assert field.property("invalid") == "true"
    assert field.text() == "0"
    assert field.hasFocus()
    assert ready.document.value("training.steps") == 2000


def test_texts_that_are_being_typed_are_saved_and_go_on_where_they_were(ready, qtbot):
    field = _field_of(ready, "targets.include")
    qtbot.keyClicks(field, "one")
    qtbot.keyClick(field, Qt.Key.Key_Return)
    qtbot.keyClick(field, Qt.Key.Key_S, _CTRL)
    assert ready.document.value("targets.include") == ["one"]
    qtbot.keyClicks(field, "two")
    qtbot.keyClick(field, Qt.Key.Key_S, _CTRL)
    assert ready.document.value("targets.include") == ["one", "two"]


def test_a_number_being_typed_in_a_table_is_saved_and_the_table_has_the_focus(ready, qtbot):
    ready.show_page("schedule")
    table = ready.pages.page("schedule").editor.table
    index = table.points.index(0, RATE)
    table.setFocus()
    table.setCurrentIndex(index)
    table.edit(index)
    field = table.viewport().findChild(QLineEdit)
    field.selectAll()
    qtbot.keyClicks(field, "3e-6")
    qtbot.keyClick(field, Qt.Key.Key_S, _CTRL)
    curve = LrSchedule.from_json(ready.document.value("schedule.learning_rate"))
    assert curve.points[0].lr == 3e-6
    assert not ready.document.is_dirty
    assert table.hasFocus()


def test_a_number_being_typed_over_a_chart_is_saved_and_the_chart_has_the_focus(ready, qtbot):
    ready.show_page("timesteps")
    chart = ready.pages.page("timesteps").editor.chart
    chart.setFocus()
    before = ready.document.value("timesteps")
    chart.edit_number(3, "2")
    qtbot.keyClick(QApplication.focusWidget(), Qt.Key.Key_S, _CTRL)
    assert ready.document.value("timesteps") != before
    assert not ready.document.is_dirty
    assert chart.hasFocus()


def test_a_click_on_a_chart_is_asked_about_before_the_window_closes(ready, qtbot):
    ready.show_page("timesteps")
    chart = ready.pages.page("timesteps").editor.chart
    place = chart.bar_position(3, chart.weights[3] / 2).toPoint()
    qtbot.mouseClick(chart, Qt.MouseButton.LeftButton, pos=place)
    assert not ready.document.is_dirty, "it may still become a double click"
    ready.dialogs.answers["unsaved"] = "cancel"
    assert not ready.close()
    assert ready.document.is_dirty
    ready.dialogs.answers["unsaved"] = "discard"


def test_a_chart_keeps_the_focus_and_its_choice(ready, qtbot):
    ready.show_page("schedule")
    chart = ready.pages.page("schedule").editor.chart
    chart.setFocus()
    chart.choose((1,))
    qtbot.keyClick(chart, Qt.Key.Key_S, _CTRL)
    assert chart.hasFocus()
    assert chart.chosen == (1,)
