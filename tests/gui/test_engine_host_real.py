"""The real engine in both hosts: stopped in the middle and gone on with.

That both report the same is shown by `test_whole_way.py`.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from PySide6.QtCore import QObject, Slot

from aozora.config.codec import apply_settings, encode_config
from aozora.demo import run as demo
from aozora.demo.pictures import draw_pictures
from aozora.events import CheckpointSaved
from gui.engine.host import EngineHost
from gui.engine.run_folders import load_history, read_run
from gui.engine.states import RunState

pytestmark = pytest.mark.slow

# So many that a stop asked for in the first ones comes before the last.
STEPS = 12


class Collector(QObject):
    def __init__(self, host):
        super().__init__()
        self.events = []
        host.reported.connect(self.take)

    @Slot(object)
    def take(self, batch):
        self.events += [arrived.event for arrived in batch]


@pytest.fixture(scope="module")
def made(small_demo):
    return apply_settings(
        small_demo.config,
        [f"training.steps={STEPS}", f"cache.folder={small_demo.cache_home / 'aozora'}"],
    )


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
    assert recorded.tally.total == live.tally.total == STEPS
    assert "resume" in [mark.kind for mark in recorded.marks]
    assert read_run(Path(resumed.status.folder)).outcome == "finished"
    assert math.isfinite(resumed.figures.loss)


@pytest.mark.parametrize("mode", ["process", "thread"])
def test_a_stopped_demo_saves(qtbot, tmp_path, monkeypatch, mode):
    if mode == "thread":
        # The child draws and encodes all of them; most of its time.
        monkeypatch.setattr(demo, "draw_pictures", lambda folder: draw_pictures(folder, 12))
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
