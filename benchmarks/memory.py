"""What training the whole UNet takes of the card, and how long it takes, beside other ways.

Every case runs in a process of its own: ``python -m benchmarks.memory CASE...``; without a case,
all of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import memory_baselines
from benchmarks.common import GIB, DeviceUsed, machine_facts, write_results
from benchmarks.rig import Rig, layout

SHAPES = [(1024, 1024), (896, 1152), (1152, 896), (832, 1216), (1216, 832)]


def cap(gib: float) -> None:
    """Let torch take what is left of ``gib`` when CUDA's own share is taken away."""
    torch.zeros(1, device="cuda")
    free, total = torch.cuda.mem_get_info()
    context = total - free - torch.cuda.memory_reserved()
    torch.cuda.set_per_process_memory_fraction((gib * GIB - context) / total)


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


def peak(
    *, micro_steps: int, streamed: bool, batch: int = 1, steps: int = 4, gib: float = 0
) -> dict[str, Any]:
    with DeviceUsed() as used:
        if gib:
            cap(gib)
        rig = Rig(layout(streamed=streamed), micro_steps=micro_steps)
        torch.cuda.reset_peak_memory_stats()
        used.restart()
        seconds = []
        inputs = [rig.inputs(batch, 1024, 1024) for _ in range(micro_steps)]
        for _ in range(steps):
            started = time.perf_counter()
            rig.train_step(inputs)
            seconds.append(time.perf_counter() - started)
        torch.cuda.synchronize()
        strays = rig.memory.gradients.num_strays
        return {"seconds_a_step": statistics.median(seconds[1:]), "strays": strays, **usage(used)}


def many_shapes(gib: float, streamed: bool, steps: int) -> dict[str, Any]:
    with DeviceUsed() as used:
        cap(gib)
        rig = Rig(layout(streamed=streamed))
        order = torch.randperm(steps, generator=torch.Generator().manual_seed(0)) % len(SHAPES)
        torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        for shape in order.tolist():
            rig.train_step([rig.inputs(1, *SHAPES[shape])])
        torch.cuda.synchronize()
        return {
            "steps": steps,
            "seconds_a_step": (time.perf_counter() - started) / steps,
            **usage(used),
        }


def timed(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def stages() -> dict[str, Any]:
    """Where memory of the card that torch does not know of comes from, step by step."""
    found = {}
    with DeviceUsed() as used:

        def note(name: str) -> None:
            torch.cuda.synchronize()
            found[name] = round((used.now() - torch.cuda.memory_reserved()) / 2**20)

        torch.zeros(1, device="cuda")
        note("context")
        (
            torch.ones(512, 512, device="cuda").bfloat16() @ torch.ones(512, 512).cuda().bfloat16()
        ).sum()
        note("after a product of matrices")
        rig = Rig(layout())
        note("after the model is laid out")
        inputs = rig.inputs(1, 1024, 1024)
        with torch.no_grad():
            rig.loss(inputs)
        note("after a forward")
        with rig.bare() as run:
            run(inputs)
        note("after a backward")
        rig.micro_step(inputs, 0)
        note("after gradients were taken")
        rig.step(rig.memory.gradients.norm())
        note("after the optimizer pass")
        rig.train_step([inputs])
        note("after another step")
    return {"mib_beside_torch": found}


def micro_step_cost(batch: int, rounds: int = 5) -> dict[str, Any]:
    """One accumulation window of 8, beside 8 bare passes, in turns."""
    micro_steps = 8
    rig = Rig(layout(), micro_steps=micro_steps)
    inputs = rig.inputs(batch, 1024, 1024)
    bare_times: list[float] = []
    sum_times: list[float] = []
    whole_times: list[float] = []
    lone: list[float] = []

    def window() -> None:
        for number in range(micro_steps):
            rig.micro_step(inputs, number)

    for number in range(rounds + 1):
        with rig.bare() as run:
            bare = timed(lambda: [run(inputs) for _ in range(micro_steps)])
        summed = timed(window)
        # The pass runs beside the next window's first forward; so windows are timed in a row.
        rig.step(rig.memory.gradients.norm())
        whole = timed(lambda: [rig.train_step([inputs] * micro_steps) for _ in range(2)]) / 2
        pass_alone = timed(lambda: rig.step(rig.memory.gradients.norm()))
        if number:
            bare_times.append(bare)
            sum_times.append(summed)
            whole_times.append(whole)
            lone.append(pass_alone)
    bare = statistics.median(bare_times)
    return {
        "batch": batch,
        "micro_steps": micro_steps,
        "bare_seconds": bare / micro_steps,
        "with_gradient_sums": statistics.median(sum_times) / bare,
        "whole_optimizer": statistics.median(whole_times) / bare,
        "pass_alone_seconds": statistics.median(lone),
        "spread_bare": [min(bare_times) / bare, max(bare_times) / bare],
        "busy": busy_share(rig, lambda: window()),
    }


def busy_share(rig: Rig, work: Callable[[], object]) -> dict[str, float]:
    """Seconds in which the card computed, of one call of ``work``, and its wall time."""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        wall = timed(work)
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if str(event.device_type).endswith("CUDA") and "Memcpy" not in event.name
    )
    busy, end = 0.0, 0.0
    for start, stop in spans:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return {"busy_seconds": busy / 1e6, "wall_seconds": wall}


def end_to_end(micro_steps: int, batch: int = 1) -> dict[str, Any]:
    steps = {1: 12, 8: 5, 64: 2}[micro_steps]
    with DeviceUsed() as used:
        cap(7.0)
        rig = Rig(layout(), micro_steps=micro_steps)
        inputs = [rig.inputs(batch, 1024, 1024)] * micro_steps
        rig.train_step(inputs)
        seconds = timed(lambda: [rig.train_step(inputs) for _ in range(steps)]) / steps
        return {"seconds_a_step": seconds, **usage(used)}


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "stages": stages,
    "resident, accumulation 1": lambda: peak(micro_steps=1, streamed=False),
    "resident, accumulation 4": lambda: peak(micro_steps=4, streamed=False),
    "streamed, accumulation 1": lambda: peak(micro_steps=1, streamed=True),
    "streamed, accumulation 4": lambda: peak(micro_steps=4, streamed=True),
    "200 steps, 5 shapes, cap 7.0 GiB": lambda: many_shapes(7.0, False, 200),
    "60 steps, 5 shapes, cap 4.0 GiB, streamed": lambda: many_shapes(4.0, True, 60),
    "micro-step, batch 1": lambda: micro_step_cost(1),
    "micro-step, batch 8": lambda: micro_step_cost(8),
    "end to end, accumulation 1": lambda: end_to_end(1),
    "end to end, accumulation 8": lambda: end_to_end(8),
    "end to end, accumulation 64": lambda: end_to_end(64),
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
            results[name] = run_case(name)
            print(f"{name}: {json.dumps(results[name])}", flush=True)
    write_results("memory", results, options.out)


if __name__ == "__main__":
    main()
