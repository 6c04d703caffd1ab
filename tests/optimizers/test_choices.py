from __future__ import annotations

import dataclasses
import inspect
import typing

import pytest

from aozora.config.choices import optimizers as choices
from aozora.config.fields import info_of
from aozora.registry import kind_of
from optimizers.adafactor import AdafactorRule
from optimizers.adamw import MasterAdamW
from optimizers.raven_adamw import RavenAdamWRule
from optimizers.rule import Moments
from optimizers.velo_rms import VeloRMSRule

RULES = {rule.kind: rule for rule in (RavenAdamWRule, VeloRMSRule, AdafactorRule)}


def _defaults(constructor):
    return {
        name: parameter.default
        for name, parameter in inspect.signature(constructor).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


@pytest.mark.parametrize("kind", list(choices.OPTIMIZERS))
def test_options_and_defaults_are_those_of_the_optimizer(kind):
    options = dataclasses.asdict(choices.OPTIMIZERS[kind]())
    options.pop("moments", None)
    assert options == _defaults(RULES.get(kind, MasterAdamW))


@pytest.mark.parametrize("kind", list(RULES))
def test_kinds_are_those_of_the_rules(kind):
    assert kind_of(choices.OPTIMIZERS[kind]) == RULES[kind].kind


def test_both_sides_know_the_same_formats_of_moments():
    assert typing.get_args(choices.Moments) == typing.get_args(Moments)


@pytest.mark.parametrize("cls", choices.OPTIMIZERS.classes())
def test_the_extremes_of_every_range_are_accepted_by_the_optimizer(cls):
    rule = RULES.get(kind_of(cls))
    for field in dataclasses.fields(cls):
        info = info_of(field)
        if rule is None or info.maximum is None:
            continue
        for value in (info.minimum, info.maximum):
            rule(**{field.name: value})
