"""A state written while training goes on is the state of the moment it was taken, to the bit."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from aozora.training import spare_memory
from aozora.training.snapshot import AbandonedError, Snapshots
from aozora.training.spare_memory import SpareMemory
from aozora.training.state_file import read_state_file
from aozora.training.state_writer import StateWriter, write_state
from optimizers.adafactor import AdafactorRule
from optimizers.engine import Engine
from optimizers.gradient_sums import GradientSums
from optimizers.layout import SMALL_UNIT
from optimizers.placement import Placement
from optimizers.raven_adamw import RavenAdamWRule
from optimizers.ring import aligned
from optimizers.streamed import StreamedOptimizer
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

    def __init__(self, dtype=torch.bfloat16, backend=None, rule=None, *, spare=2**20, **changes):
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
        self.snapshots = Snapshots(self.engine, self.optimizer, spare_bytes=spare)
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


@pytest.mark.parametrize("spare", [0, 10_000, 2**20], ids=["waits", "both", "diverts"])
@pytest.mark.parametrize(
    ("dtype", "seed"),
    [(torch.bfloat16, None), (torch.bfloat16, 1), (torch.float16, 2), (torch.float32, 3)],
)
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_what_is_written_during_three_steps_is_the_state_before_them(
    tmp_path, arrangement, seed, dtype, spare
):
    backend = None if seed is None else LazyBackend(seed)
    run = Run(dtype, backend, spare=spare, **ARRANGEMENTS[arrangement])
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


def test_records_that_are_not_yet_written_get_other_memory():
    run = Run()
    run.step()
    before = {index: record.memory for index, record in run.optimizer.records.items()}
    snapshot = run.snapshots.take()
    snapshot._add_spare_memory()
    snapshot._units.clear()
    run.step()
    run.optimizer.finish()
    on_host = [i for i, record in run.optimizer.records.items() if not record.on_device]
    assert len(on_host) > 5
    assert all(run.optimizer.records[index].memory is not before[index] for index in on_host)
    diverted = {index: run.optimizer.records[index].memory for index in on_host}
    run.step()
    assert all(run.optimizer.records[index].memory is diverted[index] for index in on_host)
    assert snapshot.waited_seconds == 0


def test_memory_comes_in_portions_and_goes_on_where_it_stopped(monkeypatch):
    monkeypatch.setattr(spare_memory, "_PORTION_BYTES", 1)
    run = Run()
    sizes = [r.memory.nbytes for r in run.optimizer.records.values() if not r.on_device]
    spare, given = SpareMemory(run.engine, 2**20), []
    while blocks := spare.allocate(sizes):
        assert len(blocks) == 1
        given += blocks
        spare.give(blocks[0])
    assert len(given) == len(sizes) == spare.num_blocks
    assert len({block.memory.data_ptr() for block in given}) == len(sizes)
    assert all(block.memory.nbytes >= max(sizes) for block in given)

    few = SpareMemory(run.engine, 3 * aligned(max(sizes)))
    assert [len(few.allocate(sizes)) for _ in range(5)] == [1, 1, 1, 0, 0]


def test_a_save_that_ends_adds_no_more_memory(monkeypatch):
    monkeypatch.setattr(spare_memory, "_PORTION_BYTES", 1)
    run = Run()
    first = run.snapshots.take()
    original, asked = run.snapshots._spare.allocate, []

    def allocate(sizes):
        asked.append(len(sizes))
        if len(asked) == 2:
            first.close()
        return original(sizes)

    monkeypatch.setattr(run.snapshots._spare, "allocate", allocate)
    first._add_spare_memory()
    assert len(asked) == 2
    run.snapshots.take()._add_spare_memory()
    on_host = [record for record in run.optimizer.records.values() if not record.on_device]
    assert run.snapshots._spare.num_blocks == len(on_host)


def test_without_spare_memory_the_optimizer_waits_for_the_writer(tmp_path):
    run = Run(spare=0)
    run.step()
    snapshot, pace = run.snapshots.take(), threading.Semaphore(0)
    join = in_thread(lambda: run.write(snapshot, tmp_path / "a.pt", PacedWriter, pace=pace))
    joined = threading.Event()
    stepping = in_thread(lambda: (run.step(), joined.set()))
    assert not joined.wait(0.2)
    for _ in range(1000):
        pace.release()
    stepping()
    join()
    assert snapshot.waited_seconds > 0.1


def test_a_pass_may_run_as_far_as_the_writer_has_come(tmp_path):
    run = Run(spare=0)
    names = [unit.name for unit in run.engine.units]
    assert names == [SMALL_UNIT, "a", "b", "c"]
    snapshot, pace = run.snapshots.take(), threading.Semaphore(0)
    small = len(snapshot._units[SMALL_UNIT])
    join = in_thread(lambda: run.write(snapshot, tmp_path / "a.pt", PacedWriter, pace=pace))
    assert small > 2, "the records of small tensors are on the device and come with their weights"
    for _ in range(small + 4):
        pace.release()
    snapshot.before_weights(SMALL_UNIT)
    snapshot.before_weights("a")
    waiting = in_thread(lambda: snapshot.before_weights("b"))
    pause(0.05)
    assert "b" in snapshot._units
    for _ in range(1000):
        pace.release()
    waiting()
    join()


def test_memory_is_used_again_by_the_next_save(tmp_path):
    run = Run(spare=2**20)
    for number in range(3):
        run.step()
        run.write_now(tmp_path / "still.pt")
        snapshot, pace = run.snapshots.take(), threading.Semaphore(0)
        path = tmp_path / f"{number}.pt"
        join = in_thread(lambda s=snapshot, p=pace, f=path: run.write(s, f, PacedWriter, pace=p))
        # All weights and some records are written before the step comes to them.
        for _ in range(len(SHAPES) + 20):
            pace.release()
        run.step()
        for _ in range(1000):
            pace.release()
        join()
        on_host = [record for record in run.optimizer.records.values() if not record.on_device]
        assert run.snapshots._spare.num_blocks == len(on_host)
        assert loaded(path) == loaded(tmp_path / "still.pt")


def test_updates_during_backward_meet_the_writer_in_their_own_order():
    run = Run(gradients="nowhere")
    snapshot = run.snapshots.take()
    order = []

    class Recorder:
        def write(self, tensors):
            order.extend(slot for slot, _ in tensors)

    expected = [snapshot.weights["c.out.weight"], snapshot.weights["b.0.weight"]]
    last = snapshot.optimizer["state"]["c.out.weight"]["exp_avg"][-1]
    first = snapshot.optimizer["state"]["a.0.weight"]["exp_avg"][0]
    snapshot.write(Recorder())
    assert order[:2] == expected
    assert order.index(last) < order.index(first)


@pytest.mark.parametrize("fails", ["abandoned", "disk full"])
def test_after_a_failed_write_the_optimizer_goes_on(tmp_path, fails):
    run, still = Run(spare=10_000), Run()
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
