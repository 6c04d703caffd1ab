"""A state written while training goes on is the state of the moment it was taken, to the bit."""

from __future__ import annotations

import gc
import logging
import threading
import weakref

import pytest
import torch
from torch import nn

from aozora.training import parallel_file
from aozora.training import snapshot as snapshot_room
from aozora.training.snapshot import AbandonedError, Snapshots
from aozora.training.state_file import read_state_file
from aozora.training.state_writer import StateWriter, write_state
from optimizers.adafactor import AdafactorRule
from optimizers.engine import Engine
from optimizers.gradient_sums import GradientSums
from optimizers.layout import SMALL_UNIT
from optimizers.placement import Placement
from optimizers.raven_adamw import RavenAdamWRule
from optimizers.streamed import StreamedOptimizer
from optimizers.transfers import Transfers
from tests.fakes import LazyBackend

torch.set_num_threads(1)

CPU = torch.device("cpu")
SHAPES = {
    **{f"a.{number}.weight": (40, 33) for number in range(4)},
    "a.norm.weight": (17,),
    **{f"b.{number}.weight": (64, 21) for number in range(4)},
    "b.gain": (),
    "c.out.weight": (700,),
}
UNITS = {name: name.split(".")[0] for name in SHAPES}


class Run:
    """Four steps of training, with whatever happens in between."""

    def __init__(self, dtype=torch.bfloat16, backend=None, rule=None, *, room=2**20, **changes):
        generator = torch.Generator().manual_seed(0)
        self.parameters = {
            name: nn.Parameter((0.02 * torch.randn(shape, generator=generator)).to(dtype))
            for name, shape in SHAPES.items()
        }
        values = {
            "units": UNITS,
            "gradients": "host",
            "chunk_elements": 512,
            "bucket_elements": 1000,
            "small_tensor": 128,
        }
        self.engine = Engine(
            self.parameters,
            rule or RavenAdamWRule(),
            placement=Placement(**{**values, **changes}),
            device=CPU,
            backend=backend,
        )
        self.sums = GradientSums(self.engine)
        self.optimizer = StreamedOptimizer(self.engine, seed=42)
        self.snapshots = Snapshots(self.engine, self.optimizer, room=lambda: room)
        self.steps = 0

    def step(self):
        generator = torch.Generator().manual_seed(1000 + self.steps)
        self.sums.put(
            {
                name: 1e-3 * torch.randn(shape, generator=generator).to(p.dtype)
                for (name, shape), p in zip(SHAPES.items(), self.parameters.values(), strict=True)
            }
        )
        self.optimizer.step(self.sums, 1e-3, torch.ones(()))
        self.steps += 1

    def state(self):
        weights = {name: w.clone() for name, w in self.optimizer.weights().items()}
        return {"weights": weights, "optimizer": self.optimizer.state_dict()}

    def write_now(self, path):
        """Write the state while nothing else happens."""
        state = self.state()
        with path.open("wb") as file:
            write_state(file, state)

    def write(self, snapshot, path, writer_type=StateWriter, **arguments):
        with path.open("wb") as file:
            state = {"weights": snapshot.weights, "optimizer": snapshot.optimizer}
            with writer_type(file, state, **arguments) as writer:
                snapshot.write(writer)
                writer.finish()


class PacedWriter(StateWriter):
    """Writes a tensor whenever it is given leave to."""

    def __init__(self, file, state, pace):
        super().__init__(file, state)
        self.pace = pace

    def write(self, tensors):
        for _ in tensors:
            assert self.pace.acquire(timeout=30)
        super().write(tensors)


def loaded(path):
    state = read_state_file(path)
    pieces = state["optimizer"]["state"]
    return {
        "facts": {k: v for k, v in state["optimizer"].items() if k != "state"},
        **{name: bits(tensor.read()) for name, tensor in state["weights"].items()},
        **{
            (name, plane): bits(torch.cat([piece.read() for piece in run]))
            for name, planes in pieces.items()
            for plane, run in planes.items()
        },
    }


def bits(tensor):
    return tensor.reshape(-1).view(torch.uint8).tolist()


def in_thread(work):
    errors = []

    def run():
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def join():
        thread.join(60)
        assert not thread.is_alive()
        if errors:
            raise errors[0]

    return join


ARRANGEMENTS = {
    "host": {},
    "streamed": {"streamed": frozenset("ab")},
    "some records on the device": {"device_record_bytes": 20_000},
    "whole tensors": {"rule": AdafactorRule()},
}


@pytest.mark.parametrize("room", [0, 10_000, 2**20], ids=["waits", "both", "copies"])
@pytest.mark.parametrize(
    ("dtype", "seed"),
    [(torch.bfloat16, None), (torch.bfloat16, 1), (torch.float16, 2), (torch.float32, 3)],
)
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_what_is_written_during_three_steps_is_the_state_before_them(
    tmp_path, arrangement, seed, dtype, room
):
    backend = None if seed is None else LazyBackend(seed)
    run = Run(dtype, backend, room=room, **ARRANGEMENTS[arrangement])
    still = Run(dtype, **ARRANGEMENTS[arrangement])
    for _ in range(2):
        run.step()
        still.step()
    still.write_now(tmp_path / "still.pt")
    snapshot, pace = run.snapshots.take(), threading.Semaphore(0)
    join = in_thread(lambda: run.write(snapshot, tmp_path / "moving.pt", PacedWriter, pace=pace))
    done = threading.Event()

    def feed():
        while not done.wait(0.0005):
            pace.release()

    feeding = in_thread(feed)
    for _ in range(3):
        run.step()
        still.step()
    join()
    done.set()
    feeding()
    assert loaded(tmp_path / "moving.pt") == loaded(tmp_path / "still.pt")
    run.write_now(tmp_path / "moved.pt")
    still.write_now(tmp_path / "stayed.pt")
    assert loaded(tmp_path / "moved.pt") == loaded(tmp_path / "stayed.pt")


def pause(seconds):
    return threading.Event().wait(seconds)


class Stopped:
    """A save whose writer has begun and does not go on before it is told to."""

    def __init__(self, run, path):
        self.snapshot, self.pace = run.snapshots.take(), threading.Semaphore(0)
        self._join = in_thread(lambda: run.write(self.snapshot, path, PacedWriter, pace=self.pace))

    def finish(self):
        self.pace.release(1000)
        self._join()


def test_what_is_not_yet_written_is_copied_when_the_optimizer_comes_to_it(tmp_path):
    run = Run()
    run.step()
    run.write_now(tmp_path / "still.pt")
    before = {index: record.memory for index, record in run.optimizer.records.items()}
    save = Stopped(run, tmp_path / "a.pt")
    save.pace.release()  # the writer is at the first unit, which is not copied any more
    stepping = in_thread(run.step)
    pause(0.05)
    for _ in range(20):
        save.pace.release()
    stepping()
    run.optimizer.finish()
    parts = save.snapshot._parts.values()
    assert sum(part.is_copied for part in parts) > 8
    assert all(part.is_copied or part.is_taken for part in parts)
    assert save.snapshot.copied_bytes >= sum(part.num_bytes for part in parts if part.is_copied)
    assert all(run.optimizer.records[index].memory is before[index] for index in before)
    save.finish()
    assert loaded(tmp_path / "a.pt") == loaded(tmp_path / "still.pt")


def test_the_writer_waits_for_the_last_step_and_training_does_not(tmp_path):
    backend = LazyBackend(0, habit="late")
    run, still = Run(backend=backend), Run()
    run.step()
    still.step()
    still.write_now(tmp_path / "still.pt")
    snapshot = run.snapshots.take()
    assert not backend.copy_out.is_empty
    run.write(snapshot, tmp_path / "a.pt")
    assert backend.copy_out.is_empty
    assert loaded(tmp_path / "a.pt") == loaded(tmp_path / "still.pt")


def test_a_step_that_is_still_being_issued_is_not_held_up_by_its_own_save(tmp_path, monkeypatch):
    run, still = Run(), Run()
    still.step()
    still.write_now(tmp_path / "still.pt")
    original, gate = StreamedOptimizer._update_bucket, threading.Event()

    def update(optimizer, *arguments):
        assert gate.wait(30)
        return original(optimizer, *arguments)

    # As where ordinary memory passes through buffers: a thread issues the step.
    monkeypatch.setattr(Transfers, "bounces", True)
    monkeypatch.setattr(StreamedOptimizer, "_update_bucket", update)
    run.step()
    snapshot = run.snapshots.take()
    join = in_thread(lambda: run.write(snapshot, tmp_path / "a.pt"))
    pause(0.05)
    gate.set()
    join()
    assert snapshot.waited_seconds == 0
    assert loaded(tmp_path / "a.pt") == loaded(tmp_path / "still.pt")
    run.step()
    run.optimizer.finish()


def test_nothing_is_copied_when_the_writer_is_ahead(tmp_path):
    run = Run()
    run.step()
    snapshot = run.snapshots.take()
    run.write(snapshot, tmp_path / "a.pt")
    run.step()
    assert snapshot.copied_bytes == 0
    assert snapshot.waited_seconds == 0


def test_nothing_is_let_go_before_it_is_in_the_file(tmp_path, monkeypatch):
    run = Run(room=0)
    snapshot, gate = run.snapshots.take(), threading.Event()
    held = bytes(bits(run.parameters["a.3.weight"].detach()))
    original = parallel_file._write

    def write(handle, position, data):
        assert bytes(data) != held or gate.wait(30)
        original(handle, position, data)

    monkeypatch.setattr(parallel_file, "_write", write)
    join = in_thread(lambda: run.write(snapshot, tmp_path / "a.pt"))
    snapshot.before_weights(SMALL_UNIT)
    passed = threading.Event()
    going = in_thread(lambda: (snapshot.before_weights("a"), passed.set()))
    assert not passed.wait(0.2)
    gate.set()
    going()
    join()
    assert passed.is_set()


def test_what_comes_last_is_copied_when_there_is_not_room_for_all():
    run = Run()
    snapshot = run.snapshots.take()
    parts = list(snapshot._parts)
    needed = [snapshot._parts[key].num_bytes for key in parts[-3:]]
    for room, expected in ((sum(needed), parts[-3:]), (sum(needed) - 1, parts[-2:]), (0, [])):
        snapshot._room = lambda room=room: room
        assert list(snapshot._choose_what_to_copy()) == expected


def test_copies_are_given_back_as_they_are_written(tmp_path):
    run = Run()
    run.step()
    save = Stopped(run, tmp_path / "a.pt")
    stepping = in_thread(run.step)
    pause(0.05)
    save.pace.release(20)
    stepping()
    copies = [
        weakref.ref(values)
        for part in save.snapshot._parts.values()
        if part.is_copied
        for _, values in part.tensors
    ]
    assert len(copies) > 20
    save.finish()
    gc.collect()
    assert not any(copy() is not None for copy in copies)


def test_without_memory_for_copies_the_optimizer_waits_and_the_log_says_so(
    tmp_path, monkeypatch, caplog
):
    run = Run()
    run.step()
    run.write_now(tmp_path / "still.pt")

    def refuse(*sizes, **options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    save = Stopped(run, tmp_path / "a.pt")
    with caplog.at_level(logging.WARNING), monkeypatch.context() as patched:
        patched.setattr(snapshot_room.torch, "empty", refuse)
        with save.snapshot._changed:
            save.snapshot._to_copy = save.snapshot._choose_what_to_copy()
            save.snapshot._changed.notify_all()
        pause(0.1)
    assert "no memory to copy to" in caplog.text
    stepping = in_thread(run.step)
    pause(0.1)
    save.finish()
    stepping()
    assert save.snapshot.copied_bytes == 0
    assert save.snapshot.waited_seconds > 0.05
    assert loaded(tmp_path / "a.pt") == loaded(tmp_path / "still.pt")


def test_without_room_for_copies_the_optimizer_waits_for_the_writer(tmp_path):
    run = Run(room=0)
    run.step()
    save = Stopped(run, tmp_path / "a.pt")
    joined = threading.Event()
    stepping = in_thread(lambda: (run.step(), joined.set()))
    assert not joined.wait(0.2)
    save.pace.release(1000)
    stepping()
    save.finish()
    assert save.snapshot.waited_seconds > 0.1


def test_a_pass_may_run_as_far_as_the_writer_has_come(tmp_path):
    run = Run(room=0)
    names = [unit.name for unit in run.engine.units]
    assert names == [SMALL_UNIT, "a", "b", "c"]
    snapshot, pace = run.snapshots.take(), threading.Semaphore(0)
    small = len(snapshot._parts[SMALL_UNIT].tensors)
    join = in_thread(lambda: run.write(snapshot, tmp_path / "a.pt", PacedWriter, pace=pace))
    assert small > 2, "the records of small tensors are on the device and come with their weights"
    # The threads have the next part before the one before is waited for.
    for _ in range(small + 8):
        pace.release()
    snapshot.before_weights(SMALL_UNIT)
    snapshot.before_weights("a")
    waiting = in_thread(lambda: snapshot.before_weights("b"))
    pause(0.05)
    assert "b" in snapshot._parts
    for _ in range(1000):
        pace.release()
    waiting()
    join()


def test_updates_during_backward_meet_the_writer_in_their_own_order():
    run = Run(gradients="nowhere")
    snapshot = run.snapshots.take()
    order = []

    class Recorder:
        def write(self, tensors):
            order.extend(slot for slot, _ in tensors)

        def flush(self):
            pass

    expected = [snapshot.weights["c.out.weight"], snapshot.weights["b.0.weight"]]
    last = snapshot.optimizer["state"]["c.out.weight"]["exp_avg"][-1]
    first = snapshot.optimizer["state"]["a.0.weight"]["exp_avg"][0]
    snapshot.write(Recorder())
    assert order[:2] == expected
    assert order.index(last) < order.index(first)


@pytest.mark.parametrize("fails", ["abandoned", "disk full"])
def test_after_a_failed_write_the_optimizer_goes_on(tmp_path, fails):
    run, still = Run(room=10_000), Run()
    snapshot = run.snapshots.take()

    class Failing(StateWriter):
        count = 0

        def write(self, tensors):
            self.count += len(tensors)
            if self.count >= 20 and fails == "disk full":
                raise OSError(28, "No space left on device")
            if self.count >= 20:
                snapshot.abandon()
            super().write(tensors)

    join = in_thread(lambda: run.write(snapshot, tmp_path / "a.pt", Failing))
    for _ in range(2):
        run.step()
        still.step()
    with pytest.raises((OSError, AbandonedError)):
        join()
    run.write_now(tmp_path / "run.pt")
    still.write_now(tmp_path / "still.pt")
    assert loaded(tmp_path / "run.pt") == loaded(tmp_path / "still.pt")
    snapshot = run.snapshots.take()
    run.write(snapshot, tmp_path / "again.pt")
    assert loaded(tmp_path / "again.pt") == loaded(tmp_path / "still.pt")
