from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from aozora import runtime


class Failing(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("has_handler", [True, False])
def test_a_log_that_cannot_be_written_fails_nobody_where_there_are_no_streams(
    monkeypatch, has_handler
):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    runtime.guard_streams()
    log = logging.getLogger("aozora.runtime")
    monkeypatch.setattr(log, "propagate", False)
    monkeypatch.setattr(log, "handlers", [logging.StreamHandler(Failing())] * has_handler)
    monkeypatch.setattr(logging, "lastResort", logging._StderrHandler(logging.WARNING))
    assert sys.stderr.write("one\ntwo\n") == 8
    log.error("three")
    monkeypatch.setattr(log, "handlers", [logging.StreamHandler(kept := io.StringIO())])
    sys.stderr.write("four\n")
    assert kept.getvalue() == "four\n", "later lines are written again"


@pytest.mark.parametrize(
    ("length", "room", "is_long"),
    [(239, 0, False), (240, 0, True), (100, 139, False), (100, 140, True)],
)
def test_a_path_is_long_with_what_comes_below_it(monkeypatch, length, room, is_long):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os.path, "abspath", lambda text: text)
    path = Path("C:" + "x" * (length - 2))
    found = str(runtime.long_path(path, room))
    assert found == ("\\\\?\\" + str(path) if is_long else str(path))


def test_a_short_path_in_a_long_folder_is_long(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os.path, "abspath", lambda text: "C:" + "x" * 240 + text)
    assert str(runtime.long_path(Path("output"))).startswith("\\\\?\\C:xx")


def test_windows_is_kept_awake_until_the_end_however_it_comes(monkeypatch):
    states = []
    kernel = SimpleNamespace(SetThreadExecutionState=lambda state: states.append(state.value))
    monkeypatch.setattr(sys, "platform", "win32")
    windll = SimpleNamespace(kernel32=kernel)
    monkeypatch.setattr(runtime.ctypes, "windll", windll, raising=False)
    with contextlib.suppress(KeyError), runtime.kept_awake():
        assert states == [0x80000001]
        raise KeyError
    assert states == [0x80000001, 0x80000000]


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    with runtime.kept_awake():
        pass
