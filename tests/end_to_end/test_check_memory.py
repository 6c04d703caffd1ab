"""What `check` says of memory, on computers that are made up."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from aozora.memory.accounting import GIB, MIB
from aozora.memory.fit import with_memory
from aozora.memory.machine import measure
from aozora.training import check as room
from aozora.training.check import check


@pytest.fixture
def on_a_computer(monkeypatch):
    """Return a function that makes `check` believe in a computer with so much memory."""
    here = measure(torch.device("cpu"))

    def pretend(vram, ram):
        machine = with_memory(here, vram, 64)
        monkeypatch.setattr(room, "measure", lambda device: replace(machine, ram_free=ram))

    return pretend


def test_a_summary_says_what_a_run_takes(make_config):
    report = check(make_config())
    assert report.problems == ()
    memory = report.summary.memory
    assert memory.vram_bytes == 0
    assert memory.ram_bytes == sum(size for _, size in memory.ram_parts)
    assert memory.step_seconds > 0
    assert memory.sentence in report.to_text()
    assert report.to_plain()["summary"]["memory"]["ram_bytes"] == memory.ram_bytes
    assert report.summary.state_bytes > 4 * report.summary.trained_parameters


def test_a_run_that_cannot_fit_is_refused(make_config, on_a_computer):
    on_a_computer(0.3, 60 * GIB)
    report = check(make_config("memory.recompute=auto"))
    assert [problem.path for problem in report.problems] == ["memory.vram_limit"]
    assert report.problems[0].remedy
    assert report.summary is None


def test_a_run_that_may_just_fit_is_warned_of(make_config, on_a_computer):
    memory = check(make_config()).summary.memory
    # Nothing is set aside for saves where nothing is left.
    needed = memory.ram_bytes - dict(memory.ram_parts)["changes during saves"]
    on_a_computer(None, needed - 100 * MIB)
    report = check(make_config())
    assert report.problems == ()
    assert any("may not fit" in note and "memory.ram_limit" in note for note in report.notes)
    on_a_computer(None, needed // 2)
    assert [problem.path for problem in check(make_config()).problems] == ["memory.ram_limit"]
