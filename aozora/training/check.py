"""What a run would do, without doing it: problems, or counts and sizes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from aozora.config.checks import check_config, doubts, ticket_pool
from aozora.config.schema import TrainConfig
from aozora.config.targeting import TargetSelection
from aozora.data.dataset import BucketRow, bucket_table
from aozora.errors import AozoraError, ConfigError, Problem
from aozora.memory.machine import measure
from aozora.memory.memory_plan import plan_memory
from aozora.model.source import ModelSource
from aozora.runtime import long_path
from aozora.training.calibration import calibrate
from aozora.training.device import DTYPES, choose_device, device_settings, precision_note
from aozora.training.inputs import Pictures, find_pictures
from aozora.training.layer_forecasts import LayerSetForecast, forecast_layer_sets
from aozora.training.memory_choice import memory_facts, vram_allowed
from aozora.training.memory_summary import MemorySummary, summarise_memory
from aozora.training.objective_choice import ObjectiveChoice, choose_objective
from aozora.training.preparation import open_base, targets_of, total_steps

T = TypeVar("T")

# A forecast may be a tenth off; up to there it is only warned of.
_SURE_OVERRUN = 1.1


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a run would be.

    Attributes:
        prediction_options: Settings of the prediction, as they are trained.
        state_bytes: Bytes of the optimizer's states and of what is exact about the weights.
        memory: What the run is expected to take of the card and of main memory.
        disk_bytes: Bytes of all saves that are kept, and the one being written.
    """

    total_steps: int
    epochs: float
    samples_per_epoch: int
    batches_per_epoch: int
    pictures: int
    held_out: int
    skipped: int
    trained_parameters: int
    total_parameters: int
    trained_by_block: dict[str, tuple[int, int]]
    prediction: str
    prediction_options: dict[str, Any]
    zero_terminal_snr: bool
    device: str
    weight_bytes: int
    state_bytes: int
    memory: MemorySummary
    save_bytes: int
    disk_bytes: int
    disk_free: int
    ticket_counts: tuple[int, ...]
    buckets: tuple[BucketRow, ...]


@dataclass(frozen=True)
class CheckReport:
    """The answer of `check`: problems, or a summary.

    Attributes:
        problems: What stops the run.
        notes: What the user should know.
        summary: What it would be; None when there are problems.
        layer_sets: What other choices of layers would take; empty when that cannot be told.
    """

    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    summary: RunSummary | None
    layer_sets: tuple[LayerSetForecast, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "problems": [asdict(problem) for problem in self.problems],
            "notes": list(self.notes),
            "summary": asdict(self.summary) if self.summary else None,
            "layer_sets": [asdict(forecast) for forecast in self.layer_sets],
        }

    def to_text(self, more_figures: Sequence[str] = ()) -> str:
        """Return the report for a terminal, with ``more_figures`` among those of the run."""
        if self.problems:
            count = len(self.problems)
            head = "1 problem:" if count == 1 else f"{count} problems:"
            return "\n".join([head, *(f"  {problem}" for problem in self.problems)])
        assert self.summary is not None
        notes = (f"Note: {note}" for note in self.notes)
        return "\n".join([*_summary_lines(self.summary, more_figures), *notes])


def _summary_lines(summary: RunSummary, more_figures: Sequence[str]) -> list[str]:
    share = summary.trained_parameters / summary.total_parameters
    snr = " with zero terminal SNR" if summary.zero_terminal_snr else ""
    lines = [
        "Ready to train.",
        f"  Pictures     {summary.pictures} trained, {summary.held_out} held out,"
        f" {summary.skipped} left out",
        *more_figures,
        f"  Length       {summary.total_steps} steps, {summary.epochs:.2f} epochs of"
        f" {summary.samples_per_epoch} samples in {summary.batches_per_epoch} batches",
        f"  Layers       {summary.trained_parameters:,} of {summary.total_parameters:,}"
        f" parameters ({share:.1%})",
        f"  Objective    {summary.prediction}{snr} on {summary.device}",
        *summary.memory.lines(),
        f"  Disk         {summary.save_bytes / 1e9:.2f} GB a save, up to"
        f" {summary.disk_bytes / 1e9:.2f} GB in all; {summary.disk_free / 1e9:.0f} GB free",
        "  Buckets      width x height   pictures   samples   cut away (mean, most)",
    ]
    lines += [
        f"               {row.width:>5} x {row.height:<6} {row.num_images:>10} {row.num_samples:>9}"
        f"   {row.mean_crop_share:>6.1%} {row.max_crop_share:>6.1%}"
        for row in summary.buckets
    ]
    return lines


def check(config: TrainConfig) -> CheckReport:
    """Return everything that stops ``config`` from running, or what it would do."""
    problems = check_config(config)
    faulty_sections = {problem.path.split(".")[0] for problem in problems}
    notes: list[str] = []

    def attempt(path: str, work: Callable[[], T]) -> T | None:
        try:
            return work()
        except ConfigError as error:
            problems.extend(error.problems)
        except AozoraError as error:
            problems.append(Problem(path, error.message, error.hint))
        return None

    device = attempt("training.device", lambda: choose_device(config.training.device))
    source = attempt("model.base", lambda: open_base(config)) if config.model.base else None
    pictures = None
    if not faulty_sections & {"data", "buckets"}:
        pictures = attempt("data.folders", lambda: find_pictures(config))
    targets = objective = None
    if source is not None:
        targets = attempt("targets", lambda: targets_of(config, source))
        facts = source.facts
        objective = attempt(
            "objective",
            lambda: choose_objective(config.objective, facts.prediction, config.loss.weighting),
        )
        notes += facts.notes
        source.close()
    attempt("output.folder", lambda: _require_writable(long_path(Path(config.output.folder))))
    if problems:
        return CheckReport(tuple(problems), (), None)
    assert source is not None
    assert pictures is not None
    assert targets is not None
    assert objective is not None
    assert device is not None
    notes += [*objective.notes, *pictures.warnings]
    notes += [f"left out {item.path}: {item.reason}" for item in pictures.skipped]
    notes.append(precision_note(device, config.training.precision))
    unet = memory_facts(
        config, source.unet_shapes(), targets.names, pictures.trained, source.facts.num_bytes
    )
    # A processor is faster with more threads than a run uses.
    with device_settings(device, deterministic=config.training.deterministic):
        machine = measure(device)
    plan = plan_memory(config, unet, machine)
    calibration = calibrate(
        long_path(Path(config.output.folder)), machine.device, targets.total_params
    )
    layer_sets = forecast_layer_sets(config, unet, machine, calibration)
    if plan.overrun > _SURE_OVERRUN:
        return CheckReport(plan.shortfalls, (), None, layer_sets)
    notes += [f"it may not fit: {problem}" for problem in plan.shortfalls]
    memory = summarise_memory(plan, calibration, vram_allowed(config, machine))
    summary = _summarise(
        config, source, pictures, targets, objective, device, plan.predicted.disk, memory
    )
    samples = sum(summary.ticket_counts)
    notes += doubts(config, samples, zero_terminal_snr=objective.zero_terminal_snr)
    if summary.disk_free < summary.disk_bytes:
        notes.append("the disk may not hold all saves; lower checkpoints.keep_last or free space")
    return CheckReport((), tuple(dict.fromkeys(filter(None, notes))), summary, layer_sets)


def _what_is_there(folder: Path) -> Path:
    """Return ``folder``, or the nearest place above it that exists."""
    absolute = folder.absolute()
    return next(path for path in (absolute, *absolute.parents) if os.path.lexists(path))


def _require_writable(folder: Path) -> None:
    """Try to make something where ``folder`` is to be.

    Raises:
        AozoraError: if that is refused.
    """
    place = _what_is_there(folder)
    try:
        # Permissions alone do not tell, least of all on Windows.
        with tempfile.TemporaryDirectory(prefix=".aozora-", dir=place):
            pass
    except OSError as error:
        raise AozoraError(
            f"nothing can be written to {place} ({error.strerror or error})",
            "choose a folder you can write to",
        ) from error


def _summarise(
    config: TrainConfig,
    source: ModelSource,
    pictures: Pictures,
    targets: TargetSelection,
    objective: ObjectiveChoice,
    device: torch.device,
    save_bytes: int,
    memory: MemorySummary,
) -> RunSummary:
    training = config.training
    plan = pictures.plan(training.batch_size, training.seed)
    steps = total_steps(config, plan)
    samples = plan.samples_before(steps * training.accumulation_steps)
    itemsize = DTYPES[training.precision].itemsize
    place = _what_is_there(long_path(Path(config.output.folder)))
    return RunSummary(
        total_steps=steps,
        epochs=samples / plan.samples_per_epoch,
        samples_per_epoch=plan.samples_per_epoch,
        batches_per_epoch=plan.batches_per_epoch,
        pictures=len(pictures.trained),
        held_out=len(pictures.held_out),
        skipped=len(pictures.skipped),
        trained_parameters=targets.num_params,
        total_parameters=targets.total_params,
        trained_by_block=dict(targets.groups),
        prediction=objective.name,
        prediction_options=asdict(objective.prediction),
        zero_terminal_snr=objective.zero_terminal_snr,
        device=str(device),
        weight_bytes=itemsize * targets.total_params,
        state_bytes=save_bytes - source.facts.num_bytes - itemsize * targets.num_params,
        memory=memory,
        save_bytes=save_bytes,
        disk_bytes=save_bytes * (max(config.checkpoints.keep_last, 1) + 1),
        disk_free=shutil.disk_usage(place).free,
        ticket_counts=ticket_pool(config).counts(samples),
        buckets=bucket_table(pictures.trained),
    )
