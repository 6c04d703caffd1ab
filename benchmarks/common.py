"""What the benchmarks of this folder share: the machine, the model's shapes, memory, results."""

from __future__ import annotations

import json
import math
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from aozora.model.building import empty_unet, parameter_shapes
from aozora.model.synthetic import FULL_SIZES, configs_of
from optimizers.host_memory import register

# Which card is meant by a number is then the same for CUDA and NVML.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")

GIB = 2**30
RESULTS = Path(__file__).parent / "results"


def full_unet_config() -> dict[str, Any]:
    return dict(configs_of(FULL_SIZES)["unet"])


def full_shapes() -> dict[str, torch.Size]:
    shapes = parameter_shapes("unet", full_unet_config())
    return {name: torch.Size(shape) for name, shape in shapes.items()}


def zero_unet(dtype: torch.dtype) -> nn.Module:
    """The full UNet with zeros on the host, which cost no memory until something is written."""
    unet = empty_unet(full_unet_config())
    for name, parameter in list(unet.named_parameters()):
        parent, _, leaf = name.rpartition(".")
        value = nn.Parameter(torch.zeros(parameter.shape, dtype=dtype), requires_grad=False)
        unet.get_submodule(parent).register_parameter(leaf, value)
    return unet.train()


@torch.no_grad()
def fill_randomly(weights: dict[str, Tensor], seed: int = 0) -> None:
    """Give weights, wherever they are, values of the size that training starts from."""
    device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
    generator = torch.Generator(device).manual_seed(seed)
    for name, weight in weights.items():
        if weight.ndim > 1:
            scale = 1.0 / math.sqrt(weight[0].numel())
            values = torch.randn(weight.shape, device=device, generator=generator)
            weight.copy_(values.mul_(scale))
        else:
            weight.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)


def machine_facts() -> dict[str, Any]:
    import psutil

    facts: dict[str, Any] = {
        "torch": torch.__version__,
        "cpus": psutil.cpu_count(),
        "ram_gib": round(psutil.virtual_memory().total / GIB, 1),
    }
    if torch.cuda.is_available():
        facts["card"] = torch.cuda.get_device_name()
        facts["vram_gib"] = round(torch.cuda.get_device_properties(0).total_memory / GIB, 1)
    return facts


def link_rates(sizes_mib: tuple[int, ...] = (8, 32, 128, 512, 1024)) -> dict[str, Any]:
    """Bytes a second of page-locked copies: each way alone, and each way when both go at once."""
    out: dict[str, Any] = {"to_device": 0.0, "to_host": 0.0, "duplex": 0.0, "duplex_by_mib": {}}
    size = max(sizes_mib) * 2**20
    host = [torch.zeros(size, dtype=torch.uint8) for _ in range(2)]
    for memory in host:
        assert register(memory) == ""
    device = [torch.empty(size, dtype=torch.uint8, device="cuda") for _ in range(2)]
    streams = [torch.cuda.Stream() for _ in range(2)]

    def seconds(mib: int, to_device: bool, to_host: bool) -> float:
        step = mib * 2**20
        repeats = max(4, 2048 // mib)
        torch.cuda.synchronize()
        started = time.perf_counter()
        for number in range(repeats):
            start = (number * step) % (size - step + 1)
            if to_device:
                with torch.cuda.stream(streams[0]):
                    device[0][start : start + step].copy_(
                        host[0][start : start + step], non_blocking=True
                    )
            if to_host:
                with torch.cuda.stream(streams[1]):
                    host[1][start : start + step].copy_(
                        device[1][start : start + step], non_blocking=True
                    )
        torch.cuda.synchronize()
        return (time.perf_counter() - started) / (repeats * step)

    for mib in sizes_mib:
        for _ in range(2):
            out["to_device"] = max(out["to_device"], 1 / seconds(mib, True, False))
            out["to_host"] = max(out["to_host"], 1 / seconds(mib, False, True))
            rate = 1 / seconds(mib, True, True)
            best = max(rate, out["duplex_by_mib"].get(str(mib), 0.0))
            out["duplex_by_mib"][str(mib)] = best
    out["duplex"] = max(out["duplex_by_mib"].values())
    runtime = torch.cuda.cudart()
    for memory in host:
        runtime.cudaHostUnregister(memory.data_ptr())
    return out


def median_seconds(work: Callable[[], object], repeats: int = 7, warm_up: int = 2) -> float:
    times = []
    for number in range(warm_up + repeats):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        if number >= warm_up:
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def nvml_card() -> tuple[Any, Any]:
    """Return NVML and its handle of the card that CUDA calls the first."""
    import pynvml

    pynvml.nvmlInit()
    number = int(os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0])
    return pynvml, pynvml.nvmlDeviceGetHandleByIndex(number)


class Peak:
    """The most of a figure that is read again and again, while in a ``with`` block.

    Args:
        now: Returns the figure.
    """

    def __init__(self, now: Callable[[], int]) -> None:
        self.now = now
        self.peak = 0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ends.set()
        self._thread.join()

    def restart(self) -> None:
        self.peak = 0

    def _poll(self) -> None:
        while not self._ends.is_set():
            self.peak = max(self.peak, self.now())
            self._ends.wait(0.005)


class DeviceUsed(Peak):
    """Peak of what the whole card has in use, beyond what was in use before this process."""

    def __init__(self) -> None:
        nvml, handle = nvml_card()

        def used() -> int:
            return int(nvml.nvmlDeviceGetMemoryInfo(handle).used)

        idle = used()
        super().__init__(lambda: used() - idle)


def write_results(name: str, result: dict[str, Any], out: Path | None) -> None:
    text = json.dumps(result, indent=2)
    path = out or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    print(f"written: {path}")


def table(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
