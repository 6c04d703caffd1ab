"""PySide6 6.12 loses a reference to None with every call on Python 3.11 and older, then aborts."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gui.__main__ as program

ROOT = Path(__file__).resolve().parents[2]
COUNTS = """
import sys
from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QApplication, QLabel
class Speaker(QObject):
    said = Signal(bool)
app = QApplication([])
label, speaker = QLabel(), Speaker()
before = sys.getrefcount(None), sys.getrefcount(True)
for number in range(20_000):
    label.setText("x")
    speaker.said.emit(True)
print(*(now - then for now, then in zip((sys.getrefcount(None), sys.getrefcount(True)), before)))
"""


def test_calls_of_qt_leave_the_references_to_none_alone():
    done = subprocess.run(
        [sys.executable, "-c", COUNTS], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    changes = [abs(int(change)) for change in done.stdout.split()]
    assert max(changes) < 1000


def test_the_bad_version_is_neither_installed_nor_started(monkeypatch):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (wanted,) = [d for d in project["dependencies"] if d.startswith("PySide6")]
    assert wanted.endswith(",<6.12")
    monkeypatch.setattr(program, "version", lambda name: "6.12.0")
    monkeypatch.setattr(sys, "version_info", (3, 11, 9))
    with pytest.raises(ImportError, match=r"6\.12\.0 fails on this Python; 6\.11 is needed"):
        program._refuse_bad_qt()
    monkeypatch.setattr(sys, "version_info", (3, 12, 0))
    program._refuse_bad_qt()


def test_a_start_with_it_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(program, "version", lambda name: "6.12.0")
    monkeypatch.setattr(sys, "version_info", (3, 11, 9))
    assert program.main([]) == 3
    assert "run setup again" in capsys.readouterr().err
