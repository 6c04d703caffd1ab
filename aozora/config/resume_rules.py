"""Which settings must be as they were when a run goes on from its state."""

from __future__ import annotations

# A change here would make the rest of the run another run; such a resume is refused.
MUST_MATCH = (
    "training.seed",
    "training.batch_size",
    "training.accumulation_steps",
    "training.precision",
    "captions.tokens",
    "validation.pictures",
    "targets",
    "optimizer.kind",
    "optimizer.moments",
    "memory.sum_format",
    "memory.clip_by_last_norm",
)
# These name places; whether their content is the same is decided by fingerprints.
BY_CONTENT = ("model.base", "model.vae", "model.text_encoders", "data.folders", "schema")


def must_match(path: str) -> bool:
    """Return whether the setting at ``path`` may not change."""
    return is_under(path, MUST_MATCH)


def is_compared_by_content(path: str) -> bool:
    """Return whether what the setting at ``path`` names is compared, not its value."""
    return is_under(path, BY_CONTENT)


def is_under(path: str, roots: tuple[str, ...]) -> bool:
    """Return whether ``path`` is one of ``roots`` or stands below one."""
    return any(path == root or path.startswith(root + ".") for root in roots)
