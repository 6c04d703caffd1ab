"""The self-benchmark and its cache, on the processor and with stand-ins for a clock."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from types import SimpleNamespace

import psutil
import pytest
import torch

from aozora.memory import machine as room
from aozora.memory.accounting import GIB
from aozora.memory.fit import with_memory
from aozora.memory.machine import USUAL_RATES, measure, rate_of, room_within

CPU = torch.device("cpu")


class Clock:
    """A clock that goes on by what the work is said to take."""

    def __init__(self, durations):
        self.now = 100.0
        self.durations = iter(durations)
        self.runs = 0

    def __call__(self):
        return self.now

    def work(self):
        self.runs += 1
        self.now += next(self.durations)


def test_a_rate_is_that_of_the_best_run_after_the_first():
    clock = Clock([0.001, 0.5, 0.25, 0.4, 9.0])
    assert rate_of(clock.work, 1000.0, clock=clock, seconds=1.0) == pytest.approx(4000.0)
    assert clock.runs == 4


def test_one_slow_run_is_enough():
    clock = Clock([5.0, 5.0])
    assert rate_of(clock.work, 10.0, clock=clock, seconds=1.0) == pytest.approx(2.0)


def test_the_processor_has_no_card_and_no_link(tmp_path):
    found = measure(CPU, cache=tmp_path / "machine.json")
    assert not found.has_card
    assert found.vram_total == found.vram_free == found.context_bytes == 0
    assert found.ram_total == psutil.virtual_memory().total
    assert 0 < found.ram_free <= found.ram_total
    assert 0.3 < found.pin_limit / found.ram_total < 0.75
    assert found.rates.flops > 1e8
    assert found.rates.memcpy > 1e8


@pytest.mark.parametrize(("promised", "free"), [(None, 21), (5, 7), (100, 21)])
def test_memory_that_windows_does_not_promise_is_not_free(tmp_path, monkeypatch, promised, free):
    own = SimpleNamespace(rss=GIB, vms=2 * GIB)
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(memory_info=lambda: own))
    whole = SimpleNamespace(total=32 * GIB, available=20 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: whole)
    monkeypatch.setattr(room, "commit_free", lambda: promised and promised * GIB)
    assert measure(CPU, cache=tmp_path / "machine.json").ram_free == free * GIB


def test_windows_is_asked_what_it_still_promises(monkeypatch):
    def answer(pointer):
        status = pointer._obj
        assert status.length == 64
        status.free_commit = 5 * GIB
        return 1

    kernel = SimpleNamespace(GlobalMemoryStatusEx=answer)
    assert room.commit_free() is None
    monkeypatch.setattr(room.sys, "platform", "win32")
    windll = SimpleNamespace(kernel32=kernel)
    monkeypatch.setattr(room.ctypes, "windll", windll, raising=False)
    assert room.commit_free() == 5 * GIB


def test_speeds_are_measured_once(tmp_path, monkeypatch):
    cache = tmp_path / "deep" / "machine.json"
    first = measure(CPU, cache=cache)
    monkeypatch.setattr(room, "_measure_rates", lambda device: pytest.fail("measured again"))
    assert measure(CPU, cache=cache).rates == first.rates


def test_another_version_of_torch_is_measured_anew(tmp_path, monkeypatch):
    cache = tmp_path / "machine.json"
    first = measure(CPU, cache=cache)
    other = replace(first.rates, flops=1.5)
    monkeypatch.setattr(room, "_measure_rates", lambda device: other)
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert measure(CPU, cache=cache).rates == other
    assert len(json.loads(cache.read_text(encoding="utf-8"))) == 2


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "\x00", '{"KEY": {"flops": 1}}', '{"KEY": 3}', '{"KEY": {"flops": "fast"}}'],
)
def test_a_cache_that_cannot_be_read_is_measured_again_and_said(tmp_path, caplog, text):
    cache = tmp_path / "machine.json"
    cache.write_text(text.replace("KEY", room._key(CPU)), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        found = measure(CPU, cache=cache)
    assert "measured again" in caplog.text
    stored = json.loads(cache.read_text(encoding="utf-8"))
    assert stored[room._key(CPU)] == asdict(found.rates)


def test_a_cache_that_cannot_be_written_is_only_said(tmp_path, caplog):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        found = measure(CPU, cache=tmp_path / "file" / "machine.json")
    assert found.rates.flops > 0
    assert "Could not keep" in caplog.text


def test_a_computer_that_is_only_asked_about():
    here = measure(CPU)
    asked = with_memory(here, 8, 32)
    assert asked.has_card
    assert asked.vram_total == 8 * GIB
    assert asked.ram_total == 32 * GIB > asked.ram_free
    assert asked.pin_limit < asked.ram_total
    assert asked.rates == USUAL_RATES
    larger = with_memory(asked, 12, None)
    assert larger.ram_total == 32 * GIB
    assert with_memory(here, None, None) == here


def test_what_is_taken_for_a_while_stays_within_the_limit_and_leaves_half_of_what_is_free(
    monkeypatch,
):
    def with_free(available):
        memory = SimpleNamespace(available=available)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)

    own = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=3 * GIB))
    monkeypatch.setattr(psutil, "Process", lambda: own)
    with_free(40 * GIB)
    assert room_within(10 * GIB) == 7 * GIB
    with_free(4 * GIB)
    assert room_within(10 * GIB) == 2 * GIB
    assert room_within(2 * GIB) == 0
