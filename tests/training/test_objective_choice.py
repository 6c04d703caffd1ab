from __future__ import annotations

import pytest

from aozora.config.choices.predictions import AutoPrediction, Epsilon, Flow, VPrediction
from aozora.config.sections import ObjectiveSection
from aozora.errors import ConfigError
from aozora.model.facts import PredictionFacts
from aozora.training.objective_choice import choose_objective

SILENT = PredictionFacts("epsilon", False, "none")
EPSILON = PredictionFacts("epsilon", False, "modelspec")
V = PredictionFacts("v_prediction", False, "markers")
V_ZERO = PredictionFacts("v_prediction", True, "markers")


def choose(found, prediction=None, snr="auto"):
    section = ObjectiveSection(prediction=prediction or AutoPrediction(), zero_terminal_snr=snr)
    return choose_objective(section, found)


@pytest.mark.parametrize(
    ("found", "prediction", "snr", "name", "is_zero", "num_notes"),
    [
        (SILENT, None, "auto", "epsilon", False, 1),
        (EPSILON, None, "auto", "epsilon", False, 0),
        (V, None, "auto", "v_prediction", False, 0),
        (V_ZERO, None, "auto", "v_prediction", True, 0),
        (V_ZERO, None, "off", "v_prediction", False, 1),
        (V_ZERO, VPrediction(), "on", "v_prediction", True, 0),
        (V, None, "on", "v_prediction", True, 1),
        (V_ZERO, Epsilon(), "auto", "epsilon", False, 1),
        (SILENT, VPrediction(), "on", "v_prediction", True, 0),
        (EPSILON, VPrediction(), "auto", "v_prediction", False, 1),
        (V_ZERO, Flow(), "auto", "flow", False, 1),
    ],
)
def test_the_settings_win_and_contradictions_are_told(
    found, prediction, snr, name, is_zero, num_notes
):
    choice = choose(found, prediction, snr)
    assert (choice.name, choice.zero_terminal_snr) == (name, is_zero)
    assert len(choice.notes) == num_notes
    assert choice.make().prediction == name


def test_zero_terminal_snr_on_an_epsilon_base_is_refused():
    with pytest.raises(ConfigError, match="needs v-prediction"):
        choose(EPSILON, None, "on")
