from __future__ import annotations

import dataclasses
import itertools
import math
import subprocess
import sys

import pytest

from aozora.config.choices.distributions import (
    DISTRIBUTIONS,
    Beta,
    Custom,
    HighNoise,
    LogitNormal,
    Uniform,
    Wave,
)
from aozora.config.choices.losses import LOSSES
from aozora.config.choices.predictions import (
    PREDICTIONS,
    AutoPrediction,
    Epsilon,
    Flow,
    VPrediction,
    resolve_prediction,
)
from aozora.config.choices.weightings import WEIGHTINGS
from aozora.config.fields import info_of
from aozora.config.ticket_pool import BIN_COUNTS
from aozora.registry import kind_of

FAMILIES = (DISTRIBUTIONS, LOSSES, PREDICTIONS, WEIGHTINGS)
CLASSES = [cls for family in FAMILIES for cls in family.classes()]


def simpson(density, low, high, parts=400):
    step = (high - low) / parts
    inner = math.fsum((4 if i % 2 else 2) * density(low + i * step) for i in range(1, parts))
    return (density(low) + inner + density(high)) * step / 3


@pytest.mark.parametrize("cls", CLASSES)
def test_every_choice_is_usable_as_it_is_and_fully_described(cls):
    choice = cls()
    assert dataclasses.is_dataclass(choice)
    assert hash(choice) == hash(cls())
    for field in dataclasses.fields(cls):
        info = info_of(field)
        assert info.label
        assert info.help.endswith(".")
        default = getattr(choice, field.name)
        if isinstance(default, int | float) and not isinstance(default, bool):
            assert info.minimum <= default <= info.maximum


def test_names_in_config_files_are_the_decided_ones():
    assert [list(family) for family in FAMILIES] == [
        ["uniform", "logit_normal", "beta", "wave", "high_noise", "custom"],
        ["mse", "huber"],
        ["auto", "epsilon", "v_prediction", "flow"],
        ["none", "min_snr"],
    ]


@pytest.mark.parametrize("bins", BIN_COUNTS)
@pytest.mark.parametrize("cls", DISTRIBUTIONS.classes())
def test_weights_have_one_entry_a_bin_and_a_mean_of_one(cls, bins):
    weights = cls().bin_weights(bins)
    assert len(weights) == bins
    assert min(weights) >= 0
    assert math.fsum(weights) / bins == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("cls", [LogitNormal, Beta])
def test_finer_bins_of_an_exact_distribution_add_up_to_coarser_ones(cls):
    fine, coarse = cls().bin_weights(100), cls().bin_weights(10)
    for index, weight in enumerate(coarse):
        assert math.fsum(fine[index * 10 : index * 10 + 10]) / 10 == pytest.approx(weight, abs=1e-8)


@pytest.mark.parametrize(("mean", "sd"), [(0.0, 1.0), (-0.5, 1.0), (1.3, 0.8), (3.0, 0.5)])
def test_logit_normal_is_the_integral_of_its_density(mean, sd):
    def density(u):
        if not 0 < u < 1:
            return 0.0
        z = (math.log(u / (1 - u)) - mean) / sd
        return math.exp(-z * z / 2) / (sd * math.sqrt(2 * math.pi) * u * (1 - u))

    for index, weight in enumerate(LogitNormal(mean=mean, sd=sd).bin_weights(20)):
        assert simpson(density, index / 20, (index + 1) / 20) * 20 == pytest.approx(
            weight, abs=1e-4
        )


@pytest.mark.parametrize(("a", "b"), [(3, 3), (2, 5), (5, 2), (10, 10), (10, 1), (1, 1), (1.5, 7)])
def test_beta_is_the_integral_of_its_density(a, b):
    norm = math.gamma(a + b) / (math.gamma(a) * math.gamma(b))
    for index, weight in enumerate(Beta(a=float(a), b=float(b)).bin_weights(20)):
        mass = simpson(
            lambda x: norm * x ** (a - 1) * (1 - x) ** (b - 1), index / 20, index / 20 + 0.05
        )
        assert mass * 20 == pytest.approx(weight, abs=3e-4)


def test_beta_with_closed_forms():
    arcsine = [2 / math.pi * math.asin(math.sqrt(i / 20)) for i in range(21)]
    expected = [(b - a) * 20 for a, b in itertools.pairwise(arcsine)]
    assert Beta(a=0.5, b=0.5).bin_weights(20) == pytest.approx(expected, abs=2e-9)
    # I_x(a, 1) = x^a, and the mirror image for b.
    tenth = [((i + 1) / 20) ** 0.1 - (i / 20) ** 0.1 for i in range(20)]
    assert Beta(a=0.1, b=1.0).bin_weights(20) == pytest.approx([20 * m for m in tenth], abs=2e-9)
    assert Beta(a=1.0, b=0.1).bin_weights(20) == pytest.approx(
        [20 * m for m in reversed(tenth)], abs=2e-9
    )
    # I_x(1/2, 1/2)-like extremes stay symmetric.
    both = Beta(a=0.1, b=0.1).bin_weights(20)
    assert both == pytest.approx(tuple(reversed(both)), abs=2e-9)


def test_wave_follows_its_formula():
    flat = Wave(amplitude=0.0).bin_weights(20)
    assert flat == (1.0,) * 20
    ends = Wave(frequency=1.0, phase=0.0, amplitude=0.8).bin_weights(20)
    raw = [1 + 0.8 * math.cos(2 * math.pi * i / 19) for i in range(20)]
    assert ends == pytest.approx([value * 20 / sum(raw) for value in raw], abs=1e-9)
    assert min(Wave(amplitude=2.0).bin_weights(20)) == 0.0
    with pytest.raises(ValueError, match="is 0"):
        Wave(frequency=0.0, phase=math.pi, amplitude=2.0).bin_weights(20)


def test_high_noise_trains_only_from_its_start_on():
    assert HighNoise().bin_weights(20) == (0.0,) * 10 + (2.0,) * 10
    cut = HighNoise(start=525).bin_weights(20)
    assert cut[9:12] == pytest.approx((0.0, cut[11], cut[11]))
    assert HighNoise(start=0).bin_weights(10) == Uniform().bin_weights(10)


def test_custom_bars_keep_their_form_in_other_bins():
    bars = Custom(weights=tuple(float(i) for i in range(10)))
    assert bars.bin_weights(10) == pytest.approx([i / 4.5 for i in range(10)], abs=1e-9)
    assert bars.bin_weights(20) == pytest.approx([i // 2 / 4.5 for i in range(20)], abs=1e-9)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ((1.0,) * 9, "9 bins"),
        ((), "0 bins"),
        ((0.0,) * 10, "is 0"),
        ((-1.0,) + (1.0,) * 9, "0 or more"),
        ((math.nan,) * 10, "finite"),
    ],
)
def test_impossible_bars_are_refused(weights, words):
    with pytest.raises(ValueError, match=words):
        Custom(weights=weights).bin_weights(20)


def test_automatic_prediction_is_what_the_file_says():
    for name in ("epsilon", "v_prediction", "flow"):
        assert kind_of(resolve_prediction(AutoPrediction(), name)) == name
        assert resolve_prediction(Flow(shift=2.0), name) == Flow(shift=2.0)
    assert resolve_prediction(AutoPrediction(), "flow", Flow(shift=2.0)) == Flow(shift=2.0)
    assert resolve_prediction(Flow(), "flow", Flow(shift=2.0)) == Flow()
    assert resolve_prediction(VPrediction(), "epsilon") == VPrediction()
    assert resolve_prediction(Epsilon(), "v_prediction") == Epsilon()


def test_flow_shifts_by_the_side_of_the_picture_unless_told_not_to():
    assert Flow().shift_for(1024, 1024) == 3.0
    assert Flow().shift_for(1536, 1536) == 4.5
    assert Flow(shift=2.0, resolution_shift=False).shift_for(1536, 1536) == 2.0


def test_curve_tickets_and_choices_load_without_torch():
    rooms = ("lr_schedule", "lr_presets", "ticket_pool", "ticket_segments", "flow_shift")
    families = ("distributions", "losses", "predictions", "weightings")
    modules = (*rooms, *(f"choices.{name}" for name in families))
    lines = [f"import aozora.config.{name}" for name in modules]
    code = "\n".join([*lines, "import sys", "sys.exit('torch' in sys.modules)"])
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
