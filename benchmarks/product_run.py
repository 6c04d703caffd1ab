"""``aozora train`` itself on a PC's budget: train, save, be killed, resume; on a full-size model.

The budget is set in the run's own settings. What it took is measured from outside: the card by
NVML, main memory by /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.common import nvml_card
from benchmarks.full_size_run import write_pictures

GIB = 2**30


class Watch:
    """Peaks of the card in use, beyond what was in use before, and of a process's main memory."""

    def __init__(self) -> None:
        self._nvml, self._handle = nvml_card()
        self._pid = 0
        self._idle = int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)
        self._ends = False
        self.card = self.rss = 0
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def start(self, pid: int) -> None:
        self._pid = pid
        self._thread.start()

    def stop(self) -> dict[str, float]:
        self._ends = True
        self._thread.join()
        return {
            "device_used_peak_gib": round(self.card / GIB, 3),
            "rss_peak_gib": round(self.rss / GIB, 2),
        }

    def _poll(self) -> None:
        while not self._ends:
            used = self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used
            self.card = max(self.card, int(used) - self._idle)
            try:
                pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
                self.rss = max(self.rss, pages * os.sysconf("SC_PAGE_SIZE"))
            except (OSError, IndexError):
                pass
            time.sleep(0.01)


def events_of(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break  # the last line of a run that was killed
    return found


def of_kind(path: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in events_of(path) if event["event"] == kind]


def run(arguments: list[str], events: Path, *, kill_after: int = 0) -> dict[str, Any]:
    """Run to the end, or kill it when a save is there and ``kill_after`` steps are done."""
    command = [sys.executable, "-m", "aozora", "train", *arguments, "--events", str(events)]
    started = time.monotonic()
    watch = Watch()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    watch.start(child.pid)
    while child.poll() is None:
        if kill_after and of_kind(events, "CheckpointSaved"):
            steps = of_kind(events, "StepCompleted")
            if steps and steps[-1]["step"] >= kill_after:
                os.kill(child.pid, signal.SIGKILL)
        time.sleep(0.3)
    steps = of_kind(events, "StepCompleted")
    seconds = sorted(step["seconds"] for step in steps[1:]) or [0.0]
    errors = child.stderr.read()[-1500:] if child.stderr else ""
    result: dict[str, Any] = {
        "exit": child.returncode,
        "wall_seconds": round(time.monotonic() - started, 1),
        "steps": [steps[0]["step"], steps[-1]["step"]] if steps else [],
        "median_seconds_a_step": seconds[len(seconds) // 2],
        "slowest_seconds_a_step": seconds[-1],
        "saves": [
            {key: event[key] for key in ("step", "bytes", "seconds", "stall_seconds")}
            for event in of_kind(events, "CheckpointSaved")
        ],
        "phases": {e["phase"]: round(e["seconds"], 1) for e in of_kind(events, "PhaseFinished")},
        "plan": [
            {
                "memory": event["memory"],
                "expected_device_gib": round(event["expected_device_bytes"] / GIB, 3),
                "expected_host_gib": round(event["expected_host_bytes"] / GIB, 2),
                "pinned_gb": round(event["pinned_bytes"] / 1e9, 2),
            }
            for event in of_kind(events, "RunPlanned")
        ],
        "warnings": [event["text"] for event in of_kind(events, "Warned")][-5:],
        "errors": errors if child.returncode not in (0, -signal.SIGKILL) else "",
        **watch.stop(),
    }
    return result


def losses(path: Path) -> dict[int, tuple[float, float]]:
    return {e["step"]: (e["loss"], e["grad_norm"]) for e in of_kind(path, "StepCompleted")}


def main() -> None:
    from aozora.model.synthetic import FULL_SIZES, write_random_base

    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vram", type=float, nargs="+", default=[7.0, 4.0], help="GiB, each")
    parser.add_argument("--save-at", type=int, default=30, help="step; killed two steps later")
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    options = parser.parse_args()
    folder: Path = options.dir
    base = folder / "base.safetensors"
    if not base.exists():
        write_random_base(base, FULL_SIZES)
    write_pictures(folder / "pictures", 12)
    results: dict[str, Any] = {}

    def keep(name: str, result: dict[str, Any]) -> None:
        results[name] = result
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        print(name, json.dumps(result, indent=1), flush=True)

    for vram in options.vram:
        name = f"{vram:g}_gib"
        output = folder / f"output_{name}"
        arguments = ["--model", str(base), "--data", str(folder / "pictures")]
        arguments += ["--output", str(output), "--name", name]
        for text in (
            f"cache.folder={folder / f'cache_{name}'}",
            "training.deterministic=true",
            f"training.steps={options.save_at + 10}",
            f"checkpoints.every_steps={options.save_at}",
            f"memory.vram_limit={vram}",
            "memory.pinned_limit=12.1",
            "memory.ram_limit=28",
            "memory.sum_format=bfloat16",
            "optimizer.moments=16bit",
            "training.accumulation_steps=8",
            "checkpoints.keep_last=1",
            *options.assignments,
        ):
            arguments += ["--set", text]
        first, second = folder / f"{name}_first.jsonl", folder / f"{name}_second.jsonl"
        keep(
            f"{vram:g} GiB, killed after the save of step {options.save_at}",
            run(arguments, first, kill_after=options.save_at + 2),
        )
        keep(f"{vram:g} GiB, resumed", run([*arguments, "--resume", "last"], second))
        before, after = losses(first), losses(second)
        common = sorted(set(before) & set(after))
        keep(
            f"{vram:g} GiB, steps done twice",
            {
                "steps": common,
                "same bits of loss and gradient norm": bool(common)
                and all(before[step] == after[step] for step in common),
            },
        )
        shutil.rmtree(output)  # 27 GB


if __name__ == "__main__":
    main()
