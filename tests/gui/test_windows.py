"""What Windows needs of the window, shown with stand-ins for its functions."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import gui.__main__ as program
from gui.app import SessionEnd
from gui.engine import desktop_windows
from gui.engine.bodies import TrainJob
from gui.engine.inline import InlineEngine
from gui.engine.program import engine_command
from gui.forms.path_field import PathField, plain_path
from gui.forms.shapes import shape_of
from gui.preferences import preferences_path


@pytest.fixture
def windows(monkeypatch):
    """Return the functions of a Windows that is not there."""
    functions = SimpleNamespace(user32=SimpleNamespace(), shell32=SimpleNamespace())
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(program.ctypes, "windll", functions, raising=False)
    return functions


# The engine's command


@pytest.mark.parametrize(
    ("window", "engine"),
    [("pythonw.exe", "python.exe"), ("PythonW.EXE", "python.exe"), ("py", "py")],
)
def test_the_engine_runs_with_a_console_of_its_own(monkeypatch, window, engine):
    monkeypatch.setattr(sys, "executable", str(Path("scripts", window)))
    assert engine_command("aozora", "check") == [
        *(str(Path("scripts", engine)), "-P", "-m", "aozora", "check")
    ]


# The end of a session


class Session:
    def __init__(self, allows):
        self.allowsInteraction = lambda: allows
        self.calls = []
        self.cancel = lambda: self.calls.append("cancel")
        self.release = lambda: self.calls.append("release")


class Window(SessionEnd):
    """A session's end with a stand-in for the window."""

    def __init__(self, is_free):
        super().__init__(None)
        self.calls = []
        host = SimpleNamespace(
            status=SimpleNamespace(is_free=is_free),
            stop=lambda save: self.calls.append(("stop", save)),
            wait=lambda seconds: self.calls.append("wait"),
        )
        self._window = SimpleNamespace(host=host)

    def _close(self):
        self.calls.append("close")


@pytest.mark.parametrize(
    ("is_free", "allows", "told", "done"),
    [
        (True, True, [], []),
        (True, False, [], []),
        (False, True, ["cancel", "release"], ["close"]),
        (False, False, [], [("stop", True), "wait"]),
    ],
)
def test_the_end_of_a_session_loses_no_run(qtbot, is_free, allows, told, done):
    window, session = Window(is_free), Session(allows)
    window.begin(session)
    qtbot.waitUntil(lambda: window.calls == done)
    assert session.calls == told


# A window that cannot open


@pytest.mark.parametrize(
    ("error", "words"),
    [(OSError("c10.dll is gone"), "run setup again"), (KeyError("a bug"), "Traceback")],
)
def test_without_a_console_a_box_says_why_there_is_no_window(monkeypatch, windows, error, words):
    shown = []
    windows.user32.MessageBoxW = lambda owner, text, title, kind: shown.append((text, title))

    def fail(options):
        raise error

    monkeypatch.setattr(program, "_window", fail)
    monkeypatch.setattr(sys, "stderr", None)
    try:
        assert program.main([]) == 3
    except KeyError:
        assert isinstance(error, KeyError)
    ((text, title),) = shown
    assert title == "Aozora"
    assert str(error) in text
    assert words in text


# The engine in the window's own process


@pytest.mark.parametrize(
    ("platform", "text", "wants"),
    [
        ("win32", '{"engine_host": "thread"}', True),
        ("win32", '{"engine_host": "process"}', False),
        ("linux", '{"engine_host": "thread"}', False),
        ("win32", "[]", False),
        ("win32", "{", False),
        ("win32", None, False),
    ],
)
def test_torch_is_loaded_before_qt_where_a_thread_will_need_it(
    monkeypatch, tmp_path, platform, text, wants
):
    path = tmp_path / preferences_path().name
    if text is not None:
        path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "platform", platform)
    assert program.wants_torch_first(tmp_path / program._PREFERENCES) is wants


def test_a_thread_that_comes_too_late_for_torch_says_when_it_will_do(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    events = []
    end = InlineEngine(TrainJob(config={})).run(events.append)
    assert "next start" in end.message
    assert "start it again" in end.hint
    assert events == []


# The name in the taskbar, and pasted paths


def test_the_taskbar_is_told_the_programs_name(windows, caplog):
    names = []

    def take(name):
        names.append(name.value)
        return 0

    windows.shell32.SetCurrentProcessExplicitAppUserModelID = take
    desktop_windows.name_program("Aozora")
    assert names == ["Aozora"]


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        (r'"C:\my models\a.safetensors"', r"C:\my models\a.safetensors"),
        (' "C:\\a" \n', "C:\\a"),
        ("C:\\a ", "C:\\a"),
        ('say "hi"', 'say "hi"'),
        ('"', '"'),
        ("", ""),
    ],
)
def test_a_path_is_taken_without_what_explorer_puts_around_it(typed, path):
    assert plain_path(typed) == path


def test_a_pasted_path_is_committed_plain(qtbot):
    field = PathField(shape_of("model.base"))
    qtbot.addWidget(field)
    taken = []
    field.committed.connect(taken.append)
    field.show_value("old")
    field.line.setText(r'"C:\my models\a.safetensors"')
    field.line.editingFinished.emit()
    assert taken == [r"C:\my models\a.safetensors"]
    field.line.setText(r'"C:\my models\a.safetensors"')
    field.line.editingFinished.emit()
    assert field.line.text() == taken[0]
    assert len(taken) == 1
