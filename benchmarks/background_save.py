"""Saving the state of the full UNet while it trains: how long training stands still for it.

Every part of the file is compared with checksums that were taken before the save began.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import torch

from aozora.model.tensor_file import bytes_of
from aozora.training.snapshot import Snapshot, Snapshots
from aozora.training.state_file import read_state_file
from aozora.training.state_writer import StateWriter
from aozora.training.zip_stream import FileSum
from benchmarks.common import machine_facts, write_results
from benchmarks.rig import Rig, layout

MICRO_STEPS = 4


def checksums(rig: Rig) -> list[int]:
    optimizer = rig.memory.optimizer
    tensors = [*optimizer.weights().values(), *(piece.values for piece in optimizer.pieces())]
    with ThreadPoolExecutor() as threads:
        return sorted(threads.map(lambda t: zlib.crc32(bytes_of(t.detach().cpu())), tensors))


def write(snapshot: Snapshot, path: Path) -> FileSum:
    with path.open("wb") as file:
        state = {"weights": snapshot.weights, "optimizer": snapshot.optimizer}
        with StateWriter(file, state) as writer:
            snapshot.write(writer)
            return writer.finish()


def measure(rig: Rig, spare_bytes: int, path: Path) -> dict[str, Any]:
    inputs = [rig.inputs(1, 1024, 1024) for _ in range(MICRO_STEPS)]

    def step() -> float:
        started = time.monotonic()
        rig.train_step(inputs)
        return time.monotonic() - started

    before = [step() for _ in range(5)][2:]
    snapshots = Snapshots(rig.memory.engine, rig.memory.optimizer, spare_bytes=spare_bytes)
    torch.cuda.synchronize()
    expected = checksums(rig)
    started = time.monotonic()
    snapshot = snapshots.take()
    stall = time.monotonic() - started
    seconds: list[float] = []

    def work() -> None:
        seconds.append(write(snapshot, path).num_bytes)
        seconds.append(time.monotonic() - started)

    thread = threading.Thread(target=work)
    thread.start()
    during = []
    while thread.is_alive():
        during.append(step())
    thread.join()
    num_bytes, total = seconds
    with zipfile.ZipFile(path) as archive:
        found = sorted(i.CRC for i in archive.infolist() if "/data/" in i.filename)
    state = read_state_file(path)
    mapped = torch.load(path, weights_only=True, mmap=True)
    name = list(state["weights"])[-1]
    return {
        "spare_bytes": spare_bytes,
        "state_bytes": int(num_bytes),
        "seconds": total,
        "stall_seconds": stall,
        "waited_seconds": snapshot.waited_seconds,
        "step_seconds_before": before,
        "step_seconds_during": during,
        "is_the_state_of_its_moment": found == expected,
        "torch_reads_it": torch.equal(mapped["weights"][name], state["weights"][name].read()),
        "rss_bytes": psutil.Process().memory_info().rss,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--spare", type=float, nargs="+", default=[1.0, 0.0], help="GiB, of each")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    path = options.folder / "background_save.pt"
    results = []
    rig = Rig(layout(gradients="device"), micro_steps=MICRO_STEPS)
    for spare in options.spare:
        results.append(measure(rig, int(spare * 2**30), path))
        print(results[-1], flush=True)
        path.unlink()
    write_results("background_save", {"machine": machine_facts(), "saves": results}, options.out)


if __name__ == "__main__":
    main()
