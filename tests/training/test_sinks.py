from __future__ import annotations

import json
import sys
import types

import pytest
import torch

from aozora.errors import AozoraError
from aozora.events import Progressed, StepCompleted, Warned, from_json
from aozora.training.sinks import (
    EventHub,
    MetricsFile,
    TensorBoardWriter,
    WandbWriter,
    sample_memory,
)


def step(number):
    return StepCompleted(
        step=number,
        total_steps=9,
        epoch=0.5,
        loss=0.25,
        lr=1e-6,
        grad_norm=1.0,
        timesteps=[1.0],
        tickets=[1],
        sample_losses=[0.25],
        items=[0],
        samples=number,
        seconds=0.1,
        data_wait_seconds=0.0,
    )


def test_events_before_recording_are_written_first(tmp_path):
    received = []
    hub = EventHub(received.append, "run")
    hub.emit(Warned(text="early"))
    assert list(tmp_path.iterdir()) == []
    hub.record(tmp_path / "events.jsonl", [MetricsFile(tmp_path / "metrics.jsonl")])
    hub.emit(step(1))
    hub.close()
    lines = (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()
    assert [from_json(line) for line in lines] == received == [Warned(text="early"), step(1)]
    metrics = json.loads((tmp_path / "metrics.jsonl").read_text(encoding="utf-8"))
    assert metrics["step"] == 1
    assert metrics["lr"] == 1e-6


def test_progress_is_thinned_out_but_its_end_always_comes():
    received = []
    hub = EventHub(received.append, "run")
    for done in range(1, 1001):
        hub.emit(Progressed(phase="scan", done=done, total=1000))
    assert len(received) < 100
    assert received[-1].done == 1000


def test_tensorboard_gets_the_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = TensorBoardWriter(tmp_path)
    writer.write(3, {"loss": 0.5})
    writer.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(3, 0.5)]


def test_wandb_gets_the_numbers_where_it_is_installed(tmp_path, monkeypatch):
    logged, finished = [], []

    class Run:
        def log(self, scalars, step):
            logged.append((step, scalars))

        def finish(self):
            finished.append(True)

    module = types.ModuleType("wandb")
    module.init = lambda **arguments: Run()
    monkeypatch.setitem(sys.modules, "wandb", module)
    writer = WandbWriter(tmp_path, "name", "offline", {})
    writer.write(1, {"loss": 0.5})
    writer.close()
    assert logged == [(1, {"loss": 0.5})]
    assert finished == [True]


def test_without_wandb_the_setting_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(AozoraError, match=r"logging\.wandb"):
        WandbWriter(tmp_path, "name", "offline", {})


def test_memory_is_measured():
    sample = sample_memory(torch.device("cpu"))
    assert sample.process_rss > 10 * 2**20
    assert sample.device_total == 0
