"""What training the whole UNet takes of the card, and how long it takes, beside other ways.

Every case runs in a process of its own: ``python -m benchmarks.memory CASE...``; without a case,
all of them. Predictions, and how they fared, are in ``benchmarks/notes.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

# That of consumer cards: on this one cuBLAS would take 32 MiB for itself.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:2:16:8")

import torch

from benchmarks import memory_baselines
from benchmarks.common import GIB, DeviceUsed, machine_facts, write_results
from benchmarks.planner_grid import planner_grid
from benchmarks.rig import Rig, layout, recompute_within
from benchmarks.slower_card import slower_link

SHAPES = [(1024, 1024), (896, 1152), (1152, 896), (832, 1216), (1216, 832)]


def cap(gib: float) -> None:
    """Let torch take what is left of ``gib`` when CUDA's own share is taken away; 0 for all."""
    torch.zeros(1, device="cuda")
    free, total = torch.cuda.mem_get_info()
    context = total - free - torch.cuda.memory_reserved()
    limit = (gib * GIB - context) / total if gib else 1.0
    torch.cuda.set_per_process_memory_fraction(limit)


def usage(used: DeviceUsed) -> dict[str, Any]:
    stats = torch.cuda.memory_stats()
    allocated = stats["allocated_bytes.all.peak"]
    reserved = stats["reserved_bytes.all.peak"]
    return {
        "device_used_peak_gib": round(used.peak / GIB, 3),
        "allocated_peak_gib": round(allocated / GIB, 3),
        "reserved_peak_gib": round(reserved / GIB, 3),
        "reserved_over_allocated": round(reserved / allocated, 4),
        "alloc_retries": stats["num_alloc_retries"],
    }


def restart(used: DeviceUsed) -> None:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    used.restart()


def timed(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def steps(
    rig: Rig, used: DeviceUsed, *, accumulation: int, count: int, warm_up: bool = True
) -> dict[str, Any]:
    """Seconds a step and the peak, at 1024 px, batch 1, with clipping."""
    rig.micro_steps = accumulation
    inputs = [rig.inputs(1, 1024, 1024)] * accumulation
    restart(used)
    if warm_up:
        rig.train_step(inputs)
    seconds = timed(lambda: [rig.train_step(inputs) for _ in range(count)]) / count
    strays = rig.memory.gradients.num_strays
    return {"seconds_a_step": seconds, "strays": strays, **usage(used)}


def shapes(rig: Rig, used: DeviceUsed, count: int) -> dict[str, Any]:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)) % len(SHAPES)
    restart(used)

    def work() -> None:
        for shape in order.tolist():
            rig.train_step([rig.inputs(1, *SHAPES[shape])])

    return {"steps": count, "seconds_a_step": timed(work) / count, **usage(used)}


def single(gib: float, streamed: bool) -> dict[str, Any]:
    """Accumulation 1 under a hard cap."""
    with DeviceUsed() as used:
        cap(gib)
        rig = Rig(layout(streamed=streamed))
        return {"accumulation 1": steps(rig, used, accumulation=1, count=8)}


def many_shapes(gib: float, streamed: bool, count: int) -> dict[str, Any]:
    """The same with pictures of five shapes in turns."""
    with DeviceUsed() as used:
        cap(gib)
        return {"5 shapes": shapes(Rig(layout(streamed=streamed)), used, count)}


def summed(gib: float, streamed: bool) -> dict[str, Any]:
    """More accumulation under a hard cap, summed in float32."""
    with DeviceUsed() as used:
        cap(gib)
        rig = Rig(layout(streamed=streamed), micro_steps=8)
        found = {"accumulation 4": steps(rig, used, accumulation=4, count=2)}
        if not streamed:
            found["accumulation 8"] = steps(rig, used, accumulation=8, count=3)
            found["accumulation 64"] = steps(rig, used, accumulation=64, count=1, warm_up=False)
        return found


def micro_steps(gradients: str = "host") -> dict[str, Any]:
    """Accumulation 8 in float32 beside forward and backward alone, in turns."""
    rig = Rig(layout(gradients=gradients), micro_steps=8)
    return {f"batch {batch}": _micro_step(rig, batch) for batch in (1, 8)}


def slower() -> dict[str, Any]:
    """The same at batch 8 with every copy made twice: the ratio of a slower card."""
    with slower_link(2):
        rig = Rig(layout(), micro_steps=8)
    return {"batch 8": _micro_step(rig, 8)}


def _micro_step(rig: Rig, batch: int, rounds: int = 3, windows: int = 2) -> dict[str, Any]:
    count = rig.micro_steps
    inputs = rig.inputs(batch, 1024, 1024)

    def window() -> None:
        for number in range(count):
            rig.micro_step(inputs, number)

    window()
    norm = rig.memory.gradients.norm()
    rig.step(norm)
    times: dict[str, list[float]] = {"bare": [], "sums": [], "whole": [], "pass": []}
    for _ in range(rounds):
        with rig.bare() as run:
            times["bare"].append(timed(lambda run=run: [run(inputs) for _ in range(count)]))
        times["sums"].append(timed(window))
        times["pass"].append(timed(lambda: rig.step(norm)))
        # The pass runs beside the next forward, so windows are timed in a row.
        row = timed(lambda: [rig.train_step([inputs] * count) for _ in range(windows)])
        times["whole"].append(row / windows)
    middle = {name: statistics.median(values) for name, values in times.items()}
    bare = middle["bare"]
    return {
        "bare_seconds": bare / count,
        "with_gradient_sums": middle["sums"] / bare,
        "whole_optimizer": middle["whole"] / bare,
        "pass_alone_seconds": middle["pass"],
        "spread_bare": [min(times["bare"]) / bare, max(times["bare"]) / bare],
        "busy": busy_share(lambda: rig.micro_step(inputs, 1)),
    }


def busy_share(work: Callable[[], object]) -> dict[str, float]:
    """Seconds in which the card computed, of one call of ``work``, and its wall time."""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        wall = timed(work)
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events() or ()
        if str(event.device_type).endswith("CUDA") and "Memcpy" not in event.name
    )
    busy, end = 0.0, 0.0
    for start, stop in spans:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return {"busy_seconds": busy / 1e6, "wall_seconds": wall}


def recompute() -> dict[str, Any]:
    """What spare memory buys: forward and backward with as much stored as fits."""
    rig = Rig(layout())
    found = {}
    # At batch 8 the same share of the activations as 11 GiB are at batch 1.
    for batch, gib in ((1, 11.0), (8, 48.0)):
        inputs = rig.inputs(batch, 1024, 1024)
        seconds: dict[str, list[float]] = {"full": [], "chosen": []}
        with DeviceUsed() as used:
            for _ in range(3):
                for name, limit in (("full", 0.0), ("chosen", gib)):
                    rig.use(recompute_within(limit, batch))
                    cap(limit)
                    restart(used)
                    with rig.bare() as run:
                        run(inputs)
                        times = [timed(partial(run, inputs)) for _ in range(4)]
                    seconds[name].append(statistics.median(times))
            peak = usage(used)
        full, chosen = (statistics.median(seconds[name]) for name in ("full", "chosen"))
        found[f"batch {batch}, {gib:g} GiB"] = {
            "full_seconds": full,
            "chosen_seconds": chosen,
            "faster": full / chosen,
            **peak,
        }
    return found


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "resident, cap 7.0 GiB": lambda: single(7.0, False),
    "resident, summed, cap 7.0 GiB": lambda: summed(7.0, False),
    "many shapes, resident, cap 7.0 GiB": lambda: many_shapes(7.0, False, 200),
    "streamed, cap 4.0 GiB": lambda: single(4.0, True),
    "streamed, summed, cap 4.0 GiB": lambda: summed(4.0, True),
    "many shapes, streamed, cap 4.0 GiB": lambda: many_shapes(4.0, True, 40),
    "micro-steps, sums in main memory": micro_steps,
    "micro-steps, sums on the card": lambda: micro_steps("device"),
    "slower card": slower,
    "recompute": recompute,
    "planner": planner_grid,
    **memory_baselines.CASES,
}


def run_case(name: str) -> dict[str, Any]:
    """Run a case in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks.memory", name, "--alone", str(out)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if not out.exists():
            return {"failed": (done.stdout + done.stderr)[-1500:]}
        result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", help="beginnings of names; all if none")
    parser.add_argument("--alone", type=Path, help="run one case here, and write its result there")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.alone:
        result = CASES[options.cases[0]]()
        options.alone.write_text(json.dumps(result), encoding="utf-8")
        return
    wanted = options.cases or [""]
    results: dict[str, Any] = {"machine": machine_facts()}
    for name in CASES:
        if any(name.startswith(start) for start in wanted):
            started = time.monotonic()
            results[name] = run_case(name)
            seconds = time.monotonic() - started
            print(f"{name} ({seconds:.0f} s): {json.dumps(results[name])}", flush=True)
            # What is measured is kept, whatever happens to the cases after it.
            write_results("memory", results, options.out)


if __name__ == "__main__":
    main()
