from __future__ import annotations

import pytest

from aozora.training.loss_scaler import LossScaler


def test_the_loss_scale_halves_on_overflow_and_grows_after_good_steps():
    scaler = LossScaler(enabled=True)
    assert scaler.note_overflow()
    assert scaler.scale == LossScaler.INITIAL / 2
    for _ in range(LossScaler.GROWTH_INTERVAL):
        scaler.note_good_step()
    assert scaler.scale == LossScaler.INITIAL


def test_a_loss_scale_of_one_cannot_mend_an_overflow():
    scaler = LossScaler(enabled=True)
    while scaler.note_overflow():
        pass
    assert scaler.scale == 1.0


def test_the_loss_scale_continues_where_it_was():
    scaler = LossScaler(enabled=True)
    scaler.note_overflow()
    scaler.note_good_step()
    other = LossScaler(enabled=True)
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == scaler.state_dict()
    with pytest.raises(ValueError, match="not a positive"):
        other.load_state_dict({"scale": float("nan"), "good_steps": 0})


def test_without_fp16_there_is_no_scale():
    scaler = LossScaler(enabled=False)
    scaler.note_good_step()
    assert not scaler.note_overflow()
    assert scaler.scale == 1.0
