"""What a check found out of a run that its settings leave open; free of Qt."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aozora.config.choices.predictions import (
    PREDICTIONS,
    AutoPrediction,
    Flow,
    Prediction,
    VPrediction,
)
from aozora.config.sections import ObjectiveSection


@dataclass(frozen=True)
class CheckedRun:
    """The answer of a check, or nothing of it.

    Attributes:
        prediction: What is trained; None when not known.
        zero_terminal_snr: Whether the noise schedule ends in pure noise.
        buckets: Height and width of each bucket and its samples of an epoch; empty when not known.
    """

    prediction: Prediction | None = None
    zero_terminal_snr: bool = False
    buckets: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def of_summary(cls, summary: Mapping[str, Any]) -> CheckedRun:
        """Return what the ``summary`` of a check's answer says; nothing of one that is empty."""
        if not summary.get("prediction"):
            return cls()
        options = summary.get("prediction_options", {})
        return cls(
            PREDICTIONS[summary["prediction"]](**options),
            bool(summary.get("zero_terminal_snr")),
            tuple(map(_size, summary.get("buckets", ()))),
        )

    def prediction_of(self, section: ObjectiveSection) -> Prediction | None:
        """Return what is trained by ``section``; None when it is for the base model to say."""
        if not isinstance(section.prediction, AutoPrediction):
            return section.prediction
        if section.zero_terminal_snr == "on":
            # Nothing else can be trained then.
            return VPrediction()
        return self.prediction

    def has_zero_terminal_snr(self, section: ObjectiveSection) -> bool:
        """Return whether the noise schedule of ``section`` ends in pure noise, as far as known."""
        if section.zero_terminal_snr != "auto":
            return section.zero_terminal_snr == "on"
        return self.zero_terminal_snr and isinstance(self.prediction_of(section), VPrediction)

    def shifts(self, section: ObjectiveSection, side: int) -> dict[float, float]:
        """Return the flow shifts that occur and how often each does; empty without any.

        Args:
            section: What is trained.
            side: Training resolution; pictures are taken as squares of it before a check.
        """
        flow = self.prediction_of(section)
        if not isinstance(flow, Flow):
            return {}
        found: dict[float, float] = {}
        for height, width, samples in self.buckets or ((side, side, 1),):
            shift = flow.shift_for(height, width)
            found[shift] = found.get(shift, 0.0) + samples
        return {} if _are_all_one(found) else found


def _size(row: Mapping[str, Any]) -> tuple[int, int, int]:
    return int(row["height"]), int(row["width"]), int(row["num_samples"])


def _are_all_one(shifts: Iterable[float]) -> bool:
    return all(math.isclose(shift, 1.0) for shift in shifts)
