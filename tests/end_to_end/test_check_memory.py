"""What `check` says of memory, on computers that are made up."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from aozora.config.codec import encode_config
from aozora.config.targeting import LAYER_SETS
from aozora.memory.accounting import GIB
from aozora.memory.fit import with_memory
from aozora.memory.machine import measure
from aozora.training import check as room
from aozora.training.calibration import ENOUGH_STEPS
from aozora.training.check import check
from aozora.training.control import RunControl
from aozora.training.fitting import fit_run
from aozora.training.memory_choice import text_tokens
from aozora.training.run import train


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
    text = report.to_text()
    assert memory.arrangement in text
    low, high = (end / GIB for end in memory.ram_range)
    assert f"{low:.1f} to {high:.1f} GiB of main memory." in text
    assert "graphics memory" not in text
    assert report.to_plain()["summary"]["memory"]["ram_bytes"] == memory.ram_bytes
    assert report.summary.state_bytes > 4 * report.summary.trained_parameters


@pytest.mark.parametrize(("tokens", "states"), [(75, 77), (150, 154), (225, 231)])
def test_long_captions_are_forecast_with_all_their_chunks(make_config, tokens, states):
    assert text_tokens(make_config(f"captions.tokens={tokens}")) == states


def test_a_run_that_cannot_fit_is_refused(make_config, on_a_computer):
    on_a_computer(0.3, 60 * GIB)
    report = check(make_config("memory.recompute=auto"))
    assert [problem.path for problem in report.problems] == ["memory.vram_limit"]
    assert report.problems[0].remedy
    assert report.summary is None


def test_a_run_that_may_just_fit_is_warned_of(make_config, on_a_computer):
    memory = check(make_config()).summary.memory
    needed = memory.ram_bytes
    on_a_computer(None, needed * 95 // 100)
    report = check(make_config())
    assert report.problems == ()
    assert any("may not fit" in note and "memory.ram_limit" in note for note in report.notes)
    on_a_computer(None, needed // 2)
    assert [problem.path for problem in check(make_config()).problems] == ["memory.ram_limit"]


def test_what_other_choices_of_layers_would_take_is_said(make_config, on_a_computer):
    on_a_computer(4.0, 60 * GIB)
    report = check(make_config("targets.layers=attention"))
    forecasts = {forecast.layers: forecast for forecast in report.layer_sets}
    assert list(forecasts) == list(LAYER_SETS)
    memory, chosen = report.summary.memory, forecasts["attention"]
    assert chosen.trained_parameters == report.summary.trained_parameters
    assert (chosen.vram_bytes, chosen.ram_bytes) == (memory.vram_bytes, memory.ram_bytes)
    assert chosen.step_seconds == memory.step_seconds
    assert chosen.vram_bytes < forecasts["all"].vram_bytes
    assert all(forecast.fits for forecast in report.layer_sets)
    plain = report.to_plain()["layer_sets"]
    assert [entry["layers"] for entry in plain] == list(LAYER_SETS)


def test_a_check_measures_the_computer_as_a_run_uses_it(make_config, monkeypatch):
    here, threads = measure(torch.device("cpu")), []

    def look(device):
        threads.append(torch.get_num_threads())
        return here

    monkeypatch.setattr(room, "measure", look)
    monkeypatch.setattr("aozora.training.fitting.measure", look)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        check(make_config())
        fit_run(make_config(), vram=None, ram=None)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads == [1, 1]


def test_choices_of_layers_are_forecast_where_the_chosen_one_does_not_fit(
    make_config, on_a_computer
):
    on_a_computer(0.3, 60 * GIB)
    report = check(make_config("memory.recompute=auto"))
    assert report.summary is None
    assert not any(forecast.fits for forecast in report.layer_sets)


def test_a_check_follows_what_the_last_run_measured(make_config):
    config = make_config("training.steps=30", "training.accumulation_steps=1")
    before = check(config).summary.memory
    assert before.calibrated_by == ""
    events = []
    train(config, events.append, RunControl())
    after = check(config).summary.memory
    measured = [event.seconds for event in events if hasattr(event, "data_wait_seconds")]
    assert len(measured) == ENOUGH_STEPS
    assert after.calibrated_by.startswith("small-")
    low, high = after.step_seconds_range
    assert low < sorted(measured)[len(measured) // 2] < high
    used = max(event.process_rss for event in events if hasattr(event, "process_rss"))
    assert after.ram_bytes <= used
    assert after.ram_bytes != before.ram_bytes


def test_a_check_that_is_asked_again_and_again_imports_little(make_config, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(encode_config(make_config())), encoding="utf-8")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from aozora.api import check\n"
        "from aozora.config.codec import load_config\n"
        f"assert not check(load_config(Path({str(config)!r}))).problems\n"
        "slow = {'diffusers', 'transformers', 'torch._inductor'}\n"
        "print(*sorted(slow & set(sys.modules)))\n"
    )
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
