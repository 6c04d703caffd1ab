from __future__ import annotations

import importlib.util
import itertools
import json
import math
import os
import time
from pathlib import Path

import pytest

from aozora.events import (
    CheckpointSaved,
    MemorySampled,
    OptimizerDiagnostics,
    RunFailed,
    RunFinished,
    RunPlanned,
    RunStarted,
    StepSkipped,
    ValidationCompleted,
    to_json,
)
from aozora.training.sinks import scalars_of
from gui.charts.export import write_csv
from gui.charts.run_history import RunHistory
from gui.engine.console_log import ConsoleLog
from gui.engine.figures import FigureKeeper
from gui.engine.history_keeper import HistoryKeeper
from gui.engine.mailbox import Arrived, LogLine, Mailbox
from gui.engine.run_folders import list_runs, load_history, read_run, run_chain
from gui.engine.wire import parse_line, parse_recorded_line

_spec = importlib.util.spec_from_file_location(
    "fake_engine", Path(__file__).with_name("fake_engine.py")
)
fake_engine = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake_engine)
step_event = fake_engine.step_event


def planned(total, start=0):
    return RunPlanned(
        total_steps=total,
        start_step=start,
        pictures=4,
        held_out=0,
        samples_per_epoch=4,
        batches_per_epoch=4,
        buckets={"64x64": 4},
        ticket_counts=[5, 5],
        trained_parameters=10,
        total_parameters=20,
        prediction="epsilon",
        zero_terminal_snr=False,
        attention="sdpa",
        precision="fp32",
        device="cpu",
        optimizer="raven_adamw",
        parameter_bytes=1,
        state_bytes=1,
        memory="",
        expected_device_bytes=0,
        expected_host_bytes=0,
        expected_reserved_bytes=0,
        expected_step_seconds=0.0,
        device_name="",
        pinned_bytes=0,
    )


def saved(step, folder="", name="demo"):
    file = f"{folder}{name}_step_{step:06d}"
    model, state = f"{file}.safetensors", f"{file}.pt"
    return CheckpointSaved(step=step, model=model, state=state, bytes=1, seconds=0.1, removed=[])


def write_run(output, name, events, *, run_id="r1", process=None, started=0, resumed_from=""):
    """Write a record as the engine does; one event a second."""
    folder = output / "runs" / name
    folder.mkdir(parents=True)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime(1_000_000 + started))
    facts = {"run_id": run_id, "name": "demo", "started": moment, "resumed_from": resumed_from}
    facts["process"] = 2**22 + 5 if process is None else process
    (folder / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"schema": 1}), encoding="utf-8")
    lines = [to_json(e, run_id, 1_000_000 + started + n) for n, e in enumerate(events)]
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    numbers = [{"step": e.step, **scalars_of(e)} for e in events if scalars_of(e)]
    text = "\n".join(map(json.dumps, numbers)) + "\n"
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    return folder


def begun(folder="/f", start=0):
    return RunStarted(run_id="r1", folder=folder, start_step=start)


def steps(first, last, total=20):
    return [step_event(number, total) for number in range(first, last + 1)]


def fed(*events):
    history = RunHistory()
    for number, event in enumerate(events):
        history.feed(100.0 + number, event)
    return history


def test_a_history_holds_what_was_reported():
    memory = MemorySampled(
        device_used=5,
        device_reserved=0,
        device_peak=0,
        device_total=9,
        process_rss=7,
        host_available=8,
    )
    validated = ValidationCompleted(
        step=2, loss=0.3, timesteps=[1], losses=[0.3], pictures=1, seconds=1.0
    )
    moved = OptimizerDiagnostics(
        step=2,
        update_rms=1e-6,
        weight_rms=0.1,
        second_moment_quantiles=[0.0] * 5,
        share_moved=0.4,
    )
    history = fed(begun(), planned(20), *steps(1, 2), memory, validated, moved, saved(2))
    assert history.steps.place("step").tolist() == [1.0, 2.0]
    assert history.steps.mean("lr").tolist() == pytest.approx([1e-6, 2e-6])
    assert history.memory.mean("device_used").tolist() == [5.0]
    assert history.validation.mean("loss").tolist() == pytest.approx([0.3])
    assert history.motion.mean("share_moved").tolist() == pytest.approx([0.4])
    assert [(mark.kind, mark.step) for mark in history.marks] == [("checkpoint", 2.0)]
    assert history.tally.total == 2
    assert history.plan.ticket_counts == [5, 5]


def test_a_resume_takes_back_what_is_done_again():
    history = fed(begun(), *steps(1, 6), saved(4), begun("/g", 4), *steps(5, 8))
    assert history.steps.place("step").tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert history.tally.total == 8
    assert [mark.kind for mark in history.marks] == ["checkpoint", "resume"]
    seconds = history.steps.place("seconds")
    assert all(a <= b for a, b in itertools.pairwise(seconds))


def test_a_clock_that_goes_back_does_not_turn_the_axis_around():
    history = RunHistory()
    for moment, event in zip([10.0, 11.0, 5.0, 6.0], steps(1, 4), strict=True):
        history.feed(moment, event)
    assert history.steps.place("seconds").tolist() == [0.0, 1.0, 1.0, 2.0]


def test_skipped_steps_are_marked_and_their_samples_counted():
    skipped = StepSkipped(
        step=3,
        total_steps=20,
        reason="loss",
        in_a_row=1,
        skipped=1,
        timesteps=[7.0, 8.0],
        tickets=[7, 8],
        items=[1, 2],
    )
    history = fed(begun(), *steps(1, 2), skipped)
    assert history.tally.total == 4
    assert history.marks[-1].kind == "skipped"


def test_a_recorded_run_has_the_history_of_the_live_one(tmp_path):
    events = [begun(), planned(20), *steps(1, 20), saved(20)]
    folder = write_run(tmp_path, "demo-1", events)
    loaded, live = load_history(folder), fed(*events)
    for name in ("loss", "lr", "grad_norm"):
        assert loaded.steps.mean(name).tolist() == live.steps.mean(name).tolist()
    assert loaded.tally.counts(20).tolist() == live.tally.counts(20).tolist()
    assert [m.step for m in loaded.marks] == [m.step for m in live.marks]


def test_a_history_is_rebuilt_from_the_metrics_alone(tmp_path):
    events = [begun(), planned(20), *steps(1, 20)]
    folder = write_run(tmp_path, "demo-1", events)
    whole = load_history(folder)
    (folder / "events.jsonl").unlink()
    rebuilt = load_history(folder)
    assert rebuilt.steps.place("step").tolist() == whole.steps.place("step").tolist()
    for name in ("loss", "lr", "grad_norm"):
        assert rebuilt.steps.mean(name).tolist() == whole.steps.mean(name).tolist()


def test_a_line_that_was_cut_off_by_a_kill_is_passed_over(tmp_path):
    folder = write_run(tmp_path, "demo-1", [begun(), *steps(1, 5)])
    for name in ("events.jsonl", "metrics.jsonl"):
        path = folder / name
        path.write_text(path.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    assert load_history(folder).last_step == 4
    (folder / "events.jsonl").unlink()
    assert load_history(folder).last_step == 4


def test_a_resumed_run_is_read_with_what_came_before(tmp_path):
    write_run(tmp_path, "demo-1", [begun(), planned(20), *steps(1, 12), saved(10)])
    second = write_run(
        tmp_path,
        "demo-2",
        [begun("/g", 10), planned(20, 10), *steps(11, 20)],
        started=500,
        resumed_from="demo_step_000010.pt",
    )
    write_run(tmp_path, "demo-3", [begun(), *steps(1, 3)], run_id="other", started=100)
    assert [path.name for path in run_chain(second)] == ["demo-1", "demo-2"]
    history = load_history(second)
    assert history.steps.place("step").tolist() == list(range(1, 21))
    assert history.tally.total == 20
    assert load_history(second, with_itself=False).last_step == 12


def test_how_a_run_ended_is_read_from_its_record(tmp_path):
    done = RunFinished(reason="completed", step=5, skipped_steps=0, seconds=1.0)
    stopped = RunFinished(reason="stopped", step=4, skipped_steps=0, seconds=1.0)
    write_run(tmp_path, "a", [begun(), *steps(1, 5), done], started=1)
    write_run(tmp_path, "b", [begun(), *steps(1, 4), stopped], started=2)
    write_run(tmp_path, "c", [begun(), *steps(1, 3), RunFailed(message="no memory")], started=3)
    write_run(tmp_path, "d", [begun(), planned(20), *steps(1, 2)], started=4)
    now = int(time.time()) - 1_000_000
    write_run(tmp_path, "e", [begun(), *steps(1, 1)], process=os.getpid(), started=now)
    runs = list_runs(tmp_path)
    assert [(run.path.name, run.outcome, run.step) for run in runs] == [
        ("e", "running", 1),
        ("d", "died", 2),
        ("c", "failed", 3),
        ("b", "stopped", 4),
        ("a", "finished", 5),
    ]
    assert runs[2].message == "no memory"
    assert runs[1].total_steps == 20


def test_a_number_of_a_process_that_was_given_away_again_is_no_running_run(tmp_path):
    folder = write_run(
        tmp_path, "a", [begun(), *steps(1, 2)], process=os.getpid(), started=-900_000
    )
    assert read_run(folder).outcome == "died"


def test_the_state_to_resume_from_is_the_newest_that_is_still_there(tmp_path):
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    where = f"{checkpoints}/"
    for step in (4, 8):
        for ending in (".pt", ".json"):
            (checkpoints / f"demo_step_{step:06d}{ending}").write_text("{}", encoding="utf-8")
    folder = write_run(tmp_path, "a", [begun(), *steps(1, 8), saved(4, where), saved(8, where)])
    assert read_run(folder).state_step == 8
    (checkpoints / "demo_step_000008.pt").unlink()
    run = read_run(folder)
    assert (run.state_step, Path(run.state).name) == (4, "demo_step_000004.pt")


def test_folders_that_are_no_records_are_left_out(tmp_path):
    assert list_runs(tmp_path) == []
    (tmp_path / "runs" / "x").mkdir(parents=True)
    (tmp_path / "runs" / "y").mkdir()
    (tmp_path / "runs" / "y" / "run.json").write_text("[not json", encoding="utf-8")
    assert list_runs(tmp_path) == []


def test_an_event_of_an_older_version_is_still_read():
    record = json.loads(to_json(planned(7), "r", 1.0))
    del record["memory"], record["pinned_bytes"]
    line = json.dumps(record)
    assert parse_line(line) is None
    assert parse_recorded_line(line).total_steps == 7


@pytest.mark.parametrize(
    "line",
    ["", "nonsense", "[1]", "{}", '{"event": "Nope"}', '{"event": "Warned", "text": 1}', "{" * 9],
)
def test_what_is_no_event_is_none(line):
    assert parse_line(line) is None
    assert parse_recorded_line(line) is None


def test_a_loss_that_is_no_number_comes_back_as_nan():
    event = step_event(1, 2, loss=math.nan)
    assert math.isnan(parse_line(to_json(event, "r")).loss)


def test_a_keeper_joins_a_resumed_run_with_its_record(qtbot, tmp_path):
    write_run(tmp_path, "demo-1", [begun(), planned(20), *steps(1, 10), saved(10)])
    second = write_run(tmp_path, "demo-2", [], started=500, resumed_from="demo_step_000010.pt")
    keeper = HistoryKeeper()
    keeper.begin()
    for number, event in enumerate([begun(str(second), 10), planned(20, 10), *steps(11, 12)]):
        keeper.feed(Arrived(2_000_000.0 + number, event))
    qtbot.waitUntil(lambda: keeper.history.last_step == 12, timeout=5_000)
    keeper.feed(Arrived(2_000_010.0, step_event(13, 20)))
    assert keeper.history.steps.place("step").tolist() == list(range(1, 14))
    assert [mark.kind for mark in keeper.history.marks] == ["checkpoint", "resume"]


def test_a_keeper_starts_anew_with_a_new_run(qtbot):
    keeper = HistoryKeeper()
    for event in [begun(), *steps(1, 3), RunStarted(run_id="r2", folder="/h"), *steps(1, 2)]:
        keeper.feed(Arrived(1.0, event))
    assert keeper.history.last_step == 2
    assert len(keeper.history.steps) == 2


def test_the_mailbox_keeps_every_event_but_superseded_progress():
    box = Mailbox()
    from aozora.events import Progressed

    assert box.put(begun())
    for done in range(100):
        assert not box.put(Progressed(phase="scan", done=done, total=100))
    box.put(step_event(1, 2))
    events = [item.event for item in box.take()]
    assert [type(event).__name__ for event in events] == [
        "RunStarted",
        "Progressed",
        "StepCompleted",
    ]
    assert events[1].done == 99
    assert box.take() == []


def test_a_flood_of_lines_is_counted_not_kept():
    box = Mailbox()
    for number in range(20_000):
        box.put(LogLine(0.0, "output", str(number)))
    lines = box.take()
    assert len(lines) <= 5_001
    assert "15,000" in lines[-1].text


def test_the_console_is_bounded_and_tells_what_is_new():
    console = ConsoleLog(most_lines=10)
    for number in range(25):
        console.add(0.0, "info", f"line {number}")
    assert [line.text for line in console.since(0)] == [f"line {n}" for n in range(15, 25)]
    assert [line.text for line in console.since(23)] == ["line 23", "line 24"]
    assert console.since(25) == []
    console.add(0.0, "error", "two\nlines")
    assert [line.text for line in console.since(25)] == ["two", "lines"]


def test_figures_follow_a_run():
    keeper = FigureKeeper()
    for event in [begun(), planned(20), *steps(1, 10)]:
        keeper.feed(event)
    figures = keeper.figures
    assert figures.seconds_per_step == pytest.approx(0.01)
    assert figures.seconds_left == pytest.approx(0.1)
    assert figures.smooth_loss == pytest.approx(
        sum(0.98 ** (10 - n) / n for n in range(1, 11))
        / sum(0.98 ** (10 - n) for n in range(1, 11))
    )
    keeper.feed(RunStarted(run_id="r2", folder="/x", start_step=3))
    assert keeper.figures.step == 3
    assert math.isnan(keeper.figures.loss)


def test_a_table_of_all_steps_is_written(tmp_path):
    path = tmp_path / "run.csv"
    history = fed(begun(), *steps(1, 4))
    assert write_csv(history, path, 0.9) == 4
    head, *rows = path.read_text(encoding="utf-8").splitlines()
    assert head.split(",")[:5] == ["step", "seconds", "epoch", "steps_per_row", "loss"]
    assert [float(row.split(",")[0]) for row in rows] == [1, 2, 3, 4]
    assert float(rows[1].split(",")[4]) == 0.5
