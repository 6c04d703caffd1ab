"""What this computer can do: its memory, and how fast it computes and copies, measured once."""

from __future__ import annotations

import ctypes
import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from aozora.runtime import cache_folder, write_json_atomic
from optimizers.host_memory import register

log = logging.getLogger(__name__)

_COPY_BYTES = 128 * 2**20
_MATRIX_SIDE = 4096
_SECONDS_A_RATE = 0.25
_SECONDS_ON_PROCESSOR = 0.05
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Speeds that belong to the hardware.

    Attributes:
        to_device: Bytes a second from page-locked memory to the device, alone.
        to_host: The other way, alone.
        duplex: Each way, when both go at once.
        memcpy: Bytes a second the host copies within main memory with one thread.
        flops: Floating-point operations a second of a large matrix product in the run's format.
    """

    to_device: float
    to_host: float
    duplex: float
    memcpy: float
    flops: float


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A computer as the planner sees it; sizes in bytes.

    Attributes:
        device: Name of the card; empty for the processor.
        vram_total: Memory of the card; 0 for the processor.
        vram_free: What nobody else uses of it; this process's own context counts as free.
        context_bytes: What CUDA itself takes of it in this process.
        ram_total: Main memory.
        ram_free: What nobody else uses of it, with what can be freed at once; on Windows no more
            than it still promises to programs.
        pin_limit: Most main memory to page-lock unless the settings say otherwise.
        rates: How fast it is.
    """

    device: str
    vram_total: int
    vram_free: int
    context_bytes: int
    ram_total: int
    ram_free: int
    pin_limit: int
    rates: Rates

    @property
    def has_card(self) -> bool:
        """Whether there is a card with memory of its own."""
        return self.vram_total > 0


def pin_share() -> float:
    """Return the share of main memory that may be page-locked.

    Windows allows no more than about half, and needs some of that for itself.
    """
    return 0.40 if sys.platform == "win32" else 0.70


def measure(device: torch.device, *, cache: Path | None = None) -> Machine:
    """Return what ``device`` and this computer are.

    Rates are measured in about two seconds and kept in a file, by card, driver and torch version;
    free memory is looked at each time. On the processor nothing is copied, so there are no copies
    to measure.

    Args:
        device: Where the model will run.
        cache: The file; that of this user if None.
    """
    memory, own = psutil.virtual_memory(), psutil.Process().memory_info()
    ram_free = memory.available + own.rss
    promised = commit_free()
    if promised is not None:
        ram_free = min(ram_free, promised + own.vms)  # there vms is what was promised to this one
    name, free, total = "", 0, 0
    if device.type == "cuda":
        name = torch.cuda.get_device_properties(device).name
        free, total = _card_memory(device)
    rates = _known_rates(device, cache or cache_folder() / "machine.json")
    if device.type == "cuda":
        torch.cuda.empty_cache()  # the run's memory begins clean
    return Machine(
        device=name,
        vram_total=total,
        vram_free=free,
        context_bytes=USUAL_CONTEXT_BYTES if total else 0,
        ram_total=memory.total,
        ram_free=ram_free,
        pin_limit=int(pin_share() * memory.total),
        rates=rates,
    )


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of Windows."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total_physical", ctypes.c_uint64),
        ("free_physical", ctypes.c_uint64),
        ("total_commit", ctypes.c_uint64),
        ("free_commit", ctypes.c_uint64),
        ("total_virtual", ctypes.c_uint64),
        ("free_virtual", ctypes.c_uint64),
        ("free_extended", ctypes.c_uint64),
    )


def commit_free() -> int | None:
    """Return how much memory Windows still promises to this process, in bytes; None elsewhere.

    It promises no more than main memory and paging file hold together, and refuses the rest even
    where main memory is free.
    """
    if sys.platform != "win32":
        return None
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    is_known = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return int(status.free_commit) if is_known else None


def room_within(ram_limit: int) -> int:
    """Return how much more main memory this process may take for a while, in bytes.

    Half of what is free is left to the rest of the computer.

    Args:
        ram_limit: Most main memory of the whole process.
    """
    left = ram_limit - psutil.Process().memory_info().rss
    return int(max(0, min(left, psutil.virtual_memory().available // 2)))


def _card_memory(device: torch.device) -> tuple[int, int]:
    """Return what is free on a card, this process aside, and what it has."""
    torch.zeros(1, device=device)  # the context exists from here on
    free, total = torch.cuda.mem_get_info(device)
    # The driver does not tell what a context takes, so the usual size is assumed.
    own = torch.cuda.memory_reserved(device) + USUAL_CONTEXT_BYTES
    return min(free + own, total), total


USUAL_CONTEXT_BYTES = 520 * 2**20
"""What CUDA takes on a card for one process; 0.51 GiB were measured on a Hopper card."""


USUAL_RATES = Rates(to_device=12e9, to_host=12e9, duplex=10e9, memcpy=8e9, flops=25e12)
"""Those of an RTX 3060 in a PCIe 3.0 slot, which computers that are asked about but not there
are taken to have."""


def _known_rates(device: torch.device, cache: Path) -> Rates:
    key = _key(device)
    found = _read_cache(cache)
    if key in found:
        return Rates(**found[key])
    rates = _measure_rates(device)
    try:
        write_json_atomic(cache, {**found, key: asdict(rates)}, sync=False)
    except OSError as error:
        log.warning("Could not keep the measured speeds in %s: %s", cache, error)
    return rates


def _read_cache(cache: Path) -> dict[str, Any]:
    """Return what was measured before, by key; nothing if that cannot be read."""
    try:
        found = json.loads(cache.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("Speeds are measured again: %s cannot be read: %s", cache, error)
        return {}
    if not isinstance(found, dict):
        log.warning("Speeds are measured again: %s is not what was expected", cache)
        return {}
    good = {key: value for key, value in found.items() if _are_rates(value)}
    if len(good) < len(found):
        log.warning("Speeds may be measured again: some in %s are not what was expected", cache)
    return good


def _are_rates(value: Any) -> bool:
    names = {field.name for field in fields(Rates)}
    return (
        isinstance(value, dict)
        and set(value) == names
        and all(isinstance(v, (int, float)) and v > 0 for v in value.values())
    )


def _key(device: torch.device) -> str:
    """Return what the rates depend on, as the key of the cache."""
    parts = [f"{_FORMAT}", torch.__version__]
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        parts += [properties.name, str(properties.total_memory), _driver()]
    else:
        parts += ["cpu", str(torch.get_num_threads())]
    return " ".join(parts)


def _driver() -> str:
    """Return the version of the CUDA driver."""
    version = getattr(torch._C, "_cuda_getDriverVersion", None)
    return str(version()) if version is not None else ""


def _measure_rates(device: torch.device) -> Rates:
    seconds = _SECONDS_A_RATE if device.type == "cuda" else _SECONDS_ON_PROCESSOR
    memcpy = _memcpy_rate(seconds)
    if device.type != "cuda":
        flops = _matmul_rate(device, torch.float32, 512, seconds)
        return Rates(to_device=memcpy, to_host=memcpy, duplex=memcpy, memcpy=memcpy, flops=flops)
    major, _ = torch.cuda.get_device_capability(device)
    dtype = torch.bfloat16 if major >= 8 else torch.float16
    flops = _matmul_rate(device, dtype, _MATRIX_SIDE, seconds)
    to_device, to_host, duplex = _link_rates(device)
    return Rates(to_device=to_device, to_host=to_host, duplex=duplex, memcpy=memcpy, flops=flops)


def rate_of(
    work: Callable[[], object],
    amount: float,
    *,
    clock: Callable[[], float] = time.perf_counter,
    seconds: float = _SECONDS_A_RATE,
) -> float:
    """Return how much of ``amount`` is done a second: the best of as many runs as fit.

    Args:
        work: Does ``amount`` of it, and returns when that is done. The first run is not counted.
        amount: Bytes, operations.
        clock: Seconds since some time.
        seconds: How long to go on.
    """
    work()
    best = 0.0
    end = clock() + seconds
    while True:
        begin = clock()
        work()
        now = clock()
        best = max(best, amount / max(now - begin, 1e-9))
        if now >= end:
            return best


def _memcpy_rate(seconds: float) -> float:
    source = torch.ones(_COPY_BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    return rate_of(lambda: target.copy_(source), source.nbytes, seconds=seconds)


def _matmul_rate(device: torch.device, dtype: torch.dtype, side: int, seconds: float) -> float:
    a = torch.randn(side, side, device=device, dtype=dtype)
    b = torch.randn(side, side, device=device, dtype=dtype)
    out = torch.empty_like(a)
    repeats = 4 if device.type == "cuda" else 1

    def work() -> None:
        for _ in range(repeats):
            torch.mm(a, b, out=out)
        _wait(device)

    return rate_of(work, repeats * 2.0 * side**3, seconds=seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _link_rates(device: torch.device) -> tuple[float, float, float]:
    """Return bytes a second to the device, to the host, and each way when both go at once."""
    host = [torch.zeros(_COPY_BYTES, dtype=torch.uint8) for _ in range(2)]
    pinned = [memory for memory in host if not register(memory)]
    card = [torch.empty(_COPY_BYTES, dtype=torch.uint8, device=device) for _ in range(2)]
    streams = [torch.cuda.Stream(device) for _ in range(2)]  # type: ignore[no-untyped-call]

    def copy(number: int, target: Tensor, source: Tensor) -> None:
        with torch.cuda.stream(streams[number]):
            target.copy_(source, non_blocking=True)

    def both() -> None:
        copy(0, card[0], host[0])
        copy(1, host[1], card[1])
        _wait(device)

    def one(number: int, target: Tensor, source: Tensor) -> None:
        copy(number, target, source)
        _wait(device)

    try:
        _wait(device)
        to_device = rate_of(lambda: one(0, card[0], host[0]), _COPY_BYTES)
        to_host = rate_of(lambda: one(1, host[1], card[1]), _COPY_BYTES)
        duplex = rate_of(both, _COPY_BYTES)
    finally:
        _wait(device)
        for memory in pinned:
            torch.cuda.cudart().cudaHostUnregister(memory.data_ptr())  # type: ignore[no-untyped-call]
    return to_device, to_host, duplex
