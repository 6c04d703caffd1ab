"""The window as a whole, with stand-ins for the engine and for the person answering questions."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest
from PySide6.QtCore import QEvent, QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QDropEvent
from PySide6.QtWidgets import QAbstractButton, QApplication, QDialog, QLabel, QWidget

from aozora.config.presets import shipped_presets
from aozora.errors import Problem
from aozora.events import (
    CheckpointSaved,
    MemorySampled,
    RunFinished,
    RunPlanned,
    RunStarted,
    StepCompleted,
)
from gui import theme
from gui.document import Document
from gui.engine.bodies import DemoJob
from gui.engine.figures import FigureKeeper, RunFigures
from gui.engine.host import EngineHost
from gui.engine.resume_wizard import ResumeWizard
from gui.engine.run_folders import RunFolder
from gui.engine.state_question import StateQuestion
from gui.engine.states import RunState, RunStatus
from gui.forms.editors import line_of
from gui.preferences import PreferenceKeeper
from gui.shell.checker import EngineQuestion, RunChecker
from gui.shell.crash import CrashCatcher, report_text, write_report_zip
from gui.shell.estimate import MEASURED_STEPS, Estimate, measured_facts
from gui.shell.page_list import entries, page_specs
from gui.shell.recovery import lost_run, recovery_words
from gui.shell.window import MainWindow
from gui.words import whole
from tests.gui.shell_fakes import FakeBody, FakeDialogs

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")

GIB = 2**30
PICTURE_FOLDERS = [{"path": "pictures"}]


def _event(cls, **values):
    """Return an event with something plain in every field that ``values`` leaves out."""
    plain = {"int": 1, "float": 1.0, "str": "", "bool": False}
    rest = {
        field.name: plain.get(str(field.type), [])
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING
    }
    return cls(**{**rest, **values})


def planned(total=4):
    return _event(RunPlanned, total_steps=total, start_step=0, buckets={"64x64": 3})


def step(number, total=4):
    return _event(StepCompleted, step=number, total_steps=total, timesteps=[3.0], loss=0.5, lr=1e-6)


class World:
    """A window and everything around it."""

    def __init__(self, tmp_path, events=()):
        self.bodies = []
        self.events = events
        self.dialogs = FakeDialogs()
        self.preferences = PreferenceKeeper(tmp_path / "window.json")
        self.document = Document()
        self.host = EngineHost(make_body=self._body)
        self.window = MainWindow(
            self.preferences, document=self.document, host=self.host, dialogs=self.dialogs
        )
        # What a child process would answer is the subject of other tests.
        self.window.checker.pause(True)

    def _body(self, job, mode):
        self.bodies.append(FakeBody(job, mode, self.events))
        return self.bodies[-1]

    def make_ready(self):
        self.document.set_values(
            {"model.base": "base.safetensors", "data.folders": PICTURE_FOLDERS}, "inputs"
        )


@pytest.fixture
def make_world(qtbot, qapp, tmp_path):
    theme.apply(qapp, "dark")
    worlds = []

    def make(events=()):
        world = World(tmp_path, events)
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        for body in world.bodies:
            body.over.set()
        world.host.wait(5)
        world.dialogs.answers.update(unsaved="discard", stopping="now")
        world.window.close()
        qapp.processEvents()
        world.window.deleteLater()
    qapp.sendPostedEvents(None, QEvent.Type.DeferredDelete)


@pytest.fixture
def world(make_world):
    world = make_world()
    world.window.show()
    world.window.show_page("start")
    return world


def test_a_window_that_nobody_sits_at_closes_without_a_question(world):
    world.make_ready()
    world.dialogs.answers["unsaved"] = "cancel"
    world.window.close()
    assert world.window.isVisible()
    world.window.close_unasked()
    assert not world.window.isVisible()
    assert [name for name, *_ in world.dialogs.asked] == ["unsaved"]


# Pages


def test_every_page_opens_and_is_marked_in_the_rail(world):
    for spec in page_specs():
        world.window.show_page(spec.key)
        assert world.window.pages.current == spec.key
        checked = [b for b in world.window.rail.findChildren(QAbstractButton) if b.isChecked()]
        assert [entry.spec.key for entry in checked] == [spec.key]


def test_pages_are_made_when_they_are_first_shown(make_world):
    world = make_world()
    assert not any(world.window.pages.has(spec.key) for spec in page_specs())
    world.window.show_page("model")
    assert [s.key for s in page_specs() if world.window.pages.has(s.key)] == ["model"]


def test_the_search_opens_when_it_is_wanted(world, qtbot):
    window = world.window
    window.show()
    window.activateWindow()
    search = window.top.search
    for reason in (Qt.FocusReason.TabFocusReason, Qt.FocusReason.OtherFocusReason):
        window.pages.setFocus()
        search.setFocus(reason)
        assert search.hasFocus()
        assert search.found() == []
        # What was found before is not taken by accident.
        qtbot.keyClick(search, Qt.Key.Key_Return)
        assert search.hasFocus()
    qtbot.keyClick(search, Qt.Key.Key_Down)
    assert search.found()
    window.pages.setFocus()
    assert search.found() == []
    qtbot.keyClick(window, Qt.Key.Key_K, Qt.KeyboardModifier.ControlModifier)
    assert search.found()


def test_every_setting_is_reached_by_the_search(world, qtbot):
    qtbot.waitUntil(world.window.isActiveWindow)
    lost = []
    for entry in entries():
        if not entry.path:
            continue
        parent = entry.path.rpartition(".")[0]
        if entry.kind and world.document.value(parent)["kind"] != entry.kind:
            world.document.set_values({f"{parent}.kind": entry.kind}, "kind")
        is_found = world.window.go_to(entry.path)
        focus = QApplication.focusWidget()
        is_there = focus is not None and world.window.pages.currentWidget().isAncestorOf(focus)
        if not (is_found and is_there and world.window.pages.current == entry.page):
            lost.append(f"{entry.path} {entry.kind}")
    assert lost == []


def test_the_keyboard_finds_a_setting_and_changes_it(world, qtbot):
    window = world.window
    qtbot.waitUntil(window.isActiveWindow)
    qtbot.keyClick(window, Qt.Key.Key_K, Qt.KeyboardModifier.ControlModifier)
    assert window.top.search.hasFocus()
    qtbot.keyClicks(window.top.search, "weight decay")
    assert window.top.search.found()[0].path == "optimizer.weight_decay"
    qtbot.keyClick(window.top.search, Qt.Key.Key_Return)
    field = QApplication.focusWidget()
    assert field.property("setting_path") == "optimizer.weight_decay"
    field.selectAll()
    qtbot.keyClicks(field, "0.02")
    qtbot.keyClick(field, Qt.Key.Key_Return)
    assert world.document.value("optimizer.weight_decay") == 0.02
    assert window.help.path == "optimizer.weight_decay"
    qtbot.keyClick(field, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert world.document.value("optimizer.weight_decay") == 0.01
    qtbot.keyClick(field, Qt.Key.Key_Y, Qt.KeyboardModifier.ControlModifier)
    assert world.document.value("optimizer.weight_decay") == 0.02


def test_numbers_with_ctrl_choose_pages(world, qtbot):
    qtbot.waitUntil(world.window.isActiveWindow)
    qtbot.keyClick(world.window, Qt.Key.Key_3, Qt.KeyboardModifier.ControlModifier)
    assert world.window.pages.current == "data"


def test_the_help_panel_explains_the_field_with_the_focus(world, qtbot):
    world.window.show_page("optimizer")
    row = world.window.pages.page("optimizer").reveal("training.batch_size")
    qtbot.waitUntil(world.window.isActiveWindow)
    row.editor.setFocus()
    assert world.window.help.path == "training.batch_size"
    assert world.window.help.isVisible()
    world.window.toggle_help()
    assert world.window.help.isHidden()
    assert not world.preferences.now.is_help_open


def test_a_narrow_window_has_a_narrow_rail_and_no_help(world, qtbot):
    world.window.resize(1024, 700)
    qtbot.waitUntil(lambda: world.window.rail.width() < 60)
    assert world.window.help.isHidden()
    world.window.resize(1440, 900)
    qtbot.waitUntil(lambda: world.window.rail.width() > 150)
    assert world.window.help.isVisible()


# Looks


@pytest.mark.parametrize("name", ["dark", "light", "contrast"])
def test_a_theme_reaches_everything_that_is_shown(world, qapp, name):
    world.window.show_page("optimizer")
    world.preferences.change(theme="light" if name == "dark" else "dark")
    world.preferences.change(theme=name)
    qapp.processEvents()
    picture = world.window.grab().toImage()
    ground = theme.THEMES[name].window
    # Between rail entries, below the form, and in the help panel.
    width, height = world.window.width(), world.window.height()
    for x, y in ((150, height // 2), (width - 20, height // 2), (width // 3, 20)):
        assert picture.pixelColor(x, y).name() == ground, (x, y)


def test_the_theme_follows_the_computer_only_when_asked_to(world, monkeypatch):
    monkeypatch.setattr(
        "gui.theme.resolved", lambda setting: "light" if setting == "system" else setting
    )
    world.preferences.change(theme="dark")
    QApplication.styleHints().colorSchemeChanged.emit(Qt.ColorScheme.Light)
    assert theme.tokens().name == "dark"
    world.preferences.change(theme="system")
    assert theme.tokens().name == "light"


def test_nothing_that_takes_the_focus_is_without_a_name(world):
    for spec in page_specs():
        world.window.show_page(spec.key)
    nameless = set()
    for widget in world.window.findChildren(QWidget):
        takes_focus = widget.focusPolicy() & Qt.FocusPolicy.TabFocus
        # The list that a drop-down opens is a window of its own, named by the drop-down.
        is_popup = widget.window() is not world.window
        if not takes_focus or is_popup or widget.isHidden() or widget.focusProxy() is not None:
            continue
        text = getattr(widget, "text", None)
        name = widget.accessibleName() or (text() if callable(text) else "")
        if not name and not _is_inside_a_named_one(widget):
            nameless.add(f"{_owner(widget)}: {type(widget).__name__} {widget.objectName()}")
    assert not nameless, sorted(nameless)


def _is_inside_a_named_one(widget):
    """Return whether ``widget`` is a part Qt itself made, such as the line of a spin box."""
    parent = widget.parentWidget()
    return widget.objectName().startswith("qt_") or (
        parent is not None and bool(parent.accessibleName())
    )


def _owner(widget):
    while widget is not None and not type(widget).__module__.startswith("gui."):
        widget = widget.parentWidget()
    return f"{type(widget).__module__}.{type(widget).__name__}"


# Files


def test_saving_asks_for_a_place_once(world, tmp_path):
    target = tmp_path / "mine.json"
    world.dialogs.answers["save_path"] = target
    world.document.set_values({"training.steps": 5}, "steps")
    assert "*" in world.window.windowTitle()
    assert world.window.files.save()
    assert world.window.files.save()
    assert [asked[0] for asked in world.dialogs.asked] == ["save_path"]
    assert json.loads(target.read_text(encoding="utf-8"))["training"]["steps"] == 5
    assert world.window.windowTitle() == "mine - Aozora"
    assert world.preferences.now.recent == (str(target),)


@pytest.mark.parametrize(
    ("answer", "steps"), [("cancel", 5), ("discard", 7), ("save", 7)], ids=lambda v: str(v)
)
def test_unsaved_changes_are_asked_about_before_a_file_is_opened(world, tmp_path, answer, steps):
    other = tmp_path / "other.json"
    other.write_text('{"training": {"steps": 7}}', encoding="utf-8")
    mine = tmp_path / "mine.json"
    world.dialogs.answers.update(unsaved=answer, save_path=mine)
    world.document.set_values({"training.steps": 5}, "steps")
    world.window.intake.take(other)
    assert world.document.value("training.steps") == steps
    assert mine.exists() == (answer == "save")


def test_a_file_that_cannot_be_opened_says_so_and_changes_nothing(world, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text("{", encoding="utf-8")
    assert not world.window.files.open(bad)
    ((kind, _, text, _),) = world.dialogs.asked
    assert kind == "tell"
    assert "bad.json" in text
    assert not world.document.is_dirty


def test_unsaved_changes_survive_a_crash(make_world):
    first = make_world()
    first.document.set_values({"training.steps": 5}, "steps")
    first.window.files.autosave()
    second = make_world()
    assert second.window.files.restore()
    assert second.document.value("training.steps") == 5
    assert second.document.is_dirty
    assert "back" in second.window.notices.about_session.words


_NO_COPIES = {
    "no JSON": b"{",
    "no text": b"\xff\xff",
    "another shape": b'{"settings": 3}',
    "too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", _NO_COPIES.values(), ids=_NO_COPIES)
def test_a_broken_working_copy_is_set_aside_and_told_of(make_world, qtbot, content):
    world = make_world()
    files = world.window.files
    files.working_copy.write_bytes(content)
    assert not files.restore()
    assert world.document.overlay() == {}
    assert not files.working_copy.exists()
    aside = files.working_copy.with_name("working-copy-broken.json")
    assert aside.read_bytes() == content
    assert not world.dialogs.asked, "the window is not shown yet"
    qtbot.waitUntil(lambda: bool(world.dialogs.asked))
    ((kind, _, text, detail),) = world.dialogs.asked
    assert kind == "tell"
    assert "last session" in text
    assert str(aside) in detail
    assert not files.restore(), "the next start finds nothing"


def test_a_working_copy_that_cannot_be_shown_is_set_aside_too(make_world, qtbot, monkeypatch):
    world = make_world()
    files = world.window.files
    world.document.set_values({"training.steps": 5}, "steps")
    files.autosave()

    def fail(old, new):
        raise TypeError("unhashable type")

    second = make_world()
    monkeypatch.setattr("gui.document.changed_paths", fail)
    assert not second.window.files.restore()
    monkeypatch.undo()
    assert second.document.overlay() == {}
    second.window.files.autosave()
    aside = json.loads(files.working_copy.with_name("working-copy-broken.json").read_bytes())
    assert aside["settings"] == {"training": {"steps": 5}}
    qtbot.waitUntil(lambda: bool(second.dialogs.asked))


def test_a_working_copy_that_cannot_be_set_aside_does_not_keep_the_window_shut(
    make_world, qtbot, monkeypatch
):
    world = make_world()
    world.window.files.working_copy.write_text("{", encoding="utf-8")

    def refuse(path, target):
        raise PermissionError(13, "The process cannot access the file")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        assert not world.window.files.restore()
    qtbot.waitUntil(lambda: bool(world.dialogs.asked))
    assert "cannot access" in world.dialogs.asked[0][-1]


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": {"kind": ["raven"]}},
        {"loss": {"weighting": {"kind": {}}}},
        {"targets": {"layers": ["all"]}},
        {"targets": {"layers": {}}},
    ],
    ids=repr,
)
def test_a_malformed_configuration_is_shown_and_comes_back(make_world, tmp_path, settings):
    first = make_world()
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(settings), encoding="utf-8")
    assert first.window.files.open(bad)
    for spec in page_specs():
        first.window.show_page(spec.key)
    assert first.document.problems()
    first.window.files.autosave()
    second = make_world()
    assert second.window.files.restore()
    assert second.document.overlay() == settings
    second.window.show_page("layers")
    assert second.window.pages.page("layers").choice().layers == "all"


def test_discarded_changes_do_not_come_back(make_world, tmp_path):
    first = make_world()
    first.dialogs.answers.update(unsaved="discard", save_path=tmp_path / "mine.json")
    first.document.set_values({"training.steps": 5}, "steps")
    first.window.files.save()
    first.document.set_values({"training.steps": 6}, "steps")
    first.window.files.autosave()
    assert first.window.close()
    second = make_world()
    assert second.window.files.restore()
    assert second.document.value("training.steps") == 5
    assert not second.document.is_dirty


def test_closing_can_be_called_off(world):
    world.document.set_values({"training.steps": 5}, "steps")
    assert not world.window.close()
    assert world.dialogs.asked == [("unsaved", "untitled")]


def _drop(window, *paths):
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    window.dropEvent(
        QDropEvent(
            QPointF(4, 4),
            Qt.DropAction.CopyAction,
            data,
            Qt.MouseButton.LeftButton,
            Qt.KeyboardModifier.NoModifier,
            QEvent.Type.Drop,
        )
    )


def test_a_model_and_folders_can_be_dropped_anywhere(world, tmp_path):
    model, pictures = tmp_path / "m.safetensors", tmp_path / "pictures"
    model.write_bytes(b"")
    pictures.mkdir()
    _drop(world.window, model, pictures, pictures)
    assert world.document.value("model.base") == str(model)
    assert [f["path"] for f in world.document.value("data.folders")] == [str(pictures)]
    assert world.document.problems() == ()
    (tmp_path / "x.txt").write_text("")
    _drop(world.window, tmp_path / "x.txt")
    assert world.dialogs.asked[-1][0] == "tell"


@pytest.mark.parametrize("folders", [5, None, "pictures", [7, {"repeats": 2}]], ids=repr)
def test_a_folder_is_dropped_where_the_list_is_malformed(world, qtbot, tmp_path, folders):
    world.document.set_values({"data.folders": folders}, "malformed")
    (tmp_path / "pictures").mkdir()
    with qtbot.captureExceptions() as faults:
        _drop(world.window, tmp_path / "pictures", tmp_path / "pictures")
    assert not faults
    kept = folders if isinstance(folders, list) else []
    set_now = world.document.overlay()["data"]["folders"]
    assert set_now == [*kept, {"path": str(tmp_path / "pictures")}]


# Preset to Train


def test_preset_model_pictures_train_are_four_actions(make_world, qtbot, tmp_path):
    world = make_world([RunStarted(run_id="r", folder=str(tmp_path)), planned()])
    window = world.window
    window.show()
    window.show_page("start")
    start = window.pages.page("start")
    card = next(c for c in start.presets.cards if c.preset.name == "smoke-test")
    qtbot.mouseClick(card, Qt.MouseButton.LeftButton)
    (tmp_path / "m.safetensors").write_bytes(b"")
    (tmp_path / "pictures").mkdir()
    _drop(window, tmp_path / "m.safetensors")
    _drop(window, tmp_path / "pictures")
    qtbot.mouseClick(window.bar.train, Qt.MouseButton.LeftButton)
    (body,) = world.bodies
    assert body.job.config["training"]["steps"] == 20
    assert body.job.config["model"]["base"] == str(tmp_path / "m.safetensors")
    assert window.pages.current == "run"
    qtbot.waitUntil(lambda: world.host.status.total_steps == 4)
    assert window.bar.train.isHidden()
    assert window.bar.stop.isVisible()


def test_train_cannot_be_pressed_while_there_are_problems(world, qtbot):
    qtbot.waitUntil(world.window.isActiveWindow)
    assert not world.window.bar.train.isEnabled()
    assert world.window.bar.chip.chip.text == "2 problems"
    qtbot.keyClick(world.window, Qt.Key.Key_F5)
    assert world.bodies == []
    assert world.window.preflight.isVisible(), "the key says why nothing starts"
    world.make_ready()
    assert world.window.bar.train.isEnabled()


def test_problems_lead_to_their_fields(world, qtbot):
    qtbot.waitUntil(world.window.isActiveWindow)
    qtbot.mouseClick(world.window.bar.chip, Qt.MouseButton.LeftButton)
    preflight = world.window.preflight
    assert preflight.isVisible()
    buttons = [b for b in preflight.findChildren(QAbstractButton) if b.text() == "Go to"]
    assert [b.property("problem_path") for b in buttons] == ["model.base", "data.folders"]
    qtbot.mouseClick(buttons[0], Qt.MouseButton.LeftButton)
    assert world.window.pages.current == "model"
    assert preflight.isHidden()
    row = world.window.pages.page("model").reveal("model.base")
    assert line_of(row.editor).hasFocus()


def test_the_rail_counts_problems_of_each_page(world):
    counts = {
        entry.spec.key: entry._problems
        for entry in world.window.rail.findChildren(QAbstractButton)
        if entry._problems
    }
    assert counts == {"model": 1, "data": 1}


# The run


def test_a_new_window_can_try_the_demo(world, qtbot, tmp_path):
    assert world.host.status.problems == 2
    world.window.show_page("start")
    world.window.pages.page("start").demo_asked.emit(tmp_path)
    (body,) = world.bodies
    assert body.job == DemoJob(folder=str(tmp_path))
    assert world.dialogs.asked == []
    assert world.window.pages.current == "run"
    world.window.desk.start_demo(tmp_path)
    assert world.dialogs.asked[-1][1:3] == (
        "The trial cannot start now",
        "A run is going on. Stop it first.",
    )
    body.over.set()
    qtbot.waitUntil(lambda: not world.host.status.is_engine_alive)
    assert not world.window.bar.train.isEnabled(), "the document is as faulty as before"


def test_a_new_window_resumes_with_the_settings_of_a_state(world, tmp_path, monkeypatch):
    def accept(wizard):
        monkeypatch.setattr(wizard, "settings", lambda: {"schema": 1, "training": {"steps": 9}})
        return QDialog.DialogCode.Accepted

    monkeypatch.setattr(StateQuestion, "ask", lambda self, path: None)
    monkeypatch.setattr(ResumeWizard, "exec", accept)
    world.window.links.resume_from(tmp_path / "s.pt")
    (body,) = world.bodies
    assert body.job.config["training"]["steps"] == 9
    assert body.job.resume == str(tmp_path / "s.pt")
    assert world.host.status.state is RunState.PREPARING
    world.window.links.resume_from(tmp_path / "s.pt")
    assert len(world.bodies) == 1
    assert world.dialogs.asked[-1][1:3] == (
        "The run cannot be resumed now",
        "A run is going on. Stop it first.",
    )


def test_a_run_goes_from_train_to_finished(make_world, qtbot, tmp_path):
    started = RunStarted(run_id="r", folder=str(tmp_path))
    events = [started, planned(), *(step(n) for n in range(1, 5))]
    end = RunFinished(reason="completed", step=4, skipped_steps=0, seconds=1.0)
    world = make_world([*events, end])
    world.window.show()
    world.window.show_page("schedule")
    world.make_ready()
    qtbot.mouseClick(world.window.bar.train, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: world.host.status.state is RunState.FINISHED)
    world.bodies[0].over.set()
    qtbot.waitUntil(lambda: not world.host.status.is_engine_alive)
    assert world.window.bar.chip.chip.text == "Finished"
    assert "step 4 / 4" in world.window.bar.progress_text.text()
    assert world.window.bar.train.isEnabled()
    assert world.window.bar.stop.isHidden()


@pytest.mark.parametrize(
    ("answer", "command"), [("save", ["stop_and_save"]), ("now", ["stop"]), ("keep", [])]
)
def test_stop_asks_how(make_world, qtbot, tmp_path, answer, command):
    world = make_world([RunStarted(run_id="r", folder=str(tmp_path)), planned(), step(1), step(2)])
    world.window.show()
    world.make_ready()
    world.window.desk.train()
    qtbot.waitUntil(lambda: world.host.status.step == 2)
    world.dialogs.answers["stopping"] = answer
    world.window.desk.stop()
    assert world.dialogs.asked == [("stopping", 2, False)]
    assert world.bodies[0].commands == command


def test_closing_while_training_saves_first_and_closes_then(make_world, qtbot, tmp_path):
    world = make_world([RunStarted(run_id="r", folder=str(tmp_path)), planned(), step(1)])
    world.window.show()
    world.make_ready()
    world.window.desk.train()
    qtbot.waitUntil(lambda: world.host.status.step == 1)
    world.dialogs.answers.update(stopping="keep", unsaved="discard")
    assert not world.window.close()
    assert world.bodies[0].commands == []
    world.dialogs.answers["stopping"] = "save"
    assert not world.window.close()
    assert world.bodies[0].commands == ["stop_and_save"]
    qtbot.waitUntil(lambda: not world.window.isVisible())


def _running(make_world, qtbot, tmp_path, *, is_saved=True):
    """Return a world whose run has begun."""
    world = make_world([RunStarted(run_id="r", folder=str(tmp_path)), planned(), step(1)])
    world.window.show()
    world.make_ready()
    if is_saved:
        world.document.save(tmp_path / "mine.json")
    world.window.desk.train()
    qtbot.waitUntil(lambda: world.host.status.step == 1)
    return world


def _ends_meanwhile(world, qtbot, name, answer):
    """Let the engine end while the question ``name`` is open, then give ``answer``."""

    def ask(*details, **more):
        world.dialogs.asked.append((name, *details))
        world.bodies[-1].over.set()
        qtbot.waitUntil(lambda: not world.host.status.is_engine_alive)
        assert world.window.isVisible(), "not from under the question"
        return answer

    setattr(world.dialogs, name, ask)


@pytest.mark.parametrize(("answer", "closes"), [("save", True), ("now", True), ("keep", False)])
def test_a_run_that_ends_while_closing_is_asked_about(make_world, qtbot, tmp_path, answer, closes):
    world = _running(make_world, qtbot, tmp_path)
    _ends_meanwhile(world, qtbot, "stopping", answer)
    assert world.window.close() == closes
    assert [name for name, *_ in world.dialogs.asked] == ["stopping"]


def test_a_window_that_was_not_closed_after_a_run_does_not_close_by_itself(
    make_world, qtbot, tmp_path
):
    world = _running(make_world, qtbot, tmp_path, is_saved=False)
    world.dialogs.answers["unsaved"] = "cancel"
    _ends_meanwhile(world, qtbot, "stopping", "save")
    assert not world.window.close()
    assert [name for name, *_ in world.dialogs.asked] == ["stopping", "unsaved"]
    world.window.desk.train()
    world.bodies[-1].over.set()
    qtbot.waitUntil(lambda: not world.host.status.is_engine_alive)
    assert [name for name, *_ in world.dialogs.asked] == ["stopping", "unsaved"]
    assert world.window.isVisible()


@pytest.mark.parametrize("is_forced", [True, False])
def test_a_run_that_ends_while_force_is_offered_closes_the_window_once(
    make_world, qtbot, tmp_path, is_forced, monkeypatch
):
    world = _running(make_world, qtbot, tmp_path, is_saved=False)
    monkeypatch.setattr(world.bodies[0], "send", lambda command: None)
    world.dialogs.answers.update(stopping="save", unsaved="discard")
    assert not world.window.close()
    assert world.window.isVisible()
    _ends_meanwhile(world, qtbot, "confirm", is_forced)
    assert world.window.close()
    assert [name for name, *_ in world.dialogs.asked] == ["stopping", "confirm", "unsaved"]


def test_a_window_that_is_kept_after_all_does_not_close_with_the_run(
    make_world, qtbot, tmp_path, monkeypatch
):
    world = _running(make_world, qtbot, tmp_path)
    monkeypatch.setattr(world.bodies[0], "send", lambda command: None)
    monkeypatch.setattr(world.bodies[0], "can_kill", False)
    world.dialogs.answers["stopping"] = "save"
    assert not world.window.close()
    world.dialogs.answers["stopping"] = "keep"
    assert not world.window.close()
    world.bodies[0].over.set()
    qtbot.waitUntil(lambda: not world.host.status.is_engine_alive)
    assert world.window.isVisible()


def test_setup_pages_say_that_a_run_has_its_own_snapshot(make_world, qtbot, tmp_path):
    world = make_world([RunStarted(run_id="r", folder=str(tmp_path)), planned()])
    world.window.show()
    world.make_ready()
    world.window.desk.train()
    assert world.window.notices.about_run.isHidden()
    world.window.show_page("model")
    assert world.window.notices.about_run.isVisible()
    assert "own snapshot" in world.window.notices.about_run.words
    world.bodies[0].over.set()
    qtbot.waitUntil(lambda: not world.host.status.is_active)
    assert world.window.notices.about_run.isHidden()


def test_the_engine_host_follows_the_preference(world):
    world.preferences.change(engine_host="thread")
    assert world.host.mode == "thread"


def test_starting_remembers_where_runs_are(make_world, tmp_path):
    world = make_world()
    world.window.show()
    world.make_ready()
    world.document.set_values({"output.folder": str(tmp_path / "out")}, "folder")
    world.window.desk.train()
    assert world.preferences.now.seen_runs == (str(tmp_path / "out"),)


def _run(name, **values):
    plain = {"run_id": name, "name": name, "outcome": "finished", "started": 0.0, "last_sign": 0.0}
    return RunFolder(path=Path("runs", name), **{**plain, **values})


def test_only_the_newest_run_is_told_of_and_only_if_it_died():
    died = _run("b", outcome="died", started=2.0, step=7, state="b.pt", state_step=5)
    assert lost_run([_run("a"), died], []) is died
    assert lost_run([_run("c", started=3.0), died], []) is None
    assert lost_run([died], ["b"]) is None
    assert lost_run([], []) is None
    assert recovery_words(died) == "b ended unexpectedly at step 7. Its last state is of step 5."


def test_a_run_that_died_is_offered_once(world, qtbot, tmp_path):
    folder = tmp_path / "runs" / "lost-1"
    folder.mkdir(parents=True)
    facts = {"run_id": "r", "name": "lost", "started": "2026-01-02T03:04:05+0000", "process": 1}
    (folder / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    (folder / "events.jsonl").write_text("", encoding="utf-8")
    with qtbot.waitSignal(world.window.notices.recovery.found):
        world.window.notices.recovery.look([str(tmp_path)], [])
    assert "lost ended unexpectedly" in world.window.notices.about_session.words
    qtbot.mouseClick(world.window.notices.about_session.close_button, Qt.MouseButton.LeftButton)
    assert world.window.notices.about_session.isHidden()
    assert world.preferences.now.dismissed == ("lost-1",)


def test_the_rest_of_a_stopped_run_can_be_planned(make_world, qtbot, tmp_path):
    saved = _event(CheckpointSaved, step=2, state="m2.pt")
    end = RunFinished(reason="stopped", step=2, skipped_steps=0, seconds=1.0, state="m2.pt")
    steps = [_event(StepCompleted, step=n, total_steps=4, lr=n * 1e-7, loss=0.5) for n in (1, 2)]
    started = RunStarted(run_id="r", folder=str(tmp_path))
    world = make_world([started, planned(), *steps, saved, end])
    world.window.show()
    world.make_ready()
    world.window.show_page("schedule")
    page = world.window.pages.page("schedule")
    told = []
    page.editor.set_resume = lambda *what: told.append(what)
    world.window.desk.train()
    qtbot.waitUntil(lambda: world.host.status.state is RunState.STOPPED)
    assert page.rest.isHidden()
    world.bodies[0].over.set()
    qtbot.waitUntil(lambda: not page.rest.isHidden())
    assert told[-1] == (None, 0.0)
    page.rest.click()
    assert told[-1] == (2, pytest.approx(2e-7))
    world.window.desk.train()
    assert page.rest.isHidden()
    assert told[-1] == (None, 0.0)


def test_setup_pages_show_what_the_run_has_applied(make_world, qtbot, tmp_path):
    plan = dataclasses.replace(planned(), ticket_counts=[5] * 20)
    events = [RunStarted(run_id="r", folder=str(tmp_path)), plan]
    steps = [_event(StepCompleted, step=n, total_steps=4, lr=n * 1e-7, loss=0.5) for n in (1, 2)]
    steps = [dataclasses.replace(s, tickets=[30], sample_losses=[0.25]) for s in steps]
    world = make_world([*events, *steps])
    world.window.show()
    world.make_ready()
    world.window.show_page("schedule")
    world.window.show_page("timesteps")
    applied, drawn = [], []
    world.window.pages.page("schedule").show_applied = lambda *what: applied.append(what)
    world.window.pages.page("timesteps").show_progress = lambda *what: drawn.append(what)
    world.window.desk.train()
    qtbot.waitUntil(lambda: world.host.status.step == 2)
    world.window.show_page("schedule")
    steps, rates, total = applied[-1]
    assert (steps, total) == ([1, 2], 4)
    assert rates == pytest.approx([1e-7, 2e-7])
    world.window.show_page("timesteps")
    (bars,) = drawn[-1]
    assert bars.planned == (5,) * 20
    assert bars.drawn == (2,) + (0,) * 19
    assert bars.losses[0] == 0.25


# The check


def test_the_check_answers_from_a_child_process(qapp, qtbot, tmp_path):
    document = Document()
    checker = RunChecker(document)
    assert not checker.is_checking, "a document with problems is not worth asking about"
    document.set_values(
        {"model.base": str(tmp_path / "none"), "data.folders": [{"path": str(tmp_path)}]}, "inputs"
    )
    qtbot.waitUntil(lambda: checker.estimate is not None, timeout=60_000)
    estimate = checker.estimate
    assert estimate.failure == ""
    assert {problem.path for problem in estimate.problems} >= {"model.base"}
    document.set_values({"training.steps": 3}, "steps")
    assert checker.estimate is None, "an answer is for the settings it was asked about"
    checker.stop()


def test_after_a_run_the_check_is_asked_again_for_what_was_measured(qapp, monkeypatch):
    checker = RunChecker(Document())
    monkeypatch.setattr(checker._document, "problems", tuple)
    checker._estimate = Estimate(summary={"total_steps": 3})
    checker.pause(False)
    assert checker.estimate is not None, "nothing has run"
    checker.pause(True)
    assert checker.estimate is not None
    assert not checker.is_checking
    checker.pause(False)
    assert checker.estimate is None
    assert checker.is_checking
    checker.stop()


def test_a_question_that_cannot_be_asked_is_answered_all_the_same(qapp, qtbot, monkeypatch):
    question = EngineQuestion()
    monkeypatch.setattr("gui.engine.program.engine_program", lambda: "no-such-program")
    with qtbot.waitSignal(question.answered) as answer:
        question.ask(["check"])
    assert answer.args[0] is None
    assert answer.args[1]


def test_what_the_check_found_keeps_train_from_being_pressed(world, monkeypatch):
    world.make_ready()
    found = Estimate(problems=(Problem("model.base", "is no model"),), summary={})
    world.window.checker._estimate = found
    world.window.checker.changed.emit()
    assert not world.window.bar.train.isEnabled()
    assert world.window.bar.chip.chip.text == "1 problem"


@pytest.mark.parametrize(
    "estimate",
    [None, Estimate(summary={}, failure="broken"), Estimate(summary={"total_steps": 3})],
    ids=["none", "failed", "ready"],
)
def test_the_preflight_panel_fits_what_it_says(world, estimate):
    panel = world.window.preflight
    panel.show()
    panel.show_for((), estimate, world.host.status, world.host.figures)
    panel.place_above(600, 10)
    assert panel.geometry().bottom() < 600
    assert panel.geometry().top() >= 0


def test_after_some_steps_a_run_is_told_by_its_own_measure():
    keeper = FigureKeeper()
    keeper.feed(RunStarted(run_id="r", folder=""))
    sizes = {"expected_device_bytes": 5 * GIB, "expected_reserved_bytes": 4 * GIB}
    keeper.feed(_event(RunPlanned, total_steps=1000, **sizes))

    def remember(reserved, rss):
        sizes = {"device_reserved": reserved, "device_total": 12 * GIB, "process_rss": rss}
        keeper.feed(_event(MemorySampled, **sizes))

    remember(8 * GIB, 30 * GIB)  # the encoders
    for number in range(1, MEASURED_STEPS + 1):
        assert measured_facts(keeper.figures) == []
        keeper.feed(_event(StepCompleted, step=number, total_steps=1000, seconds=3.6))
        remember((3 if number % 2 else 2) * GIB, (number % 5) * GIB)
    rows = dict(measured_facts(keeper.figures))
    assert rows["Graphics memory"] == "4.0 GiB measured"
    assert rows["Main memory"] == "4.0 GiB measured"
    assert rows["Time"] == f"1 h 0 m for {whole(1000)} steps at 3.60 s/it, measured"
    keeper.feed(RunStarted(run_id="next", folder=""))
    assert measured_facts(keeper.figures) == []


def test_while_a_run_goes_on_the_panel_tells_its_own_measure(world):
    panel = world.window.preflight
    going = RunStatus(state=RunState.TRAINING, step=40, total_steps=100)
    estimate = Estimate(summary={"total_steps": 3})

    def texts(figures):
        panel.show_for((), estimate, going, figures)
        return " ".join(label.text() for label in panel.findChildren(QLabel))

    assert "After 30 steps" in texts(RunFigures(measured_steps=29, seconds_per_step=2.0))
    figures = RunFigures(
        measured_steps=40, seconds_per_step=2.0, total_steps=100, process_peak=2**30
    )
    words = texts(figures)
    assert "1.0 GiB measured" in words
    assert "Ready" not in words


def test_the_layers_page_follows_the_check(world):
    world.window.show_page("layers")
    page = world.window.pages.page("layers")
    assert page.costs.note.text()
    memory = {"ram_range": [2**30, 2**31], "step_seconds_range": [1.0, 2.0]}
    world.window.checker._estimate = Estimate(summary={"total_steps": 3, "memory": memory})
    world.window.checker.changed.emit()
    assert page.costs.note.text() == ""
    assert [name for name, _ in page.costs.rows] == ["Main memory", "A step"]
    world.make_ready()
    assert page.costs.is_old
    assert page.costs.note.text()


def test_the_timesteps_page_shows_what_the_check_found_out(world):
    world.window.show_page("timesteps")
    view = world.window.pages.page("timesteps").editor.view
    assert view.shifted() is None
    summary = {"prediction": "flow", "prediction_options": {"shift": 2.0}}
    world.window.checker._estimate = Estimate(summary=summary)
    world.window.checker.changed.emit()
    editor = world.window.pages.page("timesteps").editor
    assert editor.view.shifts == {2.0: 1.0}
    # A change is checked anew; until then what was found out stays.
    world.window.document.set_values({"timesteps.maximum": 900}, "x")
    assert editor.view.shifts == {2.0: 1.0}


# Faults of the program


def test_a_fault_in_any_thread_is_shown_once_with_its_story(qapp, qtbot, monkeypatch, tmp_path):
    shown = []

    class Dialog:
        def __init__(self, text, config, parent):
            shown.append(text)

        def exec(self):
            return 0

    monkeypatch.setattr("gui.shell.crash.CrashDialog", Dialog)
    monkeypatch.setattr(sys, "__excepthook__", lambda *details: None)
    catcher = CrashCatcher()
    try:
        print(1 / len(shown))
    except ZeroDivisionError as error:
        catcher._take(type(error), error, error.__traceback__)
    qtbot.waitUntil(lambda: len(shown) == 1)
    assert "ZeroDivisionError" in shown[0]
    assert "Aozora 0" in shown[0]
    target = tmp_path / "report.zip"
    write_report_zip(target, report_text("trace"), "{}")
    assert target.stat().st_size > 100


# Presets


def test_a_broken_preset_of_the_user_spoils_no_other(qapp, tmp_path):
    from aozora.runtime import config_folder
    from gui.pages.start import all_presets

    folder = config_folder() / "presets"
    folder.mkdir(parents=True)
    (folder / "broken.json").write_text("{", encoding="utf-8")
    about = {"title": "Mine", "description": "d"}
    (folder / "mine.json").write_text(json.dumps({"about": about}), encoding="utf-8")
    found = all_presets()
    assert [p.name for p in found.presets] == ["mine", *shipped_presets()]
    assert len(found.faults) == 1
    assert "broken.json" in found.faults[0]


def test_one_window_takes_what_a_second_start_was_given(qapp, qtbot, tmp_path):
    from gui.shell.single import SingleWindow, hand_over

    assert not hand_over([])
    single = SingleWindow()
    got = []
    single.asked.connect(got.append)
    assert hand_over([tmp_path / "a b.json"])
    qtbot.waitUntil(lambda: bool(got))
    assert got == [[tmp_path / "a b.json"]]
    single.close()
