from __future__ import annotations

import dataclasses
import typing

import pytest

from aozora.config.choices import optimizers as choices
from aozora.config.fields import info_of
from aozora.registry import kind_of
from optimizers.adafactor import AdafactorRule
from optimizers.lion import LionRule
from optimizers.raven_adamw import AdamWRule, RavenAdamWRule
from optimizers.rule import Moments
from optimizers.velo_rms import VeloRMSRule

RULES = {
    rule.kind: rule for rule in (RavenAdamWRule, VeloRMSRule, AdafactorRule, AdamWRule, LionRule)
}
# What the rule can do and its user is not asked, because then it would be another optimizer.
FIXED = {"adamw": {"debias_strength": 1.0, "centralization": 0.0}}


def test_every_kind_that_can_be_chosen_is_that_of_a_rule():
    assert {kind_of(cls) for cls in choices.OPTIMIZERS.classes()} == set(RULES)


@pytest.mark.parametrize("kind", list(choices.OPTIMIZERS))
def test_options_and_defaults_are_those_of_the_rule(kind):
    options = dataclasses.asdict(choices.OPTIMIZERS[kind]())
    options.pop("moments", None)
    assert {**options, **FIXED.get(kind, {})} == dataclasses.asdict(RULES[kind]())
    assert not options.keys() & FIXED.get(kind, {}).keys()


def test_both_sides_know_the_same_formats_of_moments():
    assert typing.get_args(choices.Moments) == typing.get_args(Moments)


@pytest.mark.parametrize("cls", choices.OPTIMIZERS.classes())
def test_the_extremes_of_every_range_are_accepted_by_the_rule(cls):
    rule, tried = RULES[kind_of(cls)], 0
    for field in dataclasses.fields(cls):
        info = info_of(field)
        if info.maximum is None:
            continue
        for value in (info.minimum, info.maximum):
            assert getattr(rule(**{field.name: value}), field.name) == value
            tried += 1
    assert tried >= 4
