"""The real engine in both hosts: the same events but for time and place."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from PySide6.QtCore import QObject, Slot

from aozora import api
from aozora.config.codec import apply_settings, encode_config
from aozora.demo.run import demo_config, prepare_demo
from aozora.events import CheckpointSaved, RunPlanned, StepCompleted
from gui.engine.host import EngineHost
from gui.engine.run_folders import load_history, read_run
from gui.engine.states import RunState
from gui.engine.wire import plain_of

pytestmark = pytest.mark.slow

# Time and what is named after it or after a folder.
_OF_TIME = {"seconds", "data_wait_seconds", "stall_seconds", "folder", "run_id", "model", "state"}
_BY_THE_CLOCK = {"MemorySampled", "Progressed"}
STEPS = 4


class Collector(QObject):
    def __init__(self, host):
        super().__init__()
        self.events = []
        host.reported.connect(self.take)

    @Slot(object)
    def take(self, batch):
        self.events += [arrived.event for arrived in batch]

    def comparable(self):
        records = [plain_of(e) for e in self.events if type(e).__name__ not in _BY_THE_CLOCK]
        return [{k: v for k, v in r.items() if k not in _OF_TIME} for r in records]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    prepare_demo(folder)
    config = apply_settings(
        demo_config(folder), [f"training.steps={STEPS}", "validation.pictures=2"]
    )
    api.cache(config, lambda event: None, api.RunControl())
    return config


def run(qtbot, config, mode, output, *, resume="", stop_at=0):
    host = EngineHost(mode=mode)
    collector = Collector(host)
    plain = encode_config(apply_settings(config, [f"output.folder={output}"]))
    assert host.start(plain, resume=resume)
    if stop_at:
        qtbot.waitUntil(lambda: host.status.step >= stop_at, timeout=240_000)
        host.stop(save=True)
    qtbot.waitUntil(lambda: not host.status.is_engine_alive, timeout=240_000)
    assert host.wait(10.0)
    return host, collector


def test_both_hosts_report_the_same_run(qtbot, made, tmp_path):
    streams, hosts = [], []
    for mode in ("process", "thread"):
        host, collector = run(qtbot, made, mode, tmp_path / mode)
        assert host.status.state is RunState.FINISHED, host.status.message
        streams.append(collector.comparable())
        hosts.append((host, collector))
    assert streams[0] == streams[1]
    host, collector = hosts[0]
    schedule = made.schedule.learning_rate
    steps = [event for event in collector.events if isinstance(event, StepCompleted)]
    assert [s.lr for s in steps] == [schedule.at_step(s.step - 1, STEPS) for s in steps]
    plan = next(event for event in collector.events if isinstance(event, RunPlanned))
    drawn = host.keeper.history.tally.counts(len(plan.ticket_counts))
    assert drawn.tolist() == plan.ticket_counts


@pytest.mark.parametrize("mode", ["process", "thread"])
def test_a_run_that_was_stopped_goes_on_from_its_state(qtbot, made, tmp_path, mode):
    host, collector = run(qtbot, made, mode, tmp_path, stop_at=1)
    assert host.status.state is RunState.STOPPED, host.status.message
    stopped = next(e for e in collector.events if isinstance(e, CheckpointSaved))
    assert 1 <= stopped.step < STEPS
    resumed, _ = run(qtbot, made, mode, tmp_path, resume=stopped.state)
    assert resumed.status.state is RunState.FINISHED, resumed.status.message
    qtbot.waitUntil(lambda: len(resumed.keeper.history.steps) == STEPS, timeout=10_000)
    live = resumed.keeper.history
    recorded = load_history(Path(resumed.status.folder))
    assert recorded.steps.place("step").tolist() == live.steps.place("step").tolist()
    assert recorded.steps.mean("loss").tolist() == live.steps.mean("loss").tolist()
    assert recorded.tally.total == live.tally.total == 2 * STEPS
    assert "resume" in [mark.kind for mark in recorded.marks]
    assert read_run(Path(resumed.status.folder)).outcome == "finished"
    assert math.isfinite(resumed.figures.loss)


@pytest.mark.parametrize("mode", ["process", "thread"])
def test_a_stopped_demo_saves(qtbot, tmp_path, mode):
    host = EngineHost(mode=mode)
    collector = Collector(host)
    assert host.start_demo(str(tmp_path / "demo"))
    qtbot.waitUntil(lambda: host.status.step >= 1, timeout=240_000)
    host.stop(save=True)
    qtbot.waitUntil(lambda: not host.status.is_engine_alive, timeout=240_000)
    assert host.wait(10.0)
    assert host.status.state is RunState.STOPPED, host.status.message
    (saved,) = [e for e in collector.events if isinstance(e, CheckpointSaved)]
    assert Path(saved.state).is_file()
    assert saved.step == host.status.step
