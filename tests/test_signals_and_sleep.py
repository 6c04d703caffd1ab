"""What the command line asks of the system while a run goes on."""

from __future__ import annotations

import contextlib
import signal

import pytest

import aozora.__main__ as program
from aozora import api


@pytest.fixture
def awake(monkeypatch):
    """Return a list that is true while the computer is kept awake."""
    held = []

    @contextlib.contextmanager
    def keep():
        held.append(True)
        yield
        held.clear()

    monkeypatch.setattr(program, "kept_awake", keep)
    return held


@pytest.mark.parametrize(
    ("verb", "options", "is_kept"),
    [("train", [], True), ("train", ["--control", "-"], False), ("cache", [], True)],
)
def test_the_computer_stays_awake_unless_another_program_sees_to_it(
    monkeypatch, awake, verb, options, is_kept
):
    seen = []
    monkeypatch.setattr(api, verb, lambda *_, **__: seen.append(bool(awake)))
    monkeypatch.setattr(program, "_listen", lambda control: None)
    assert program.main([verb, *options]) == 0
    assert seen == [is_kept]
    assert not awake


def test_ctrl_break_saves_and_stops_where_it_exists(monkeypatch):
    handlers = {}
    monkeypatch.setattr(signal, "SIGBREAK", 21, raising=False)
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    control = api.RunControl()
    before = program._stop_on_signals(control)
    assert set(before) == {signal.SIGINT, signal.SIGTERM, 21}
    handlers[21](21, None)
    assert control.should_stop
    with pytest.raises(KeyboardInterrupt):
        handlers[21](21, None)
