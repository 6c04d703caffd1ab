from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import types

import pytest
import torch

import aozora.training.sinks
from aozora.errors import AozoraError
from aozora.events import Progressed, StepCompleted, Warned, from_json
from aozora.training.sinks import (
    EventHub,
    MetricsFile,
    TensorBoardWriter,
    WandbWriter,
    sample_memory,
    scalars_of,
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


@contextlib.contextmanager
def full_disk(num_bytes):
    """Let no file grow beyond ``num_bytes``: the disk takes what fits, and refuses the rest."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def lines_of(path):
    return path.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def recording(tmp_path):
    """Return what a hub passes on, and the hub, which records in ``tmp_path``."""
    received = []
    hub = EventHub(received.append, "run")
    hub.record(tmp_path / "events.jsonl", [MetricsFile(tmp_path / "metrics.jsonl")])
    return received, hub


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


def test_the_loss_is_told_without_its_weighting_too():
    weighted = dataclasses.replace(step(1), loss=0.1, sample_losses=[0.5, 0.25])
    found = scalars_of(weighted)
    assert (found["loss"], found["unweighted_loss"]) == (0.1, 0.375)
    assert "unweighted_loss" not in scalars_of(dataclasses.replace(weighted, sample_losses=[]))


def test_a_disk_that_is_full_for_a_while_costs_no_event_and_breaks_no_line(tmp_path, recording):
    received, hub = recording
    hub.emit(step(1))
    # Both files are refused in the middle of a line.
    with full_disk((tmp_path / "metrics.jsonl").stat().st_size + 10):
        hub.emit(step(2))
        hub.emit(step(3))
    hub.emit(step(4))
    hub.close()
    warnings = [event.text for event in received if isinstance(event, Warned)]
    assert len(warnings) == 2
    for text, name in zip(warnings, ("events.jsonl", "metrics.jsonl"), strict=True):
        assert str(tmp_path / name) in text
        assert "waits until it can be written" in text
    steps = [event for event in received if isinstance(event, StepCompleted)]
    assert steps == [step(number) for number in (1, 2, 3, 4)]
    # The warning comes before the event at hand, so that nothing comes after the last of a run.
    assert isinstance(received[1], Warned)
    written = [from_json(line) for line in lines_of(tmp_path / "events.jsonl")]
    assert [event for event in written if isinstance(event, StepCompleted)] == steps
    assert [event.text for event in written if isinstance(event, Warned)] == warnings
    numbers = [json.loads(line)["step"] for line in lines_of(tmp_path / "metrics.jsonl")]
    assert numbers == [1, 2, 3, 4]


def test_what_a_full_disk_never_took_is_logged_at_the_end(tmp_path, recording, caplog):
    received, hub = recording
    hub.emit(step(1))
    before = lines_of(tmp_path / "events.jsonl")
    with full_disk((tmp_path / "events.jsonl").stat().st_size):
        hub.emit(Warned(text="late"))
        hub.close()
    assert received[-1] == Warned(text="late")
    assert lines_of(tmp_path / "events.jsonl") == before
    assert "events.jsonl: not everything could be written" in caplog.text


def test_of_a_disk_that_stays_full_whole_lines_are_dropped(tmp_path, recording, monkeypatch):
    received, hub = recording
    hub.emit(step(1))
    size = (tmp_path / "events.jsonl").stat().st_size
    monkeypatch.setattr(aozora.training.sinks, "_MOST_WAITING_BYTES", 3 * size)
    with full_disk(size + 10):
        for number in range(2, 9):
            hub.emit(step(number))
    hub.emit(step(9))
    hub.close()
    written = [from_json(line) for line in lines_of(tmp_path / "events.jsonl")]
    steps = [event.step for event in written if isinstance(event, StepCompleted)]
    assert steps[:2] == [1, 2]
    assert steps[-1] == 9
    assert len(steps) < 9
    assert [e.step for e in received if isinstance(e, StepCompleted)] == list(range(1, 10))


def test_a_writer_that_fails_costs_neither_the_run_nor_the_others(tmp_path, caplog):
    class Broken:
        place = "charts"

        def write(self, step, scalars):
            raise OSError(5, "Input/output error")

        def close(self):
            raise OSError(5, "Input/output error")

    received = []
    hub = EventHub(received.append, "run")
    writers = [Broken(), MetricsFile(tmp_path / "metrics.jsonl")]
    hub.record(tmp_path / "events.jsonl", writers)
    hub.emit(step(1))
    hub.emit(step(2))
    hub.close()
    (warning,) = (event for event in received if isinstance(event, Warned))
    assert "charts cannot be written (Input/output error)" in warning.text
    assert len(lines_of(tmp_path / "metrics.jsonl")) == 2
    assert "charts: not everything" in caplog.text


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


class WandbError(Exception):
    """What the package raises."""


def put_wandb(monkeypatch, init):
    """Let a package whose runs are made by ``init`` stand in for wandb."""
    module = types.ModuleType("wandb")
    module.init = init
    module.Error = WandbError
    monkeypatch.setitem(sys.modules, "wandb", module)


def test_wandb_gets_the_numbers_where_it_is_installed(tmp_path, monkeypatch):
    logged, finished = [], []

    class Run:
        def log(self, scalars, step):
            logged.append((step, scalars))

        def finish(self):
            finished.append(True)

    put_wandb(monkeypatch, lambda **arguments: Run())
    writer = WandbWriter(tmp_path, "name", "offline", {})
    writer.write(1, {"loss": 0.5})
    writer.close()
    assert logged == [(1, {"loss": 0.5})]
    assert finished == [True]


def test_a_run_that_wandb_refuses_names_the_setting(tmp_path, monkeypatch):
    def init(**arguments):
        raise WandbError("api_key not configured (no-tty)")

    put_wandb(monkeypatch, init)
    with pytest.raises(AozoraError, match=r"logging\.wandb.*api_key not configured") as caught:
        WandbWriter(tmp_path, "name", "online", {})
    assert "wandb login" in caught.value.hint


def test_errors_of_wandb_end_no_run(tmp_path, monkeypatch, caplog):
    class Run:
        def log(self, scalars, step):
            raise WandbError("the service has gone")

        def finish(self):
            raise WandbError("the service has gone")

    put_wandb(monkeypatch, lambda **arguments: Run())
    received = []
    hub = EventHub(received.append, "run")
    hub.record(tmp_path / "events.jsonl", [WandbWriter(tmp_path, "name", "offline", {})])
    hub.emit(step(1))
    hub.emit(step(2))
    hub.close()
    (warning,) = (event for event in received if isinstance(event, Warned))
    assert "the service has gone" in warning.text
    assert sum(isinstance(event, StepCompleted) for event in received) == 2
    assert "Weights & Biases" in caplog.text


def test_without_wandb_the_setting_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(AozoraError, match=r"logging\.wandb"):
        WandbWriter(tmp_path, "name", "offline", {})


def test_memory_is_measured():
    sample = sample_memory(torch.device("cpu"))
    assert sample.process_rss > 10 * 2**20
    assert sample.device_total == 0
