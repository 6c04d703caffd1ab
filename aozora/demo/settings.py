"""The settings of the demo: a run that learns something in a minute on two processor cores."""

from __future__ import annotations

DEMO_SETTINGS = (
    "output.name=demo",
    "buckets.resolution=192",
    "buckets.min_side=64",
    "buckets.max_side=384",
    "training.device=cpu",
    "training.precision=fp32",
    "memory.recompute=none",
    "training.steps=56",
    "training.batch_size=2",
    "training.accumulation_steps=1",
    'schedule.learning_rate=[[0, 1e-4, "log"], [0.05, 2e-3, "hold"], [0.4, 2e-3, "cosine"],'
    " [1, 1e-4]]",
    "checkpoints.every_steps=0",
    "checkpoints.keep_last=2",
    "validation.pictures=6",
    "validation.every_steps=1000",
)
