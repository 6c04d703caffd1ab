"""Saving while a GPU trains: its own stream, page-locked and ordinary memory."""

from __future__ import annotations

import threading
import zipfile
import zlib

import pytest
import torch
from torch import nn

from aozora.model.tensor_file import bytes_of
from aozora.training.snapshot import Snapshots
from aozora.training.state_writer import StateWriter
from optimizers.engine import Engine
from optimizers.gradient_sums import GradientSums
from optimizers.placement import Placement
from optimizers.raven_adamw import RavenAdamWRule
from optimizers.streamed import StreamedOptimizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CUDA = torch.device("cuda")
SHAPES = {f"{unit}.{number}": (512, 1024 + number) for unit in "abc" for number in range(4)}
ARRANGEMENTS = {
    "page-locked": {"pin_bytes": 2**30},
    "ordinary": {"pin_bytes": 0},
    "partly page-locked": {"pin_bytes": 20 * 2**20},
    "weights on the host": {"pin_bytes": 2**30, "streamed": frozenset("ab")},
    "some records on the device": {"pin_bytes": 2**30, "device_record_bytes": 8 * 2**20},
}


class Run:
    def __init__(self, room, **changes):
        generator = torch.Generator().manual_seed(0)
        self.parameters = {
            name: nn.Parameter((0.02 * torch.randn(shape, generator=generator)).bfloat16().cuda())
            for name, shape in SHAPES.items()
        }
        self.engine = Engine(
            self.parameters,
            RavenAdamWRule(),
            moments="16bit",
            placement=Placement(
                units={name: name[0] for name in SHAPES},
                gradients="device",
                chunk_elements=2**18,
                bucket_elements=2**19,
                small_tensor=0,
                ring_bytes=2**24,
                **changes,
            ),
            device=CUDA,
        )
        self.sums = GradientSums(self.engine)
        self.optimizer = StreamedOptimizer(self.engine, seed=1)
        self.snapshots = Snapshots(self.engine, self.optimizer, room=lambda: room)

    def step(self, number):
        generator = torch.Generator("cuda").manual_seed(number)
        gradients = {
            name: 1e-3 * torch.randn(shape, device=CUDA, generator=generator).bfloat16()
            for name, shape in SHAPES.items()
        }
        self.optimizer.wait_all()
        self.sums.put(gradients)
        self.optimizer.step(self.sums, 1e-3, torch.ones((), device=CUDA))

    def checksums(self):
        """Return those of all that is saved, in any order."""
        self.optimizer.finish()
        tensors = [*self.optimizer.weights().values()]
        tensors += [piece.values for piece in self.optimizer.pieces()]
        return sorted(zlib.crc32(bytes_of(tensor.detach().cpu())) for tensor in tensors)


@pytest.mark.parametrize("room", [0, 8 * 2**20, 2**28], ids=["waits", "both", "copies"])
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_what_is_written_during_three_steps_is_the_state_before_them(tmp_path, arrangement, room):
    run = Run(room, **ARRANGEMENTS[arrangement])
    still = Run(0, **ARRANGEMENTS[arrangement])
    path = tmp_path / "a.pt"
    errors = []
    for save in range(2):
        for number in range(2):
            run.step(10 * save + number)
            still.step(10 * save + number)
        # What is to be saved may not be there yet.
        expected = still.checksums()
        snapshot = run.snapshots.take()

        def write(snapshot=snapshot):
            try:
                with path.open("wb") as file:
                    state = {"w": snapshot.weights, "o": snapshot.optimizer}
                    with StateWriter(file, state) as writer:
                        snapshot.write(writer)
                        writer.finish()
            except BaseException as error:  # noqa: BLE001 - told to the test's own thread
                errors.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        for number in range(3):
            run.step(100 * (save + 1) + number)
            still.step(100 * (save + 1) + number)
        thread.join(60)
        assert not thread.is_alive()
        assert errors == []
        with zipfile.ZipFile(path) as archive:
            found = sorted(i.CRC for i in archive.infolist() if "/data/" in i.filename)
        assert found == expected
        assert run.checksums() == still.checksums()
        assert run.checksums() != expected
