"""What `fit` proposes for small computers; the full-size UNet, nothing allocated."""

from __future__ import annotations

import json

import pytest

from aozora.__main__ import main
from aozora.config.codec import apply_settings
from aozora.config.schema import TrainConfig
from aozora.memory.accounting import GIB, UNetFacts
from aozora.memory.fit import fit, with_memory
from aozora.memory.machine import USUAL_RATES, Machine
from aozora.memory.memory_plan import plan_memory
from aozora.model.building import parameter_shapes
from aozora.model.sizes import standard_config
from optimizers.raven_adamw import RavenAdamWRule


@pytest.fixture(scope="module")
def facts():
    shapes = parameter_shapes("unet", standard_config("unet"))
    return UNetFacts(shapes=shapes, trained=frozenset(shapes), rule=RavenAdamWRule())


def computer(vram, ram):
    nothing = Machine(
        device="",
        vram_total=0,
        vram_free=0,
        context_bytes=0,
        ram_total=GIB,
        ram_free=GIB,
        pin_limit=0,
        rates=USUAL_RATES,
    )
    return with_memory(nothing, vram, ram)


def test_nothing_is_changed_where_everything_fits(facts):
    config = apply_settings(TrainConfig(), ["training.accumulation_steps=1"])
    result = fit(config, facts, computer(24, 128))
    assert result.fits
    assert result.settings == ()
    assert "as it is" in result.to_text()


def test_formats_get_narrower_only_as_far_as_needed(facts):
    config = apply_settings(TrainConfig(), ["optimizer.moments=float32"])
    assert plan_memory(config, facts, computer(8, 32)).shortfalls
    result = fit(config, facts, computer(8, 32))
    assert result.fits
    assert "optimizer.moments=16bit" in result.settings
    assert not any("8bit" in setting for setting in result.settings)
    smaller = fit(config, facts, computer(8, 21))
    assert smaller.fits
    assert "optimizer.moments=8bit" in smaller.settings


def test_the_settings_that_are_proposed_give_the_plan_that_is_shown(facts):
    config = apply_settings(TrainConfig(), ["training.accumulation_steps=8"])
    machine = computer(12, 32)
    result = fit(config, facts, machine)
    changed = apply_settings(config, list(result.settings))
    assert plan_memory(changed, facts, machine) == result.plan
    samples = changed.training.batch_size * changed.training.accumulation_steps
    assert samples == 8
    assert result.plan.predicted.seconds <= plan_memory(config, facts, machine).predicted.seconds


def test_no_accumulation_is_proposed_where_it_is_not_possible(facts):
    settings = ["memory.clip_by_last_norm=true", "training.batch_size=8"]
    config = apply_settings(TrainConfig(), [*settings, "training.accumulation_steps=1"])
    assert not any("accumulation" in text for text in fit(config, facts, computer(6, 64)).settings)


def test_what_cannot_fit_is_said(facts):
    result = fit(TrainConfig(), facts, computer(2, 8))
    assert not result.fits
    assert result.plan.shortfalls
    assert "does not fit" in result.to_text()


def test_the_verb_prints_settings_and_a_forecast(capsys):
    code = main(["fit", "--preset", "sdxl-8gb", "--vram", "8", "--ram", "32", "--json"])
    plain = json.loads(capsys.readouterr().out)
    assert code == 0
    assert plain["fits"]
    assert plain["forecast"]["vram"] <= 8 * GIB
    assert plain["forecast"]["ram"] <= 29 * GIB
    assert main(["fit", "--vram", "2", "--ram", "8"]) == 2
    assert "does not fit" in capsys.readouterr().out
