"""What the model predicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aozora.config.fields import setting
from aozora.config.flow_shift import resolution_factor
from aozora.registry import Family

PREDICTIONS = Family("prediction")

PredictionName = Literal["epsilon", "v_prediction", "flow"]


@PREDICTIONS.register("auto", "Automatic")
@dataclass(frozen=True, kw_only=True)
class AutoPrediction:
    """What the base model's file says it predicts."""


@PREDICTIONS.register("epsilon", "Noise (epsilon)")
@dataclass(frozen=True, kw_only=True)
class Epsilon:
    """The noise, as standard SDXL models do."""


@PREDICTIONS.register("v_prediction", "Velocity (v)")
@dataclass(frozen=True, kw_only=True)
class VPrediction:
    """The velocity between picture and noise, as models with zero terminal SNR do."""


@PREDICTIONS.register("flow", "Rectified flow")
@dataclass(frozen=True, kw_only=True)
class Flow:
    """The straight way from picture to noise."""

    shift: float = setting(
        3.0,
        label="Shift",
        help="Moves training towards noise; 1 leaves the timesteps as drawn.",
        minimum=0.01,
        maximum=100.0,
    )
    resolution_shift: bool = setting(
        True,
        label="Shift by resolution",
        help="Shifts larger pictures more: by their side relative to 1024 pixels.",
    )

    def shift_for(self, height: int, width: int) -> float:
        """Return the shift for pictures of these sides in pixels."""
        return self.shift * (resolution_factor(height, width) if self.resolution_shift else 1.0)


Prediction = Epsilon | VPrediction | Flow


def resolve_prediction(
    choice: AutoPrediction | Prediction, found: PredictionName, flow: Flow | None = None
) -> Prediction:
    """Return what is trained: the choice, or what was found in the base model's file.

    Args:
        choice: The setting.
        found: What the file says.
        flow: What it says of a flow model's shift; the defaults if nothing.
    """
    if not isinstance(choice, AutoPrediction):
        return choice
    options: dict[PredictionName, Prediction] = {
        "epsilon": Epsilon(),
        "v_prediction": VPrediction(),
        "flow": flow or Flow(),
    }
    return options[found]
