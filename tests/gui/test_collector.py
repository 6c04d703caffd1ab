from __future__ import annotations

import threading

import pytest
from PySide6.QtCore import QObject

from aozora.runtime import collect_garbage, garbage_collected_by
from gui.collector import GarbageCollector


class Link(QObject):
    """An object of Qt that only garbage collection can destroy."""

    def __init__(self, seen):
        super().__init__()
        self.itself, self.seen = self, seen

    def __del__(self):
        self.seen.append(threading.current_thread())


def make_links(seen, count=20):
    for _ in range(count):
        Link(seen)


def busy(rounds=200_000):
    """Make so many objects that Python would search for garbage by itself."""
    return [[number] for number in range(rounds)]


@pytest.fixture
def in_thread(qtbot):
    """Run a function in another thread while the window's goes on; return its seconds."""

    def run(work):
        thread = threading.Thread(target=work)
        thread.start()
        qtbot.waitUntil(lambda: not thread.is_alive(), timeout=20_000)

    return run


def test_what_another_thread_finds_is_destroyed_in_the_windows_thread(in_thread):
    seen = []
    make_links(seen)
    in_thread(lambda: (busy(), collect_garbage()))
    assert len(seen) == 20
    assert set(seen) == {threading.main_thread()}


def test_without_it_another_thread_would_destroy_them(in_thread):
    import gc

    seen = []
    make_links(seen)
    gc.enable()
    try:
        in_thread(busy)
    finally:
        gc.disable()
    # This is how Qt was brought down; were it otherwise, no collector would be needed.
    assert set(seen) - {threading.main_thread()}


def test_the_window_searches_by_itself(qtbot):
    seen = []
    make_links(seen)
    kept = busy(2_000)
    qtbot.waitUntil(lambda: len(seen) == 20, timeout=10_000)
    assert kept


def test_a_thread_the_window_waits_for_is_not_held_up_for_ever(qapp, monkeypatch):
    monkeypatch.setattr("gui.collector._PATIENCE_SECONDS", 0.05)
    thread = threading.Thread(target=collect_garbage)
    thread.start()
    thread.join(5.0)
    assert not thread.is_alive()


def test_it_is_put_back_as_it_was():
    calls = []
    with garbage_collected_by(lambda: calls.append("outer")):
        with GarbageCollector():
            collect_garbage()
        collect_garbage()
    assert calls == ["outer"]
