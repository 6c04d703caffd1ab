from __future__ import annotations

import json
import typing

import pytest

from aozora import events


def example(cls):
    values = {}
    for name, kind in typing.get_type_hints(cls).items():
        origin = typing.get_origin(kind)
        if origin is typing.Literal:
            values[name] = typing.get_args(kind)[0]
        elif origin in (list, dict):
            values[name] = origin()
        else:
            values[name] = kind()
    return cls(**values)


@pytest.mark.parametrize("cls", events.EVENT_TYPES.values())
def test_every_event_survives_the_pipe(cls):
    event = example(cls)
    line = events.to_json(event, getattr(event, "run_id", "run"))
    assert "\n" not in line
    assert events.from_json(line) == event
    assert json.loads(line)["run_id"] == getattr(event, "run_id", "run")


def test_numbers_that_are_not_finite_become_null():
    event = events.StepSkipped(
        step=1,
        total_steps=2,
        reason="nan",
        in_a_row=1,
        skipped=1,
        timesteps=[float("nan")],
        tickets=[0],
        items=[],
    )
    assert json.loads(events.to_json(event, "run"))["timesteps"] == [None]


def test_a_step_recorded_before_tickets_were_told_is_read():
    record = json.loads(events.to_json(example(events.StepCompleted), "run"))
    del record["tickets"]
    assert events.from_json(json.dumps(record)).tickets == []


@pytest.mark.parametrize("line", ["", "[]", "{", '{"event": "Unheard"}', '{"event": "Warned"}'])
def test_what_is_no_event_is_refused(line):
    with pytest.raises(ValueError, match=r"."):
        events.from_json(line)
