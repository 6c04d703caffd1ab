"""Settling what is trained: what the settings say, what the base model says, and who wins."""

from __future__ import annotations

from dataclasses import dataclass

from aozora.config.choices.predictions import (
    AutoPrediction,
    Flow,
    Prediction,
    resolve_prediction,
)
from aozora.config.choices.weightings import MinSnr, NoWeighting
from aozora.config.sections import ObjectiveSection
from aozora.diffusion.objectives import Objective, make_objective
from aozora.errors import ConfigError, Problem
from aozora.model.facts import PredictionFacts
from aozora.registry import kind_of


@dataclass(frozen=True)
class ObjectiveChoice:
    """The objective of a run.

    Attributes:
        prediction: What the model predicts.
        zero_terminal_snr: Whether the last timestep is pure noise.
        notes: Contradictions and guesses the user should know of.
    """

    prediction: Prediction
    zero_terminal_snr: bool
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The prediction's registered name."""
        return kind_of(self.prediction)

    def describe(self) -> str:
        """Return everything that makes it this objective, as one text."""
        return f"{self.prediction!r}, zero terminal SNR {self.zero_terminal_snr}"

    def make(self) -> Objective:
        """Return the objective."""
        return make_objective(self.prediction, zero_terminal_snr=self.zero_terminal_snr)


def choose_objective(
    section: ObjectiveSection,
    found: PredictionFacts,
    weighting: NoWeighting | MinSnr | None = None,
) -> ObjectiveChoice:
    """Return the objective for ``section`` on a base model with ``found`` in its file.

    Args:
        section: The settings.
        found: What the base model says.
        weighting: How its loss will be weighted, for a note where the two do not go together.

    Raises:
        ConfigError: if the two cannot be combined.
    """
    prediction = resolve_prediction(section.prediction, found.prediction, _flow_of(found))
    name = kind_of(prediction)
    notes = list(found.notes)
    is_auto = isinstance(section.prediction, AutoPrediction)
    if is_auto and found.source == "none":
        notes.append(
            "the base model does not say what it predicts; epsilon is assumed"
            " (objective.prediction sets it)"
        )
    if not is_auto and found.source != "none" and found.prediction != name:
        notes.append(
            f"objective.prediction is {name}, but the base model says {found.prediction}"
            f" ({found.source}); it is trained towards {name}"
        )
    if is_auto and isinstance(prediction, Flow):
        notes.append(_shift_note(prediction, found))
    zero_terminal_snr = _zero_terminal_snr(section, name, found, notes)
    if zero_terminal_snr and isinstance(weighting, MinSnr) and weighting.floor == 0:
        notes.append(
            "with zero terminal SNR, min-SNR gives the last timestep no weight and those from 900"
            " on next to none; loss.weighting.floor 0.05 keeps them trained"
        )
    return ObjectiveChoice(prediction, zero_terminal_snr, tuple(notes))


def _flow_of(found: PredictionFacts) -> Flow:
    """Return flow with what the base model says of its shift, and the defaults for the rest."""
    usual = Flow()
    by_resolution = found.flow_resolution_shift
    return Flow(
        shift=usual.shift if found.flow_shift is None else found.flow_shift,
        resolution_shift=usual.resolution_shift if by_resolution is None else by_resolution,
    )


def _shift_note(flow: Flow, found: PredictionFacts) -> str:
    if found.flow_shift is None:
        return (
            f"the base model does not say its shift; {flow.shift:g} is assumed (set"
            " objective.prediction to flow and objective.prediction.shift to change it)"
        )
    return f"the shift is {flow.shift:g}, as the base model says ({found.source})"


def _zero_terminal_snr(
    section: ObjectiveSection, name: str, found: PredictionFacts, notes: list[str]
) -> bool:
    of_file = found.zero_terminal_snr and found.prediction == name
    if section.zero_terminal_snr == "auto":
        # Markers and schedulers tell of both; words, of the prediction alone.
        is_by_word = found.source == "modelspec" and found.prediction == name
        is_untold = found.source == "none" or (is_by_word and not of_file)
        if name == "v_prediction" and is_untold:
            notes.append(
                "the base model does not say whether it has zero terminal SNR; off is assumed,"
                " NoobAI models need on (objective.zero_terminal_snr)"
            )
        return of_file
    wanted = section.zero_terminal_snr == "on"
    if wanted and name != "v_prediction":
        raise ConfigError(
            [
                Problem(
                    "objective.zero_terminal_snr",
                    f"needs v-prediction, but the base model is trained as {name}",
                    "set objective.prediction to v_prediction, or turn it off",
                )
            ]
        )
    if found.source != "none" and wanted != found.zero_terminal_snr and name == "v_prediction":
        words = "has" if found.zero_terminal_snr else "does not have"
        notes.append(
            f"objective.zero_terminal_snr is {section.zero_terminal_snr}, but the base model"
            f" {words} the mark of it ({found.source}); the setting counts"
        )
    return wanted
