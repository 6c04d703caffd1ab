"""What this computer has, what it lacks, and how to get it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psutil

from aozora.runtime import cache_folder, set_up_with

Mark = Literal["ok", "missing", "note"]

_PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "accelerate", "numpy", "Pillow")
_WINDOW_PACKAGES = ("PySide6-Essentials", "pyqtgraph")
_SLOW_LINK = 5e9  # bytes a second: PCIe 3.0 with 8 lanes reaches 6e9
# No other verb installs again what the stamp says is there, or chooses PyTorch anew.
_SETUP = set_up_with()
_MARKS = {"ok": "ok     ", "missing": "MISSING", "note": "note   "}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        remedy: How to get what is missing; may be empty.
    """

    topic: str
    mark: Mark
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class DoctorReport:
    """All findings."""

    findings: tuple[Finding, ...]

    def to_plain(self) -> list[dict[str, str]]:
        """Return plain values."""
        return [asdict(finding) for finding in self.findings]

    def to_text(self) -> str:
        """Return the report for a terminal."""
        lines = []
        for finding in self.findings:
            lines.append(f"{_MARKS[finding.mark]} {finding.topic}: {finding.text}")
            if finding.remedy:
                lines.append(f"        -> {finding.remedy}")
        return "\n".join(lines)


def examine() -> DoctorReport:
    """Look at Python, packages, graphics card, attention kernels, memory and disk."""
    findings = [_python(), *map(_package, _PACKAGES), *map(_package, _WINDOW_PACKAGES)]
    findings += [*_graphics_card(), *_speeds(), *_attention(), _vocabulary(), *_memory_and_disk()]
    return DoctorReport(tuple(findings))


def _python() -> Finding:
    version = platform.python_version()
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    where = f"{version} on {platform.system()} {platform.release()} ({platform.machine()})"
    if fits:
        return Finding("Python", "ok", where)
    return Finding("Python", "missing", where, "install Python 3.11, 3.12 or 3.13")


def _package(name: str) -> Finding:
    try:
        return Finding(name, "ok", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "missing", "not installed", f"run {_SETUP}")


def _graphics_card() -> list[Finding]:
    import torch

    if not torch.cuda.is_available():
        built = "with" if torch.version.cuda else "without"
        return [
            Finding(
                "Graphics card",
                "note",
                f"none that CUDA can use (PyTorch built {built} CUDA); the processor trains",
                f"install the NVIDIA driver, then run {_SETUP}" if not torch.version.cuda else "",
            )
        ]
    findings = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        capability = f"{properties.major}.{properties.minor}"
        total = properties.total_memory / 2**30
        text = f"{properties.name}, {total:.1f} GiB, compute capability {capability}"
        findings.append(Finding(f"Graphics card {index}", "ok", text))
        if properties.major < 8:
            remedy = "set training.precision to fp16"
            findings.append(Finding("bf16", "note", "this card has no native bf16", remedy))
    return findings


def _speeds() -> list[Finding]:
    """Say how fast the card is and how fast main memory is copied to it and back."""
    import torch

    from aozora.memory.machine import measure

    if not torch.cuda.is_available():
        return []
    machine = measure(torch.device("cuda", torch.cuda.current_device()))
    rates = machine.rates
    text = (
        f"{rates.flops / 1e12:.0f} TFLOPS; copies {rates.to_device / 1e9:.0f} GB/s to the card,"
        f" {rates.to_host / 1e9:.0f} GB/s back, {rates.duplex / 1e9:.0f} GB/s each way at once;"
        f" {machine.vram_free / 2**30:.1f} GiB of its memory free;"
        f" up to {machine.pin_limit / 2**30:.0f} GiB of main memory will be page-locked"
    )
    if rates.to_device < _SLOW_LINK:
        remedy = "see that the card is in the slot with the most lanes"
        return [Finding("Speed", "note", text, remedy)]
    return [Finding("Speed", "ok", text)]


def _attention() -> list[Finding]:
    from aozora.model.attention import OptionalKernel, setup_command

    findings = [Finding("Attention: sdpa", "ok", "PyTorch's own; works everywhere")]
    extras: dict[OptionalKernel, str] = {"flash": "flash_attn", "xformers": "xformers"}
    for kind, module in extras.items():
        if importlib.util.find_spec(module) is None:
            text = "not installed (optional)"
            remedy = f"run {setup_command(kind)}"
            findings.append(Finding(f"Attention: {kind}", "note", text, remedy))
        else:
            findings.append(Finding(f"Attention: {kind}", "ok", _version_of(module)))
    return findings


def _version_of(module: str) -> str:
    try:
        return importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:
        return "installed"


def _vocabulary() -> Finding:
    if importlib.util.find_spec("open_clip") is not None:
        return Finding("CLIP vocabulary", "ok", "from the open_clip_torch package")
    remedy = f"run {_SETUP}, or set model.tokenizer"
    return Finding("CLIP vocabulary", "missing", "not installed", remedy)


def _promised_memory(available: int) -> list[Finding]:
    """Say how much memory Windows still promises, where ``available`` bytes are free; else nothing.

    It counts main memory and the paging file, so that it is less only where that file is small.
    """
    from aozora.memory.machine import commit_free

    promised = commit_free()
    if promised is None:
        return []
    text = f"Windows promises programs {promised / 2**30:.1f} GiB more"
    if promised >= available:
        return [Finding("Paging file", "ok", text)]
    remedy = (
        "let Windows manage the size of the paging file (Advanced system settings, Performance,"
        " Virtual memory)"
    )
    return [Finding("Paging file", "note", f"{text}, less than is free", remedy)]


def _memory_and_disk() -> list[Finding]:
    memory = psutil.virtual_memory()
    free = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    findings = [Finding("Memory", "ok" if memory.total > 15 * 2**30 else "note", free)]
    findings += _promised_memory(memory.available)
    for topic, folder in (("Disk here", Path.cwd()), ("Disk of the cache", cache_folder())):
        place = next(p for p in (folder, *folder.parents) if p.exists())
        usage = shutil.disk_usage(place)
        text = f"{usage.free / 2**30:.0f} GiB free at {place}"
        mark: Mark = "ok" if usage.free > 20 * 2**30 else "note"
        findings.append(Finding(topic, mark, text))
    return findings
