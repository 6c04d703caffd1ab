"""The whole configuration of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from aozora.config.choices.optimizers import Adafactor, AdamW, Lion, RavenAdamW, VeloRMS
from aozora.config.fields import setting
from aozora.config.sections import (
    BucketsSection,
    CacheSection,
    CaptionsSection,
    CheckpointsSection,
    DataSection,
    LoggingSection,
    LossSection,
    MemorySection,
    ModelSection,
    ObjectiveSection,
    OutputSection,
    ScheduleSection,
    TargetsSection,
    TimestepsSection,
    TrainingSection,
    ValidationSection,
)

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything a run is told. The fields are the sections of a config file."""

    model: ModelSection = field(default_factory=ModelSection)
    data: DataSection = field(default_factory=DataSection)
    buckets: BucketsSection = field(default_factory=BucketsSection)
    captions: CaptionsSection = field(default_factory=CaptionsSection)
    cache: CacheSection = field(default_factory=CacheSection)
    objective: ObjectiveSection = field(default_factory=ObjectiveSection)
    timesteps: TimestepsSection = field(default_factory=TimestepsSection)
    loss: LossSection = field(default_factory=LossSection)
    optimizer: RavenAdamW | VeloRMS | AdamW | Lion | Adafactor = setting(
        RavenAdamW(), label="Optimizer", help="How gradients move the weights."
    )
    schedule: ScheduleSection = field(default_factory=ScheduleSection)
    targets: TargetsSection = field(default_factory=TargetsSection)
    training: TrainingSection = field(default_factory=TrainingSection)
    memory: MemorySection = field(default_factory=MemorySection)
    checkpoints: CheckpointsSection = field(default_factory=CheckpointsSection)
    validation: ValidationSection = field(default_factory=ValidationSection)
    output: OutputSection = field(default_factory=OutputSection)
    logging: LoggingSection = field(default_factory=LoggingSection)
