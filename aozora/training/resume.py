"""What may differ between a saved state and the run that continues it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aozora.config.resume_rules import is_compared_by_content, must_match
from aozora.errors import CheckpointError


@dataclass(frozen=True)
class Difference:
    """One setting that differs.

    Attributes:
        path: Dotted path.
        saved: Value in the state.
        current: Value asked for now.
        allowed: Whether the run can go on with the new value.
    """

    path: str
    saved: Any
    current: Any
    allowed: bool

    def __str__(self) -> str:
        return f"{self.path}: {self.saved!r} in the state, {self.current!r} now"


def flatten(data: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return nested settings as one level of dotted paths."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        where = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            flat.update(flatten(value, where))
        else:
            flat[where] = value
    return flat


def compare_settings(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[Difference]:
    """Return every setting that differs, those that forbid resuming first."""
    before, now = flatten(saved), flatten(current)
    differences = [
        Difference(path, before.get(path), now.get(path), not must_match(path))
        for path in {**before, **now}
        if before.get(path) != now.get(path) and not is_compared_by_content(path)
    ]
    return sorted(differences, key=lambda d: d.allowed)


@dataclass(frozen=True)
class Identity:
    """What a state belongs to.

    Attributes:
        base: Fingerprint of the base model.
        dataset: Fingerprint of pictures, captions and geometry.
        objective: Prediction and schedule, in words.
        tensors: Shapes of the trained tensors by name.
        encoders: Fingerprint of the VAE and both text encoders.
        left_out: Pictures of the dataset that could not be encoded; ``dataset`` is without them.
    """

    base: str
    dataset: str
    objective: str
    tensors: Mapping[str, list[int]]
    encoders: str = ""
    left_out: tuple[str, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """Return plain values for the state file."""
        return {
            "base": self.base,
            "dataset": self.dataset,
            "objective": self.objective,
            "tensors": dict(self.tensors),
            "encoders": self.encoders,
            "left_out": list(self.left_out),
        }


_IDENTITY_WORDS = {
    "base": "the base model is another one",
    "dataset": "pictures, captions or bucket settings have changed",
    "objective": "the objective is another one",
    "tensors": "other layers are trained",
    "encoders": "the VAE or a text encoder is another one",
}


def require_same(
    state: Mapping[str, Any], identity: Identity, differences: list[Difference]
) -> None:
    """Refuse a state that belongs to another run.

    Raises:
        CheckpointError: listing everything that must match and does not.
    """
    # States were first written without the encoders.
    saved, current = {"encoders": identity.encoders, **state["identity"]}, identity.to_plain()
    faults = [words for key, words in _IDENTITY_WORDS.items() if saved.get(key) != current[key]]
    faults += [str(difference) for difference in differences if not difference.allowed]
    if faults:
        raise CheckpointError(
            "the state cannot be resumed with these settings:\n  " + "\n  ".join(faults),
            "restore what changed, or start a new run from the saved model",
        )
