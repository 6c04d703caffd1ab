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
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from aozora.memory.machine import room_within
from aozora.model.tensor_file import bytes_of
from aozora.training.snapshot import Snapshot, Snapshots
from aozora.training.state_file import read_state_file
from aozora.training.state_writer import StateWriter
from aozora.training.zip_stream import FileSum
from benchmarks.common import GIB, Peak, machine_facts, write_results
from benchmarks.rig import Rig, layout

_MARGIN_BYTES = GIB // 4  # what a step takes beyond what the process has between steps


def checksums(rig: Rig) -> list[int]:
    optimizer = rig.memory.optimizer
    tensors = [*optimizer.weights().values(), *(piece.values for piece in optimizer.pieces())]
    own = threading.local()

    def checksum(values: Tensor) -> int:
        # Through memory that is used again: small blocks that a thread gave back stay its own.
        if not hasattr(own, "memory"):
            own.memory = torch.empty(max(t.nbytes for t in tensors), dtype=torch.uint8)
        place = own.memory[: values.nbytes].view(values.dtype).view(values.shape)
        return zlib.crc32(bytes_of(place.copy_(values.detach())))

    with ThreadPoolExecutor(8) as threads:
        return sorted(threads.map(checksum, tensors))


def write(snapshot: Snapshot, path: Path) -> FileSum:
    with path.open("wb") as file:
        state = {"weights": snapshot.weights, "optimizer": snapshot.optimizer}
        with StateWriter(file, state) as writer:
            snapshot.write(writer)
            return writer.finish()


def rss() -> int:
    return int(psutil.Process().memory_info().rss)


def measure(rig: Rig, ram_bytes: int, path: Path) -> dict[str, Any]:
    """Save once. Copies may take what ``ram_bytes`` leave beside the process as it is."""
    inputs = [rig.inputs(1, 1024, 1024) for _ in range(rig.micro_steps)]

    def step() -> float:
        started = time.monotonic()
        rig.train_step(inputs)
        return time.monotonic() - started

    before = [step() for _ in range(5)][2:]
    rig.memory.optimizer.finish()
    expected = checksums(rig)
    rss_before = rss()
    room = partial(room_within, ram_bytes - _MARGIN_BYTES)
    snapshots = Snapshots(rig.memory.engine, rig.memory.optimizer, room=room)
    started = time.monotonic()
    snapshot = snapshots.take()
    stall = time.monotonic() - started
    seconds: list[float] = []

    def work() -> None:
        seconds.append(write(snapshot, path).num_bytes)
        seconds.append(time.monotonic() - started)

    thread = threading.Thread(target=work)
    during = []
    with Peak(rss) as memory:
        thread.start()
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
        "folder": str(path.parent),
        "accumulation": rig.micro_steps,
        "copied_bytes": snapshot.copied_bytes,
        "state_bytes": int(num_bytes),
        "seconds": total,
        "stall_seconds": stall + snapshot.waited_seconds,
        "step_seconds_before": before,
        "step_seconds_during": during,
        "is_the_state_of_its_moment": found == expected,
        "torch_reads_it": torch.equal(mapped["weights"][name], state["weights"][name].read()),
        "rss_before_gib": rss_before / GIB,
        "rss_peak_gib": memory.peak / GIB,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--accumulation", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--ram", type=float, default=28.0, help="GiB, of the whole process")
    folders = [Path(tempfile.gettempdir())]
    parser.add_argument("--folder", type=Path, nargs="+", default=folders)
    options = parser.parse_args()
    results = []
    for accumulation in options.accumulation:
        rig = Rig(layout(gradients="device"), micro_steps=accumulation)
        for folder in options.folder:
            path = folder / "background_save.pt"
            results.append(measure(rig, int(options.ram * GIB), path))
            print(results[-1], flush=True)
            path.unlink()
        rig.close()
    write_results("background_save", {"machine": machine_facts(), "saves": results}, options.out)


if __name__ == "__main__":
    main()
