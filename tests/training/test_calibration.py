"""What the record of a run says about the next forecast."""

from __future__ import annotations

import json
import os

import pytest

from aozora.memory.forecast import MemoryForecast
from aozora.training.calibration import ENOUGH_STEPS, Calibration, calibrate

CARD, SIZE = "a card", 1000


def forecast(vram=800, reserved=600, ram=2000, seconds=4.0):
    return MemoryForecast(
        vram=vram,
        reserved=reserved,
        ram=ram,
        pinned=0,
        disk=0,
        seconds=seconds,
        vram_parts=(),
        ram_parts=(),
    )


def line(name, **values):
    return json.dumps({"event": name, "time": 1.0, "run_id": "r", **values})


def plan(device=CARD, size=SIZE):
    return line(
        "RunPlanned",
        device_name=device,
        total_parameters=size,
        expected_host_bytes=2000,
        expected_reserved_bytes=600,
        expected_step_seconds=4.0,
    )


def memory(reserved, ram):
    return line("MemorySampled", device_reserved=reserved, process_rss=ram)


def step(seconds=6.0):
    return line("StepCompleted", seconds=seconds)


@pytest.fixture
def record(tmp_path):
    """Return a function that records a run; later ones are newer."""
    made = []

    def write(name, *lines):
        path = tmp_path / "runs" / name / "events.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(lines), encoding="utf-8")
        made.append(path)
        os.utime(path, (len(made), len(made)))
        return path

    return write


def usual(steps=ENOUGH_STEPS, **about):
    # What was needed before the first step is not what training takes.
    return [memory(9000, 9000), plan(**about), step(), memory(660, 1900), *[step()] * (steps - 1)]


def test_the_last_run_like_it_says_how_far_the_forecast_is_off(record, tmp_path):
    record("first", *usual())
    found = calibrate(tmp_path, CARD, SIZE)
    assert found == Calibration(run="first", reserved=1.1, ram=0.95, seconds=1.5)
    record("second", plan(), *[step(5.0)] * 40, memory(600, 2000))
    assert calibrate(tmp_path, CARD, SIZE) == Calibration(run="second", seconds=1.25)


def test_what_copies_took_while_a_save_was_written_does_not_count(record, tmp_path):
    def at(moment, text):
        return json.dumps({**json.loads(text), "time": moment})

    save = at(60.0, line("CheckpointSaved", seconds=9.0))
    samples = [at(moment, memory(600, ram)) for moment, ram in ((50.0, 2000), (55.0, 9000))]
    after = at(70.0, memory(600, 1900))
    record("saved", plan(), *[step()] * ENOUGH_STEPS, *samples, save, after)
    assert calibrate(tmp_path, CARD, SIZE).ram == 1.0


@pytest.mark.parametrize(
    "lines",
    [
        usual(ENOUGH_STEPS - 1),
        usual(device="another card"),
        usual(size=SIZE + 1),
        [plan(), *[step()] * 40],
        ["", "{", '{"event": "StepCompleted"}', *usual()[2:]],
    ],
    ids=["too short", "another card", "another size", "no memory", "no plan"],
)
def test_a_run_that_says_nothing_of_this_one_is_passed_over(record, tmp_path, lines):
    record("unlike", *lines)
    assert calibrate(tmp_path, CARD, SIZE) == Calibration()
    assert calibrate(tmp_path / "none", CARD, SIZE) == Calibration()


def test_a_record_from_before_forecasts_of_pace_is_passed_over(record, tmp_path):
    old = json.loads(plan())
    del old["expected_step_seconds"], old["device_name"]
    record("old", json.dumps(old), *usual()[2:])
    assert calibrate(tmp_path, "", SIZE) == Calibration()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("expected_host_bytes", "much"),
        ("expected_host_bytes", float("inf")),
        ("expected_reserved_bytes", None),
        ("expected_step_seconds", 0.0),
        ("expected_step_seconds", float("nan")),
    ],
)
def test_a_record_whose_forecast_is_damaged_is_passed_over(record, tmp_path, name, value):
    damaged = json.dumps({**json.loads(plan()), name: value})
    record("damaged", damaged, *usual()[2:])
    assert calibrate(tmp_path, CARD, SIZE) == Calibration()


def test_a_line_cut_off_at_the_end_of_a_killed_run_does_no_harm(record, tmp_path):
    record("killed", *usual(), '{"event": "StepComp')
    assert calibrate(tmp_path, CARD, SIZE).run == "killed"


def test_only_what_pytorch_reserves_is_corrected_of_the_card():
    expected = Calibration(run="r", reserved=1.1, ram=0.5, seconds=2.0).expect(forecast(), 10_000)
    assert expected.vram == 200 + 660
    assert expected.ram == 1000
    assert expected.seconds == 8.0


def test_ranges_hold_what_is_expected_and_are_narrower_after_a_run():
    unknown = Calibration().expect(forecast(), 10_000)
    known = Calibration(run="r").expect(forecast(), 10_000)
    for name in ("vram", "ram", "seconds"):
        low, high = getattr(known, f"{name}_range")
        wide_low, wide_high = getattr(unknown, f"{name}_range")
        assert wide_low < low < getattr(known, name) < high < wide_high


def test_no_range_goes_beyond_what_the_run_keeps_within():
    assert Calibration().expect(forecast(vram=800), 820).vram_range[1] == 820
    # What does not fit is not made to look as if it did.
    assert Calibration().expect(forecast(vram=800), 700).vram_range[1] == 800


def test_without_a_card_there_is_no_memory_of_one():
    expected = Calibration(run="r", reserved=1.0).expect(forecast(vram=0, reserved=0), 0)
    assert (expected.vram, expected.vram_range) == (0, (0, 0))
    # Little is known of a processor's pace before a run on it.
    widest = [Calibration().expect(forecast(vram=size), 900).seconds_range for size in (800, 0)]
    assert widest[0][1] < widest[1][1]
