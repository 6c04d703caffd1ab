from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aozora.events import (
    CheckpointSaved,
    PhaseFinished,
    PhaseStarted,
    Progressed,
    RunFailed,
    RunFinished,
    RunStarted,
    StepCompleted,
    Warned,
)
from gui.engine.states import (
    ACTIVE,
    ENDED,
    Checked,
    EngineEnded,
    RunState,
    RunStatus,
    Silence,
    StartRequested,
    StopOverdue,
    StopRequested,
    advance,
)


def step(number, total=10):
    return StepCompleted(
        step=number,
        total_steps=total,
        epoch=0.1,
        loss=0.1,
        lr=1e-6,
        grad_norm=1.0,
        timesteps=[5.0],
        tickets=[5],
        sample_losses=[0.1],
        items=[0],
        samples=number,
        seconds=0.1,
        data_wait_seconds=0.0,
    )


def saved(number):
    return CheckpointSaved(
        step=number, model="m", state=f"s{number}", bytes=1, seconds=0.1, removed=[]
    )


def finished(reason, number=10):
    return RunFinished(reason=reason, step=number, skipped_steps=0, seconds=1.0)


def after(*happenings, start=None):
    status = start or RunStatus()
    for happening in happenings:
        status = advance(status, happening)
    return status


BEGUN = (StartRequested(), RunStarted(run_id="r", folder="/f"), PhaseStarted(phase="train"))


def test_a_document_with_problems_cannot_be_started():
    status = after(Checked(2))
    assert status.state is RunState.BLOCKED
    assert status.problems == 2
    assert not status.can_start
    assert after(Checked(0), start=status).can_start


def test_a_run_of_other_settings_needs_no_document_and_leaves_its_problems():
    blocked = after(Checked(2))
    assert blocked.is_free
    running = after(*BEGUN, start=blocked)
    assert running.state is RunState.TRAINING
    assert not running.is_free
    assert after(StartRequested(), start=running) is running
    ended = after(finished("completed"), start=running)
    assert not ended.is_free, "the engine is still there"
    gone = after(EngineEnded(), start=ended)
    assert gone.is_free
    assert gone.problems == 2
    assert not gone.can_start


def test_a_run_goes_through_its_states_in_order():
    happenings = [
        StartRequested(),
        RunStarted(run_id="r", folder="/f"),
        PhaseStarted(phase="encode_pictures"),
        Progressed(phase="encode_pictures", done=5, total=10),
        PhaseFinished(phase="encode_pictures", seconds=1.0),
        PhaseStarted(phase="train"),
        step(1),
        PhaseStarted(phase="save"),
        saved(1),
        PhaseFinished(phase="save", seconds=1.0),
        step(2),
        finished("completed", 2),
        EngineEnded(),
    ]
    states, status = [], RunStatus()
    for happening in happenings:
        status = advance(status, happening)
        if not states or states[-1] is not status.state:
            states.append(status.state)
    assert states == [
        RunState.PREPARING,
        RunState.TRAINING,
        RunState.SAVING,
        RunState.TRAINING,
        RunState.FINISHED,
    ]
    assert status.can_start
    assert status.step == 2
    assert status.state_file == "s1"


def test_progress_of_the_preparation_is_a_share_of_its_phase():
    status = after(StartRequested(), Progressed(phase="encode_pictures", done=5, total=20))
    assert status.share_done == 0.25
    assert after(step(4), start=status).share_done == 0.4


def test_unsaved_steps_are_counted_from_the_last_checkpoint_or_the_resume():
    resumed = RunStarted(run_id="r", folder="/f", resumed_from="s", start_step=3)
    status = after(StartRequested(), resumed, step(4), step(5))
    assert status.unsaved_steps == 2
    assert after(saved(5), step(6), start=status).unsaved_steps == 1


def test_a_stop_holds_until_the_engine_is_gone():
    status = after(*BEGUN, step(3), StopRequested(save=True))
    assert status.state is RunState.STOPPING
    assert status.stop_requested == "save"
    status = after(step(4), PhaseStarted(phase="save"), start=status)
    assert status.state is RunState.STOPPING
    assert after(finished("stopped", 4), EngineEnded(), start=status).state is RunState.STOPPED


def test_a_saving_stop_can_be_turned_into_an_immediate_one_but_not_back():
    status = after(*BEGUN, StopRequested(save=True), StopRequested(save=False))
    assert status.stop_requested == "now"
    assert not status.can_stop
    assert after(StopRequested(save=True), start=status).stop_requested == "now"


def test_an_overdue_stop_is_told_and_forgotten_at_the_end():
    status = after(*BEGUN, StopRequested(save=True), StopOverdue())
    assert status.is_stop_overdue
    ended = after(EngineEnded(message="by force", was_forced=True), start=status)
    assert ended.state is RunState.STOPPED
    assert not ended.is_stop_overdue
    assert ended.can_start


def test_an_overdue_stop_without_a_stop_is_nothing():
    assert after(*BEGUN, StopOverdue()) == after(*BEGUN)


def test_an_engine_that_vanishes_has_failed_and_can_be_started_again():
    status = after(*BEGUN, step(3), EngineEnded(message="killed", hint="resume", output="log"))
    assert status.state is RunState.FAILED
    assert (status.message, status.hint, status.traceback) == ("killed", "resume", "log")
    assert status.can_start


def test_an_engine_that_ends_without_a_word_has_failed_too():
    status = after(*BEGUN, EngineEnded())
    assert status.state is RunState.FAILED
    assert status.message


def test_a_reported_failure_keeps_its_own_words():
    status = after(*BEGUN, RunFailed(message="no memory", hint="less"), EngineEnded(message="code"))
    assert status.message == "no memory"


def test_the_next_start_waits_for_the_engine_to_be_gone():
    status = after(*BEGUN, finished("completed"))
    assert status.state is RunState.FINISHED
    assert not status.can_start
    assert after(EngineEnded(), start=status).can_start


def test_events_after_the_end_change_nothing():
    status = after(*BEGUN, EngineEnded(message="killed"))
    assert after(step(9), RunStarted(run_id="x", folder="y"), start=status) == status


def test_a_second_run_of_one_engine_follows_the_first():
    status = after(*BEGUN, finished("stopped", 5))
    again = RunStarted(run_id="r", folder="/g", resumed_from="s5", start_step=5)
    assert after(again, start=status).state is RunState.PREPARING


def test_silence_is_told_while_a_run_goes_on_only():
    assert after(*BEGUN, Silence(70.0)).silent_seconds == 70.0
    assert after(Silence(70.0)).silent_seconds == 0.0


def test_saving_in_the_background_does_not_hide_training():
    status = after(*BEGUN, step(1), PhaseStarted(phase="save"), step(2), saved(1), step(3))
    assert status.state is RunState.TRAINING
    assert status.last_saved_step == 1


_happenings = st.one_of(
    st.builds(Checked, st.integers(0, 3)),
    st.just(StartRequested()),
    st.builds(StopRequested, st.booleans()),
    st.just(StopOverdue()),
    st.builds(Silence, st.sampled_from([0.0, 61.0])),
    st.builds(EngineEnded, st.sampled_from(["", "killed"]), was_forced=st.booleans()),
    st.just(RunStarted(run_id="r", folder="/f")),
    st.builds(
        lambda phase: PhaseStarted(phase=phase),
        st.sampled_from(["scan", "encode_text", "train", "save", "validate"]),
    ),
    st.builds(
        lambda phase: PhaseFinished(phase=phase, seconds=0.0), st.sampled_from(["scan", "save"])
    ),
    st.builds(lambda n: Progressed(phase="scan", done=n, total=5), st.integers(0, 5)),
    st.builds(step, st.integers(1, 10)),
    st.builds(saved, st.integers(1, 10)),
    st.builds(finished, st.sampled_from(["completed", "stopped"])),
    st.just(RunFailed(message="bad")),
    st.just(Warned(text="hm")),
)


@given(st.lists(_happenings, max_size=40))
@settings(max_examples=400, deadline=None)
def test_whatever_happens_no_button_is_ever_stuck(happenings):
    status = RunStatus()
    for happening in happenings:
        before, status = status, advance(status, happening)
        # There is always something to press: a start, a stop, or force, or the engine is ending.
        assert status.can_start or status.problems or status.is_engine_alive
        assert not (status.can_start and status.can_stop)
        if status.is_active:
            assert status.is_engine_alive
            assert status.can_stop or status.stop_requested == "now"
        if before.state is RunState.STOPPING and status.state in ACTIVE:
            assert status.state is RunState.STOPPING
    gone = advance(status, EngineEnded())
    assert not gone.is_engine_alive
    assert not gone.is_active
    assert advance(gone, Checked(0)).can_start


@pytest.mark.parametrize("state", list(RunState))
def test_every_state_is_before_during_or_after_a_run(state):
    groups = [state in ACTIVE, state in ENDED, state in (RunState.READY, RunState.BLOCKED)]
    assert groups.count(True) == 1
