"""The saver of a run: in the background, one at a time, never half, never silently failing."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from aozora.config.choices.predictions import Flow
from aozora.config.codec import apply_settings
from aozora.config.schema import TrainConfig
from aozora.errors import NumericsError, SaveError
from aozora.events import CheckpointSaved
from aozora.model.facts import prediction_of_header
from aozora.model.safetensors_header import Header
from aozora.runtime import remove_stale_partials
from aozora.training import saving
from aozora.training.checkpointing import exact_weight, list_checkpoints, read_state
from aozora.training.loss_scaler import LossScaler
from aozora.training.resume import Identity
from aozora.training.saving import Saver
from aozora.training.state_writer import StateWriter
from aozora.training.trainer import Position
from tests.training.test_snapshot import SHAPES, Run, loaded

torch.set_num_threads(1)

ROOT = Path(__file__).parents[2]


class Record:
    """What the saver needs of a run's record."""

    name, run_id = "small", "run"

    def __init__(self, folder):
        self.checkpoints = folder
        self.events, self.phases = [], []

    def emit(self, event):
        self.events.append(event)

    @contextlib.contextmanager
    def phase(self, phase):
        self.phases.append(phase)
        yield []


class Saved:
    """A small run with a saver; the model file holds the sum of all exact weights."""

    def __init__(self, folder, monkeypatch, step=0, **changes):
        self.run = Run(**changes)
        self.record = Record(Path(folder))
        self.position = Position(step=step)
        monkeypatch.setattr(saving, "write_single_file", self.write_model)
        self.saver = Saver(
            config=apply_settings(TrainConfig(), ["checkpoints.keep_last=2"]),
            record=self.record,
            source=SimpleNamespace(facts=SimpleNamespace(num_bytes=0)),
            objective=SimpleNamespace(prediction=None, name="epsilon", zero_terminal_snr=False),
            engine=self.run.engine,
            ram_limit=2**40,
            optimizer=self.run.optimizer,
            scaler=LossScaler(enabled=False),
            position=self.position,
            pool=SimpleNamespace(to_json=list),
            identity=Identity("base", "data", "epsilon", {}),
        )

    def write_model(self, source, trained, target, **settings):
        content = torch.cat([make().reshape(-1) for make in trained.values()]).numpy().tobytes()
        target.write_bytes(content)
        return SimpleNamespace(num_bytes=len(content), crc32=0)

    def step(self):
        self.run.step()
        self.position.step += 1

    def saves(self):
        return [event for event in self.record.events if isinstance(event, CheckpointSaved)]


@pytest.fixture
def slow(monkeypatch):
    """Let the writer go on only as long as this is set."""
    gate = threading.Event()

    class GatedWriter(StateWriter):
        def write(self, tensors):
            assert gate.wait(30)
            super().write(tensors)

    monkeypatch.setattr(saving, "StateWriter", GatedWriter)
    return gate


def test_training_goes_on_while_a_save_is_written(tmp_path, monkeypatch, slow):
    saved = Saved(tmp_path, monkeypatch)
    saved.step()
    saved.run.write_now(tmp_path / "still.pt")
    exact = {name: saved.run.optimizer.master_weight(name) for name in SHAPES}
    saved.saver.save()
    assert saved.saves() == []
    saved.position.step += 7
    saved.position.samples += 7
    stepping = threading.Thread(target=saved.step)
    stepping.start()
    slow.set()
    stepping.join(30)
    saved.saver.wait()
    (event,) = saved.saves()
    assert event.step == 1
    assert 0 <= event.stall_seconds < event.seconds
    assert saved.saver.last.state == Path(event.state)
    state = read_state(Path(event.state))
    assert (state["step"], state["samples"]) == (1, 0)
    assert loaded(Path(event.state)) == loaded(tmp_path / "still.pt")
    for name, expected in exact.items():
        found = exact_weight(state, name)
        assert torch.equal(found.view(torch.int32), expected.view(torch.int32)), name
    model = torch.frombuffer(bytearray(Path(event.model).read_bytes()), dtype=torch.float32)
    assert torch.equal(model, torch.cat([exact[name].reshape(-1) for name in state["weights"]]))


def test_a_step_is_saved_once_and_old_saves_go(tmp_path, monkeypatch):
    saved = Saved(tmp_path, monkeypatch)
    for _ in range(4):
        saved.step()
        saved.saver.save()
        saved.saver.save()
    saved.saver.wait()
    assert [event.step for event in saved.saves()] == [1, 2, 3, 4]
    assert [s.manifest.step for s in list_checkpoints(tmp_path)] == [3, 4]
    assert saved.saves()[-1].removed == ["small_step_000002"]


def test_what_was_resumed_from_is_saved_again_only_if_its_model_is_missing(tmp_path, monkeypatch):
    first = Saved(tmp_path, monkeypatch)
    first.step()
    monkeypatch.setattr(saving, "write_single_file", failing_model(OSError(28, "disk full")))
    first.saver.save()
    with pytest.raises(SaveError, match="the training state is complete"):
        first.saver.wait()
    for saves in ([1], []):
        resumed = Saved(tmp_path, monkeypatch, step=1)
        resumed.saver.save()
        resumed.saver.wait()
        assert [event.step for event in resumed.saves()] == saves
    (saved,) = list_checkpoints(tmp_path)
    assert saved.manifest.name == "small_step_000001"


def test_what_a_run_begins_with_is_not_saved(tmp_path, monkeypatch):
    saved = Saved(tmp_path, monkeypatch)
    saved.saver.save()
    saved.saver.wait()
    assert list(tmp_path.iterdir()) == []


def test_the_model_says_by_which_shift_it_was_trained(tmp_path, monkeypatch):
    saved = Saved(tmp_path, monkeypatch)
    flow = Flow(shift=2.5, resolution_shift=False)
    saved.saver._objective = SimpleNamespace(prediction=flow, name="flow", zero_terminal_snr=False)
    told = {}

    def write_model(source, trained, target, *, metadata, **settings):
        told.update(metadata)
        return saved.write_model(source, trained, target)

    monkeypatch.setattr(saving, "write_single_file", write_model)
    saved.step()
    saved.saver.save()
    saved.saver.wait()
    header = Header({}, {"aozora.prediction": "flow", **told}, b"", 0)
    found = prediction_of_header(header)
    assert (found.flow_shift, found.flow_resolution_shift) == (2.5, False)


def test_a_second_save_waits_for_the_first(tmp_path, monkeypatch, slow):
    saved = Saved(tmp_path, monkeypatch)
    saved.step()
    saved.saver.save()
    saved.position.step += 1
    second = threading.Thread(target=saved.saver.save)
    second.start()
    second.join(0.1)
    assert second.is_alive()
    slow.set()
    second.join(30)
    saved.saver.wait()
    first, later = saved.saves()
    assert (first.step, later.step) == (1, 2)
    assert later.stall_seconds > 0.05


def failing_model(error):
    def write_model(*arguments, **settings):
        raise error

    return write_model


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(28, "No space left on device"), SaveError),
        (NumericsError("w is not finite"), NumericsError),
        (ZeroDivisionError("a bug"), ZeroDivisionError),
    ],
)
@pytest.mark.parametrize("asked", ["raise_failure", "wait", "save"])
def test_a_failure_is_raised_at_the_next_occasion_and_only_once(
    tmp_path, monkeypatch, error, raised, asked
):
    saved = Saved(tmp_path, monkeypatch)
    saved.step()
    saved.saver.save()
    saved.saver.wait()
    before = sorted(path.name for path in tmp_path.iterdir())
    monkeypatch.setattr(saving, "write_single_file", failing_model(error))
    saved.step()
    saved.saver.save()
    saved.saver._thread.join(30)
    saved.position.step += 1
    with pytest.raises(raised):
        getattr(saved.saver, asked)()
    saved.saver.raise_failure()
    assert sorted(path.name for path in tmp_path.iterdir()) == [*before, "small_step_000002.pt"]
    assert [event.step for event in saved.saves()] == [1]
    saved.step()
    assert saved.run.steps == 3


def test_a_save_that_cannot_begin_holds_nothing_up(tmp_path, monkeypatch):
    saved = Saved(tmp_path, monkeypatch)
    saved.step()

    def fail(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="new thread"):
            saved.saver.save()
    saved.step()
    saved.saver.save()
    saved.saver.wait()
    assert [event.step for event in saved.saves()] == [2]


def test_a_folder_that_was_moved_away_is_made_again(tmp_path, monkeypatch):
    saved = Saved(tmp_path / "checkpoints", monkeypatch)
    saved.step()
    saved.saver.save()
    saved.saver.wait()
    assert [event.step for event in saved.saves()] == [1]


def test_the_room_a_save_needs_is_that_of_its_number_format(tmp_path, monkeypatch):
    saved = Saved(tmp_path, monkeypatch)
    usual = saved.saver.estimated_bytes()
    stored = {name: SimpleNamespace(dtype="F16") for name in SHAPES}
    saved.saver._source.component = {"unet": stored}.__getitem__
    saved.saver._config = apply_settings(TrainConfig(), ["checkpoints.dtype=fp32"])
    count = sum(weight.numel() for weight in saved.run.optimizer.weights().values())
    assert saved.saver.estimated_bytes() == usual + 2 * count


def test_leaving_the_block_waits_for_the_save(tmp_path, monkeypatch, slow):
    saved = Saved(tmp_path, monkeypatch)
    saved.step()
    threading.Timer(0.1, slow.set).start()
    with saved.saver:
        saved.saver.save()
    assert [event.step for event in saved.saves()] == [1]


def test_an_error_of_the_run_does_not_lose_the_save_that_is_under_way(tmp_path, monkeypatch, slow):
    saved = Saved(tmp_path, monkeypatch)
    saved.step()
    threading.Timer(0.1, slow.set).start()

    def fail():
        with saved.saver:
            saved.saver.save()
            raise NumericsError("too many bad steps")

    with pytest.raises(NumericsError, match="too many bad steps"):
        fail()
    assert [event.step for event in saved.saves()] == [1]


def test_the_error_of_the_run_comes_before_that_of_its_last_save(tmp_path, monkeypatch, caplog):
    saved = Saved(tmp_path, monkeypatch)
    saved.step()
    monkeypatch.setattr(saving, "write_single_file", failing_model(OSError(28, "disk full")))

    def fail():
        with saved.saver:
            saved.saver.save()
            raise NumericsError("too many bad steps")

    with pytest.raises(NumericsError, match="too many bad steps"):
        fail()
    assert "disk full" in caplog.text


def test_an_interrupt_gives_the_save_up_at_once(tmp_path, monkeypatch):
    saved = Saved(tmp_path, monkeypatch)
    saved.step()
    begun = threading.Event()

    class SlowWriter(StateWriter):
        def write(self, tensors):
            begun.set()
            time.sleep(0.05)
            super().write(tensors)

    monkeypatch.setattr(saving, "StateWriter", SlowWriter)

    def interrupt():
        with saved.saver:
            saved.saver.save()
            assert begun.wait(10)
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert time.monotonic() - started < 2
    assert saved.saves() == []
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_told_before_anything_is_written(tmp_path, monkeypatch):
    saved = Saved(tmp_path, monkeypatch)
    saved.step()
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(SaveError, match="a save needs about"):
        saved.saver.save()
    assert list(tmp_path.iterdir()) == []
    saved.step()


KILLED = """
    import time
    from pathlib import Path
    import pytest
    from tests.training.test_saving import Saved
    from aozora.training import saving
    from aozora.training.state_writer import StateWriter
    saved = Saved({folder!r}, pytest.MonkeyPatch())
    saved.step()
    saved.saver.save()
    saved.saver.wait()
    class SlowWriter(StateWriter):
        def write(self, tensors):
            super().write(tensors)
            time.sleep(0.01 * len(tensors))
    saving.StateWriter = SlowWriter
    saved.step()
    saved.saver.save()
    while not list(Path({folder!r}).glob("*.partial")):
        time.sleep(0.001)
    print("saving", flush=True)
    saved.step()
    saved.saver.wait()
    print("saved", flush=True)
"""


def test_a_run_that_is_killed_while_it_saves_keeps_the_save_before(tmp_path):
    code = textwrap.dedent(KILLED).format(folder=str(tmp_path))
    for delay in (0.0, 0.1, 0.4):
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert child.stdout.readline() == "saving\n"
        time.sleep(delay)
        child.kill()
        rest, _ = child.communicate()
        assert rest == ""
        (saved,) = list_checkpoints(tmp_path)
        assert saved.manifest.step == 1
        assert read_state(saved.state)["step"] == 1
        assert remove_stale_partials(tmp_path) == 1
        assert len(list(tmp_path.iterdir())) == 3
