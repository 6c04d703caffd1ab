from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from PySide6.QtCore import QObject, QThread, Slot

from aozora.errors import AozoraError
from aozora.events import RunFailed, RunFinished, RunStarted, StepCompleted, Warned
from gui.engine import demo_run, inline
from gui.engine.bodies import DemoJob, TrainJob
from gui.engine.child import ChildEngine, child_command
from gui.engine.host import EngineHost, Patience
from gui.engine.inline import InlineEngine
from gui.engine.states import EngineEnded, RunState
from gui.engine.wire import plain_of
from tests.gui.shell_fakes import FakeBody

FAKE = Path(__file__).with_name("fake_engine.py")
MODES = ("process", "thread")
_spec = importlib.util.spec_from_file_location("fake_engine", FAKE)
fake_engine = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake_engine)


class Listener(QObject):
    """Takes every signal of a host, and notes in which thread."""

    def __init__(self, host):
        super().__init__()
        self.events, self.lines, self.statuses, self.figures = [], [], [], []
        self.threads, self.ends = set(), []
        host.reported.connect(self.take_events)
        host.logged.connect(self.take_lines)
        host.status_changed.connect(self.take_status)
        host.figures_changed.connect(self.take_figures)
        host.ended.connect(self.take_end)

    @Slot(object)
    def take_events(self, batch):
        self.threads.add(QThread.currentThread())
        self.events += [arrived.event for arrived in batch]

    @Slot(object)
    def take_lines(self, lines):
        self.threads.add(QThread.currentThread())
        self.lines += [line.text for line in lines]

    @Slot(object)
    def take_status(self, status):
        self.threads.add(QThread.currentThread())
        self.statuses.append(status)

    @Slot(object)
    def take_figures(self, figures):
        self.threads.add(QThread.currentThread())
        self.figures.append(figures)

    @Slot(object)
    def take_end(self, status):
        self.threads.add(QThread.currentThread())
        self.ends.append(status)


class Stage:
    """A host whose engine is the fake one."""

    def __init__(self, qtbot, monkeypatch, mode, habit, steps=20, patience=None, linger=20.0):
        self.qtbot, self.bodies = qtbot, []

        def make(job, wanted):
            if wanted == "process":
                command = [sys.executable, str(FAKE), habit, str(steps)]
                body = ChildEngine((command, ""), linger_seconds=linger)
            else:
                body = InlineEngine(job)
            self.bodies.append(body)
            return body

        def train(config, on_event, control, *, resume=None):
            fake_engine.run(on_event, control, habit, steps)

        monkeypatch.setattr(inline.api, "train", train)
        self.host = EngineHost(mode=mode, patience=patience, make_body=make)
        self.listener = Listener(self.host)

    def start(self):
        assert self.host.start({})
        return self

    def wait_for_step(self, step):
        self.qtbot.waitUntil(lambda: self.host.status.step >= step, timeout=15_000)

    def wait_for_end(self, ends=1):
        self.qtbot.waitUntil(lambda: len(self.listener.ends) == ends, timeout=20_000)
        assert self.host.wait(5.0)
        return self.host.status


@pytest.fixture
def stage(qtbot, monkeypatch):
    made = []

    def make(*arguments, **options):
        made.append(Stage(qtbot, monkeypatch, *arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.host.force_quit()
        assert one.host.wait(10.0)


@pytest.mark.parametrize("mode", MODES)
def test_a_run_is_reported_in_order_and_ends_finished(stage, qapp, mode):
    one = stage(mode, "good").start()
    status = one.wait_for_end()
    assert status.state is RunState.FINISHED
    assert status.can_start
    steps = [event.step for event in one.listener.events if isinstance(event, StepCompleted)]
    assert steps == list(range(1, 21))
    assert status.state_file == "m20.pt"
    assert one.host.figures.step == 20
    assert one.listener.threads == {qapp.thread()}


def test_both_hosts_report_the_same_events(stage):
    streams = []
    for mode in MODES:
        one = stage(mode, "good").start()
        one.wait_for_end()
        streams.append([plain_of(event) for event in one.listener.events])
    assert len(streams[0]) > 25
    assert streams[0] == streams[1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("save", [True, False])
def test_a_stop_ends_the_run_with_and_without_saving(stage, mode, save):
    one = stage(mode, "slow", 10_000).start()
    one.wait_for_step(2)
    one.host.stop(save=save)
    assert one.host.status.state is RunState.STOPPING
    status = one.wait_for_end()
    assert status.state is RunState.STOPPED
    assert bool(status.state_file) is save
    assert status.step < 10_000


@pytest.mark.parametrize("mode", MODES)
def test_a_save_in_between_lets_the_run_go_on(stage, mode):
    one = stage(mode, "slow", 10_000).start()
    one.wait_for_step(2)
    one.host.save_now()
    one.qtbot.waitUntil(lambda: one.host.status.last_saved_step > 0, timeout=10_000)
    step = one.host.status.last_saved_step
    one.wait_for_step(step + 2)
    assert one.host.status.state is RunState.TRAINING
    one.host.stop(save=False)
    one.wait_for_end()


@pytest.mark.parametrize("mode", MODES)
def test_an_engine_that_raises_has_failed_and_the_next_run_can_start(stage, mode):
    one = stage(mode, "raise").start()
    status = one.wait_for_end()
    assert status.state is RunState.FAILED
    assert status.message == "RuntimeError: a bug in the engine"
    assert "Traceback" in status.traceback
    assert one.host.start({})
    assert one.wait_for_end(ends=2).state is RunState.FAILED


@pytest.mark.parametrize("mode", MODES)
def test_a_refusal_is_told_once_in_the_engines_words(stage, mode):
    one = stage(mode, "refuse").start()
    status = one.wait_for_end()
    assert status.state is RunState.FAILED
    assert status.message == "the device is out of memory"
    assert status.hint == "train fewer layers"
    assert [type(e) for e in one.listener.events].count(RunFailed) == 1


def test_a_refusal_before_the_first_event_is_told_in_thread_mode(stage, monkeypatch):
    one = stage("thread", "good")

    def refuse(config, on_event, control, *, resume=None):
        raise AozoraError("no model", "choose one")

    monkeypatch.setattr(inline.api, "train", refuse)
    one.start()
    status = one.wait_for_end()
    assert (status.state, status.message, status.hint) == (
        RunState.FAILED,
        "no model",
        "choose one",
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_killed_child_is_told_with_what_to_do(stage):
    one = stage("process", "slow", 10_000).start()
    one.wait_for_step(2)
    os.kill(one.bodies[0]._process.pid, signal.SIGKILL)
    status = one.wait_for_end()
    assert status.state is RunState.FAILED
    assert "SIGKILL" in status.message
    assert "resume" in status.hint
    assert status.can_start


def test_a_child_that_dies_with_a_code_is_told(stage):
    one = stage("process", "die").start()
    status = one.wait_for_end()
    assert status.state is RunState.FAILED
    assert "17" in status.message


def test_an_error_on_the_way_to_the_first_event_is_told(stage):
    one = stage("process", "no_start").start()
    status = one.wait_for_end()
    assert status.state is RunState.FAILED
    assert status.message == "model.base: there is no such file"


def test_garbage_on_the_pipe_becomes_lines_and_the_run_goes_on(stage):
    one = stage("process", "garbage").start()
    status = one.wait_for_end()
    assert status.state is RunState.FINISHED
    assert status.step == 20
    text = "\n".join(one.listener.lines)
    assert "NoSuchEvent" in text
    assert "30%" in text
    assert "20%" not in text
    assert max(map(len, one.listener.lines)) < 5_000


def test_a_hanging_child_is_ended_by_force(stage):
    one = stage("process", "hang", patience=Patience(stop_seconds=0.3)).start()
    one.wait_for_step(3)
    pid = one.bodies[0]._process.pid
    one.host.stop(save=True)
    one.qtbot.waitUntil(lambda: one.host.status.is_stop_overdue, timeout=5_000)
    assert one.host.can_force_quit
    started = time.monotonic()
    one.host.force_quit()
    status = one.wait_for_end()
    assert time.monotonic() - started < 4.0
    assert status.state is RunState.STOPPED
    assert status.can_start
    assert not psutil.pid_exists(pid)


def test_a_silent_engine_is_told_and_its_next_word_too(stage):
    one = stage("process", "hang", patience=Patience(silence_seconds=0.2)).start()
    one.wait_for_step(3)
    one.qtbot.waitUntil(lambda: one.host.status.silent_seconds > 0, timeout=5_000)
    one.host.force_quit()
    assert one.wait_for_end().silent_seconds == 0.0


def test_a_child_that_lingers_after_its_last_word_is_ended(stage):
    one = stage("process", "linger", linger=0.3).start()
    status = one.wait_for_end()
    assert status.state is RunState.FINISHED
    assert status.can_start


@pytest.mark.skipif(sys.platform == "win32", reason="inherited pipes")
def test_a_grandchild_that_keeps_the_pipe_does_not_hold_up_the_end(stage):
    one = stage("process", "grandchild").start()
    status = one.wait_for_end()
    assert status.state is RunState.FINISHED
    line = next(line for line in one.listener.lines if "grandchild" in line)
    psutil.Process(int(line.split(":")[1].strip(" }"))).kill()


def test_a_program_that_cannot_be_started_has_failed(qtbot):
    host = EngineHost(make_body=lambda job, mode: ChildEngine((["/no/such/program"], "")))
    listener = Listener(host)
    assert host.start({})
    qtbot.waitUntil(lambda: bool(listener.ends), timeout=10_000)
    assert host.status.state is RunState.FAILED
    assert "could not be started" in host.status.message
    assert host.wait(5.0)


class Broken:
    can_kill = False

    def run(self, post):
        raise ZeroDivisionError("in the thread")

    def send(self, command): ...

    def kill(self): ...


def test_a_bug_in_the_thread_is_shown_and_frees_the_buttons(qtbot):
    host = EngineHost(make_body=lambda job, mode: Broken())
    listener = Listener(host)
    host.start({})
    qtbot.waitUntil(lambda: bool(listener.ends), timeout=10_000)
    assert host.status.state is RunState.FAILED
    assert "ZeroDivisionError" in host.status.traceback
    assert host.status.can_start
    assert host.wait(5.0)


class Instant:
    can_kill = False

    def run(self, post):
        return EngineEnded(message="over")

    def send(self, command): ...

    def kill(self): ...


def test_fifty_runs_leave_no_thread_behind(qtbot):
    host = EngineHost(make_body=lambda job, mode: Instant())
    listener = Listener(host)
    for number in range(50):
        assert host.start({})
        assert not host.start({})
        qtbot.waitUntil(lambda count=number: len(listener.ends) == count + 1, timeout=10_000)
    assert host.wait(5.0)
    qtbot.wait(50)
    assert len(host.findChildren(QThread)) <= 2


def test_a_flood_of_events_is_batched(stage):
    one = stage("process", "good", 5_000)
    batches = []
    one.host.reported.connect(batches.append)
    started = time.monotonic()
    one.start()
    status = one.wait_for_end()
    seconds = time.monotonic() - started
    assert status.step == 5_000
    assert len(batches) <= 12 * seconds + 3
    assert sum(len(batch) for batch in batches) >= 5_000
    assert len(one.host.keeper.history.steps) == 5_000


def test_a_wait_at_the_end_of_the_program_takes_in_what_was_left(stage):
    one = stage("process", "slow", 10_000).start()
    one.wait_for_step(2)
    one.host.stop(save=True)
    assert one.host.wait(10.0)
    assert one.host.status.state is RunState.STOPPED
    assert one.host.status.state_file
    assert len(one.listener.ends) == 1


def test_the_late_end_of_an_earlier_run_does_not_end_the_next(stage):
    one = stage("process", "slow", 10_000).start()
    one.wait_for_step(2)
    one.host.force_quit()
    assert one.host.wait(10.0)
    assert one.host.status.state is RunState.STOPPED
    assert "by force" in one.host.status.message
    # The first thread's signal is still on its way when the second run begins.
    assert one.host.start({})
    one.wait_for_step(5)
    assert one.host.status.state is RunState.TRAINING
    assert len(one.listener.ends) == 1
    one.host.stop(save=True)
    assert one.wait_for_end(ends=2).state is RunState.STOPPED


def test_the_mode_of_the_next_run_can_be_chosen_while_one_goes_on(stage):
    one = stage("process", "slow", 10_000).start()
    one.wait_for_step(1)
    one.host.set_mode("thread")
    assert one.host.can_force_quit
    one.host.stop(save=False)
    one.wait_for_end()
    assert one.host.start({})
    one.wait_for_step(1)
    assert not one.host.can_force_quit
    one.host.stop(save=False)
    one.wait_for_end(ends=2)


@pytest.mark.parametrize(
    "start", [lambda host: host.start_demo("d"), lambda host: host.start({}, resume="x.pt")]
)
def test_problems_of_the_document_forbid_no_run_of_other_settings(qtbot, start):
    host = EngineHost(make_body=FakeBody)
    host.set_problems(1)
    assert host.status.state is RunState.BLOCKED
    assert host.hindrance == ""
    assert start(host)
    assert not start(host)
    assert host.hindrance == "A run is going on. Stop it first."
    host.stop(save=False)
    assert host.wait(10.0)
    assert host.status.problems == 1


def test_an_engine_that_is_still_ending_is_told_from_a_run(qtbot):
    over = RunFinished(reason="completed", step=4, skipped_steps=0, seconds=1.0)
    host = EngineHost(make_body=lambda job, mode: FakeBody(job, mode, [over]))
    assert host.start({})
    qtbot.waitUntil(lambda: host.status.state is RunState.FINISHED)
    assert not host.start({})
    assert host.hindrance == "The last run is still ending. Try again in a moment."
    host._body.over.set()
    assert host.wait(10.0)
    assert host.hindrance == ""


def test_the_command_of_a_run_names_events_control_and_state():
    command, text = child_command(TrainJob(config={"schema": 1}, resume="x.pt"))
    assert command[1:] == [
        *("-P", "-m", "aozora", "train", "{config}"),
        *("--events", "-", "--control", "-", "--resume", "x.pt"),
    ]
    assert text == '{\n  "schema": 1\n}'
    assert child_command(DemoJob(folder="d"))[0][-1] == "d"


def test_the_window_side_of_the_engine_loads_no_torch():
    code = (
        "import sys\n"
        "from gui.engine import host, run_folders, desktop, resume_wizard\n"
        "from gui.pages import run, runs, samples, console\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class FakeReport:
    def to_text(self):
        return "\nthe demo passed"


def fake_demo(folder, on_event, control):
    """Two runs in one, as the demo has; reports from another thread too."""
    for start in (0, 5):
        on_event(RunStarted(run_id="demo", folder=str(folder), start_step=start))
        for step in range(start + 1, start + 6):
            thread = threading.Thread(target=on_event, args=(Warned(text=f"from afar {step}"),))
            thread.start()
            thread.join()
            on_event(fake_engine.step_event(step, 10))
            if control.should_stop:
                on_event(RunFinished(reason="stopped", step=step, skipped_steps=0, seconds=1.0))
                return None
            time.sleep(0.02)
        reason = "stopped" if start == 0 else "completed"
        on_event(RunFinished(reason=reason, step=step, skipped_steps=0, seconds=1.0))
    return FakeReport()


@pytest.fixture
def demo_host(qtbot, monkeypatch):
    monkeypatch.setattr(demo_run.api, "demo", fake_demo)
    host = EngineHost(mode="thread")
    yield host, Listener(host)
    assert host.wait(10.0)


def test_the_demo_ends_finished_after_its_two_runs(qtbot, demo_host):
    host, listener = demo_host
    assert host.start_demo("somewhere")
    qtbot.waitUntil(lambda: bool(listener.ends), timeout=20_000)
    assert host.status.state is RunState.FINISHED
    assert host.status.step == 10
    assert listener.events[-1] == Warned(text="the demo passed")
    assert host.keeper.history.last_step == 10


def test_the_demo_can_be_stopped(qtbot, demo_host):
    host, listener = demo_host
    host.start_demo("somewhere")
    qtbot.waitUntil(lambda: host.status.step >= 2, timeout=20_000)
    host.stop(save=False)
    qtbot.waitUntil(lambda: bool(listener.ends), timeout=20_000)
    assert host.status.state is RunState.STOPPED
    assert host.status.step < 10


def test_a_demo_in_a_foreign_folder_is_refused_in_a_child(qtbot, tmp_path):
    (tmp_path / "mine.txt").write_text("keep me", encoding="utf-8")
    host = EngineHost(mode="process")
    listener = Listener(host)
    host.start_demo(str(tmp_path))
    qtbot.waitUntil(lambda: bool(listener.ends), timeout=60_000)
    assert host.status.state is RunState.FAILED
    assert "not empty" in host.status.message
    assert (tmp_path / "mine.txt").is_file()
    assert host.wait(5.0)
