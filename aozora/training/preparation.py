"""What comes before training: settings, base model, layers, pictures and caches."""

from __future__ import annotations

from pathlib import Path

from aozora.config.checks import check_config
from aozora.config.run_length import steps_of_epochs
from aozora.config.schema import TrainConfig
from aozora.config.targeting import TargetSelection, select_targets
from aozora.data.batch_plan import BatchPlan
from aozora.errors import ConfigError
from aozora.events import ItemSkipped, Progressed, Warned
from aozora.model.opening import open_model
from aozora.model.source import ModelSource
from aozora.training.control import RunControl
from aozora.training.inputs import Encoders, Pictures, find_pictures, require_encoders, summarise
from aozora.training.run_record import RunRecord


def require_valid(config: TrainConfig) -> None:
    """Raise ConfigError if the settings have problems that no file needs to be read for."""
    problems = check_config(config)
    if problems:
        raise ConfigError(problems)


def open_base(config: TrainConfig) -> ModelSource:
    """Open the model that ``config`` names, with all its parts.

    Raises:
        ModelFileError: if it cannot be used.
    """
    model = config.model
    source = open_model(
        Path(model.base),
        Path(model.vae) if model.vae else None,
        Path(model.text_encoders) if model.text_encoders else None,
    )
    require_encoders(source)
    return source


def targets_of(config: TrainConfig, source: ModelSource) -> TargetSelection:
    """Return the parameters that ``config`` trains.

    Raises:
        ConfigError: if a pattern or block matches nothing.
    """
    targets = config.targets
    return select_targets(
        source.unet_shapes(),
        layers=targets.layers,
        blocks=targets.blocks,
        include=targets.include,
        exclude=targets.exclude,
    )


def total_steps(config: TrainConfig, plan: BatchPlan) -> int:
    """Return the length of the run in optimizer steps."""
    training = config.training
    if not training.epochs:
        return training.steps
    return steps_of_epochs(training.epochs, plan.batches_per_epoch, training.accumulation_steps)


def scan_pictures(config: TrainConfig, record: RunRecord, control: RunControl) -> Pictures:
    """Find the pictures of a run and tell what is left out and why.

    Raises:
        DatasetError: if a folder is missing or too few pictures are usable.
        StoppedEarly: if asked to stop.
    """
    with record.phase("scan") as words:
        pictures = find_pictures(
            config,
            lambda done, total: record.emit(Progressed(phase="scan", done=done, total=total)),
            lambda: control.should_stop,
        )
        words.append(f"{len(pictures.trained) + len(pictures.held_out)} pictures")
        if pictures.skipped:
            words.append(f"{len(pictures.skipped)} left out")
    for item in pictures.skipped:
        record.emit(ItemSkipped(path=item.path, reason=item.reason))
    for text in pictures.warnings:
        record.emit(Warned(text=text))
    return pictures


def encode_inputs(encoders: Encoders, record: RunRecord, pictures: Pictures) -> Pictures:
    """Fill the caches; return the pictures that could be encoded.

    Raises:
        DatasetError: if none could.
        StoppedEarly: if asked to stop.
    """
    with record.phase("encode_text") as words:
        words += summarise(encoders.encode_text(pictures))
    with record.phase("encode_pictures") as words:
        report = encoders.encode_pictures(pictures)
        words += summarise(report)
    return pictures.without(item.path for item in report.skipped)
