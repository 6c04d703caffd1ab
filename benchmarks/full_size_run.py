"""A full-size SDXL run through the command line: cache, 20 steps, save, resume, 5 steps, reload.

The base has random weights in the true layout; the pictures are scikit-image's photographs,
mirrored into mosaics of at least 1024 px.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SIDES = [(1024, 1024), (832, 1216), (1216, 832), (896, 1152)]


def write_pictures(folder: Path, count: int) -> None:
    import numpy as np
    import skimage
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    sources = [
        path
        for path in sorted(Path(skimage.data.__file__).parent.glob("*"))
        if path.suffix in (".png", ".jpg", ".jpeg")
    ]
    for number in range(count):
        picture = Image.open(sources[number % len(sources)]).convert("RGB")
        pixels = np.asarray(picture)
        mirrored = np.concatenate([pixels, pixels[:, ::-1]], axis=1)
        tile = np.concatenate([mirrored, mirrored[::-1]], axis=0)
        height, width = SIDES[number % len(SIDES)]
        repeats = math.ceil(1.3 * max(height / tile.shape[0], width / tile.shape[1]))
        mosaic = np.tile(tile, (repeats, repeats, 1))[: height + 37, : width + 21]
        Image.fromarray(mosaic).save(folder / f"photo_{number:02d}.png", compress_level=1)
        text = f"a photograph, number {number}, {sources[number % len(sources)].stem}"
        (folder / f"photo_{number:02d}.txt").write_text(text, encoding="utf-8")


def run_aozora(arguments: list[str], events: Path) -> float:
    started = time.monotonic()
    command = [sys.executable, "-m", "aozora", "train", *arguments, "--events", str(events)]
    subprocess.run(command, check=True)
    return time.monotonic() - started


def summarise(path: Path) -> dict[str, Any]:
    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        by_kind.setdefault(event["event"], []).append(event)
    steps = by_kind.get("StepCompleted", [])
    memory = by_kind.get("MemorySampled", [])
    timed = steps[2:] or steps
    return {
        "steps": len(steps),
        "skipped": len(by_kind.get("StepSkipped", [])),
        "losses_finite": all(math.isfinite(step["loss"]) for step in steps),
        "first_loss": steps[0]["loss"],
        "last_loss": steps[-1]["loss"],
        "median_seconds_per_step": statistics.median(step["seconds"] for step in timed),
        "data_wait_share": sum(s["data_wait_seconds"] for s in timed)
        / sum(s["seconds"] for s in timed),
        "device_used_peak_gib": max(m["device_used"] for m in memory) / 2**30,
        "device_reserved_peak_gib": max(m["device_peak"] for m in memory) / 2**30,
        "process_rss_peak_gib": max(m["process_rss"] for m in memory) / 2**30,
        "phases": {e["phase"]: round(e["seconds"], 1) for e in by_kind.get("PhaseFinished", [])},
        "saves": [
            {"bytes": e["bytes"], "seconds": round(e["seconds"], 1)}
            for e in by_kind.get("CheckpointSaved", [])
        ],
        "plan": {
            key: value
            for key, value in by_kind["RunPlanned"][0].items()
            if key in ("trained_parameters", "attention", "precision", "optimizer", "state_bytes")
        },
        "last_model": by_kind["CheckpointSaved"][-1]["model"],
    }


def reload(model: Path, base: Path) -> dict[str, Any]:
    """Open the saved file again and compare it with its base, tensor by tensor."""
    import torch

    from aozora.model.opening import open_model

    with open_model(base) as old, open_model(model) as new:
        changed = same = 0
        for name in old.unet_shapes():
            before, after = old.read("unet", name), new.read("unet", name)
            assert bool(torch.isfinite(after).all()), name
            changed += not torch.equal(before, after)
            same += torch.equal(before, after)
        return {"unet_tensors_changed": changed, "unet_tensors_equal": same}


def main() -> None:
    import torch

    from aozora.model.synthetic import FULL_SIZES, write_random_base

    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--note", default="", help="goes into the result")
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    options = parser.parse_args()
    folder: Path = options.dir
    started = time.monotonic()
    base = folder / "base.safetensors"
    if not base.exists():
        write_random_base(base, FULL_SIZES)
    write_pictures(folder / "pictures", 16)
    made = time.monotonic() - started
    print(f"base and pictures: {made:.1f} s", flush=True)
    common = ["--model", str(base), "--data", str(folder / "pictures")]
    common += ["--output", str(folder / "output"), "--name", "full"]
    for text in (
        f"cache.folder={folder / 'cache'}",
        "checkpoints.keep_last=1",
        "checkpoints.every_steps=0",
        "training.accumulation_steps=1",
        "logging.diagnostics_every=10",
        *options.assignments,
    ):
        common += ["--set", text]
    first = folder / "first.jsonl"
    second = folder / "second.jsonl"
    result: dict[str, Any] = {
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
        "note": options.note,
        "make_seconds": round(made, 1),
    }
    wall = run_aozora([*common, "--set", "training.steps=20"], first)
    result["first"] = {"wall_seconds": round(wall, 1), **summarise(first)}
    print(json.dumps(result, indent=1), flush=True)
    wall = run_aozora([*common, "--set", "training.steps=25", "--resume", "last"], second)
    result["resumed"] = {"wall_seconds": round(wall, 1), **summarise(second)}
    result["reload"] = reload(Path(result["resumed"]["last_model"]), base)
    for part in ("first", "resumed"):
        del result[part]["last_model"]
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
