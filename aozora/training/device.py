"""Which device a run uses, and how it is made to repeat exactly when asked to."""

from __future__ import annotations

import contextlib
import gc
import os
import re
from collections.abc import Iterator

import torch

from aozora.config.sections import Device, Precision
from aozora.errors import ConfigError, OutOfMemory, Problem
from aozora.runtime import collect_garbage

DTYPES: dict[Precision, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}
_FIRST_CAPABILITY_WITH_BF16 = 8
# Words of torch's allocator, and of Windows when main memory and paging file are all promised.
_NO_MAIN_MEMORY = re.compile(
    r"DefaultCPUAllocator|not enough memory|WinError 1455|os error 1455", re.IGNORECASE
)
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_REPEATABLE_WORKSPACES = (":4096:8", ":16:8")
# That of consumer cards; on others cuBLAS would take 32 MiB for itself instead of 8.
_USUAL_WORKSPACE = ":4096:2:16:8"


def choose_device(wanted: Device) -> torch.device:
    """Return the device to train on.

    Raises:
        ConfigError: if a graphics card is asked for and there is none that CUDA can use.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if wanted == "cuda":
        raise ConfigError(
            [
                Problem(
                    "training.device",
                    "there is no graphics card that CUDA can use",
                    "set it to auto, or see 'aozora doctor'",
                )
            ]
        )
    return torch.device("cpu")


def precision_note(device: torch.device, precision: Precision) -> str:
    """Return what the user should know of ``precision`` on ``device``; empty if nothing."""
    if device.type != "cuda" or precision != "bf16":
        return ""
    major, _ = torch.cuda.get_device_capability(device)
    if major >= _FIRST_CAPABILITY_WITH_BF16:
        return ""
    return "this card has no native bf16; training.precision fp16 is faster on it"


@contextlib.contextmanager
def device_settings(device: torch.device, *, deterministic: bool) -> Iterator[None]:
    """Set up torch for a run, and put everything back when it ends, however it ends.

    Raises:
        OutOfMemory: in place of what torch, Python or the system say then.
    """
    threads = torch.get_num_threads()
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    if device.type == "cpu":
        # More threads give other bits, and two processes with two threads each crawl.
        torch.set_num_threads(1)
    workspace = os.environ.get(_WORKSPACE)
    if deterministic and workspace not in _REPEATABLE_WORKSPACES:
        # Read by cuBLAS when it starts; without it torch refuses to be deterministic.
        os.environ[_WORKSPACE] = _REPEATABLE_WORKSPACES[0]
    elif workspace is None:
        os.environ[_WORKSPACE] = _USUAL_WORKSPACE
    if deterministic:
        torch.use_deterministic_algorithms(True)
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        refused = out_of_memory(error)
        if refused is None:
            raise
        raise refused from error
    finally:
        if device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, device)
        _restore(_WORKSPACE, workspace)
        torch.set_num_threads(threads)
        if torch.are_deterministic_algorithms_enabled() != was_deterministic:
            # Setting it, even to what it is, imports torch's compiler: more than a second.
            torch.use_deterministic_algorithms(was_deterministic)
        release_memory(device)


def out_of_memory(error: BaseException | None) -> OutOfMemory | None:
    """Return what to tell the user when ``error`` says that memory ran out; else None."""
    if isinstance(error, torch.OutOfMemoryError):
        return OutOfMemory(
            f"the device ran out of memory: {error}",
            "lower training.batch_size or buckets.resolution, set memory.recompute to all and"
            " memory.weights to streamed, or train fewer layers",
        )
    is_told = isinstance(error, (RuntimeError, OSError)) and _NO_MAIN_MEMORY.search(str(error))
    if is_told or isinstance(error, MemoryError):
        return OutOfMemory(
            f"main memory ran out: {error}".rstrip(": "),
            "close other programs, set memory.ram_limit lower, and in Windows let the system manage"
            " the size of the paging file (Advanced system settings, Performance, Virtual memory)",
        )
    return None


def _restore(variable: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(variable, None)
    else:
        os.environ[variable] = value


def limit_device_memory(device: torch.device, num_bytes: int) -> None:
    """Let torch take no more than ``num_bytes`` of a card, until `device_settings` ends.

    Beyond what is free, Windows would move memory of the card to main memory without a word, and
    everything would crawl; so it is an error instead, which the run can do something about.
    """
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(num_bytes / total, 1.0), device)


@contextlib.contextmanager
def settled_heap() -> Iterator[None]:
    """Keep Python from searching the model's objects for garbage again and again.

    A training step makes enough new objects to set off a search of all objects every few steps; on
    a card that waits for the host it is time lost. What is made from now on is searched as ever.
    """
    collect_garbage()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def release_memory(device: torch.device) -> None:
    """Give back what is no longer used, so that it is free for others."""
    collect_garbage()
    if device.type == "cuda":
        torch.cuda.empty_cache()
