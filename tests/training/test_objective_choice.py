from __future__ import annotations

import pytest

from aozora.config.choices.predictions import AutoPrediction, Epsilon, Flow, VPrediction
from aozora.config.choices.weightings import MinSnr, NoWeighting
from aozora.config.presets import find_preset, shipped_presets
from aozora.config.schema import TrainConfig
from aozora.config.sections import ObjectiveSection
from aozora.errors import ConfigError
from aozora.model.facts import PredictionFacts
from aozora.training.objective_choice import choose_objective

SILENT = PredictionFacts("epsilon", False, "none")
EPSILON = PredictionFacts("epsilon", False, "modelspec")
V = PredictionFacts("v_prediction", False, "markers")
V_ZERO = PredictionFacts("v_prediction", True, "markers")
V_BY_WORD = PredictionFacts("v_prediction", False, "modelspec")
V_ZERO_BY_WORD = PredictionFacts("v_prediction", True, "modelspec")
V_BY_SCHEDULER = PredictionFacts("v_prediction", False, "scheduler")


def choose(found, prediction=None, snr="auto", weighting=None):
    section = ObjectiveSection(prediction=prediction or AutoPrediction(), zero_terminal_snr=snr)
    return choose_objective(section, found, weighting)


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
        (V_BY_WORD, None, "off", "v_prediction", False, 0),
        (V_ZERO_BY_WORD, None, "auto", "v_prediction", True, 0),
        (V_BY_SCHEDULER, None, "auto", "v_prediction", False, 0),
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


@pytest.mark.parametrize(
    ("found", "prediction"),
    [(V_BY_WORD, None), (SILENT, VPrediction()), (V_BY_WORD, VPrediction())],
)
def test_of_zero_terminal_snr_that_no_file_tells_of_the_user_is_told(found, prediction):
    (note,) = choose(found, prediction).notes
    assert "NoobAI models need on (objective.zero_terminal_snr)" in note


@pytest.mark.parametrize(
    ("found", "weighting", "is_told"),
    [
        (V_ZERO, MinSnr(), True),
        (V_ZERO, MinSnr(floor=0.05), False),
        (V_ZERO, NoWeighting(), False),
        (V, MinSnr(), False),
        (EPSILON, MinSnr(), False),
    ],
)
def test_min_snr_that_leaves_the_noisiest_steps_untrained_is_told(found, weighting, is_told):
    notes = choose(found, weighting=weighting).notes
    assert any("loss.weighting.floor 0.05" in note for note in notes) == is_told


@pytest.mark.parametrize("name", sorted(shipped_presets()))
def test_no_shipped_preset_leaves_the_noisiest_steps_of_a_model_untrained(name):
    config = find_preset(name).applied_to(TrainConfig())
    assert choose_objective(config.objective, V_ZERO, config.loss.weighting).notes[1:] == ()


@pytest.mark.parametrize(
    ("shift", "by_resolution", "expected", "words"),
    [
        (2.5, False, Flow(shift=2.5, resolution_shift=False), "shift is 2.5, as the base model"),
        (2.5, None, Flow(shift=2.5), "shift is 2.5, as the base model"),
        (None, None, Flow(), "does not say its shift; 3 is assumed"),
    ],
)
def test_the_shift_of_a_flow_model_is_that_of_its_file(shift, by_resolution, expected, words):
    found = PredictionFacts(
        "flow", False, "modelspec", flow_shift=shift, flow_resolution_shift=by_resolution
    )
    choice = choose(found)
    assert choice.prediction == expected
    (note,) = choice.notes
    assert words in note
    set_by_hand = choose(found, Flow(shift=4.0))
    assert (set_by_hand.prediction, set_by_hand.notes) == (Flow(shift=4.0), ())
