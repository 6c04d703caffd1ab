"""A run that was killed and resumed ends with the same bits as one that was not."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from aozora.api import RunControl, train
from aozora.config.checks import ticket_pool
from aozora.config.codec import encode_config
from aozora.data import latent_cache
from aozora.errors import CheckpointError, DatasetError
from aozora.events import CheckpointSaved, RunFinished, RunPlanned, StepCompleted, Warned, from_json
from aozora.model.synthetic import ModelSizes, write_random_base
from aozora.training.checkpointing import list_checkpoints, read_state
from aozora.training.inputs import Encoders
from aozora.training.state_file import FileTensor


def run(config, resume=None, control=None, on_event=None):
    events = []

    def receive(event):
        events.append(event)
        if on_event is not None:
            on_event(event)

    train(config, receive, control or RunControl(), resume=resume)
    return events


def of_type(events, cls):
    return [event for event in events if isinstance(event, cls)]


def assert_same_state(first, second):
    """Every tensor and plain value is equal; what names a run or a place is left aside."""
    outside = {"run_id", "name", "config", "versions"}
    assert set(first) == set(second)
    for key in set(first) - outside:
        assert_same(first[key], second[key], key)


def raw(tensor):
    """Return the bytes of a tensor, so that -0.0 is not 0.0 and equal NaNs are equal."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def assert_same(first, second, where):
    assert type(first) is type(second), where
    if isinstance(first, FileTensor):
        first, second = first.read(), second.read()
        assert first.dtype == second.dtype, where
        assert first.shape == second.shape, where
        assert torch.equal(raw(first), raw(second)), where
    elif isinstance(first, dict):
        assert set(first) == set(second), where
        for key in first:
            assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list):
        assert len(first) == len(second), where
        for number, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_same(one, other, f"{where}[{number}]")
    else:
        assert first == second, where


def assert_same_model(first, second):
    """All tensors are equal byte for byte; the metadata hold a date."""

    def split(path):
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        header.pop("__metadata__")
        return header, content[8 + length :]

    assert split(first) == split(second)


def start_and_kill_after(config, path, step):
    """Run ``config`` in a process of its own; kill it once ``step`` steps and a save are done."""
    path.write_text(json.dumps(encode_config(config)), encoding="utf-8")
    child = subprocess.Popen(
        [sys.executable, "-m", "aozora", "train", str(path), "--events", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    seen, is_saved = 0, False
    for line in child.stdout:
        event = from_json(line)
        is_saved |= isinstance(event, CheckpointSaved)
        if isinstance(event, StepCompleted):
            seen = event.step
        if is_saved and seen >= step:
            break
    child.kill()
    _, errors = child.communicate()
    assert is_saved, errors
    if sys.platform != "win32":
        assert child.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "accumulation"), [("raven_adamw", 2), ("velo_rms", 1)])
def test_four_steps_a_kill_and_four_more_equal_eight(
    make_config, tmp_path, optimizer, accumulation
):
    settings = [
        f"optimizer={optimizer}",
        f"training.accumulation_steps={accumulation}",
        "training.precision=bf16",
        "training.steps=8",
        "checkpoints.every_steps=4",
        "training.prefetch_batches=3",
    ]
    straight = make_config(*settings, f"output.folder={tmp_path / 'straight'}")
    events = run(straight)
    reference = read_state(Path(of_type(events, CheckpointSaved)[-1].state))
    assert reference["step"] == 8

    killed = make_config(*settings, f"output.folder={tmp_path / 'killed'}")
    start_and_kill_after(killed, tmp_path / "config.json", step=6)
    newest = list_checkpoints(tmp_path / "killed" / "checkpoints")[-1]
    assert newest.manifest.step == 4
    resumed_events = run(killed, resume="last")
    resumed = read_state(Path(of_type(resumed_events, CheckpointSaved)[-1].state))
    assert_same_state(reference, resumed)
    assert_same_model(
        Path(of_type(events, CheckpointSaved)[-1].model),
        Path(of_type(resumed_events, CheckpointSaved)[-1].model),
    )

    later = [step for step in of_type(events, StepCompleted) if step.step > 4]
    for before, after in zip(later, of_type(resumed_events, StepCompleted), strict=True):
        assert (before.loss, before.lr, before.timesteps, before.items) == (
            after.loss,
            after.lr,
            after.timesteps,
            after.items,
        )


def test_a_stop_saves_the_last_finished_step_and_the_resume_replays_the_rest(make_config, tmp_path):
    settings = ["training.steps=4", "training.accumulation_steps=2"]
    straight = run(make_config(*settings, f"output.folder={tmp_path / 'a'}"))
    control = RunControl()

    def stop_after_two(event):
        if isinstance(event, StepCompleted) and event.step == 2:
            control.stop_and_save()

    config = make_config(*settings, f"output.folder={tmp_path / 'b'}")
    first = run(config, control=control, on_event=stop_after_two)
    assert of_type(first, RunFinished)[-1].reason == "stopped"
    assert of_type(first, CheckpointSaved)[-1].step == 2
    second = run(config, resume="last")
    assert of_type(second, RunFinished)[-1].reason == "completed"
    assert_same_state(
        read_state(Path(of_type(straight, CheckpointSaved)[-1].state)),
        read_state(Path(of_type(second, CheckpointSaved)[-1].state)),
    )


def test_stopping_without_saving_leaves_no_save(make_config, tmp_path):
    control = RunControl()

    def stop(event):
        if isinstance(event, StepCompleted):
            control.stop()

    events = run(make_config(), control=control, on_event=stop)
    assert of_type(events, RunFinished)[-1].reason == "stopped"
    assert list_checkpoints(tmp_path / "output" / "checkpoints") == []


def test_what_may_change_is_applied_and_told(make_config):
    run(make_config("training.steps=2"))
    changed = make_config("training.steps=5", "schedule.learning_rate=[[0, 5e-5], [1, 5e-5]]")
    events = run(changed, resume="last")
    told = " ".join(event.text for event in of_type(events, Warned))
    assert "training.steps" in told
    assert "schedule.learning_rate" in told
    steps = of_type(events, StepCompleted)
    assert [step.step for step in steps] == [3, 4, 5]
    assert {step.lr for step in steps} == {5e-5}
    assert sum(of_type(events, RunPlanned)[0].ticket_counts) == 5 * 2


def bars_drawn(events, bins):
    bars = [
        int(t) * bins // 1000 for step in of_type(events, StepCompleted) for t in step.timesteps
    ]
    return [bars.count(bar) for bar in range(bins)]


@pytest.mark.parametrize("on_resume", ["rebuild", "finish"])
def test_a_run_resumed_with_another_pool_draws_what_was_chosen(make_config, tmp_path, on_resume):
    """The first part has 12 samples of a pool of 20; the second goes on to 30 with other shares."""
    control = RunControl()

    def stop_after_six(event):
        if isinstance(event, StepCompleted) and event.step == 6:
            control.stop_and_save()

    before = make_config("training.steps=10", "timesteps.bins=10")
    first = run(before, control=control, on_event=stop_after_six)
    low = "[4, 2, 1, 1, 0, 0, 0, 0, 0, 0]"
    changed = [
        "training.steps=15",
        "timesteps.bins=10",
        "timesteps.distribution=custom",
        f"timesteps.distribution.weights={low}",
        f"timesteps.on_resume={on_resume}",
    ]
    second = run(make_config(*changed, "checkpoints.every_steps=4"), resume="last")
    old, new = ticket_pool(before), ticket_pool(make_config(*changed))
    drawn = [a + b for a, b in zip(bars_drawn(first, 10), bars_drawn(second, 10), strict=True)]
    assert drawn == of_type(second, RunPlanned)[0].ticket_counts
    told = " ".join(event.text for event in of_type(second, Warned))
    if on_resume == "finish":
        assert drawn == [a + b for a, b in zip(old.counts(20), new.counts(10), strict=True)]
        assert "8 left of the pool the run had, then 10 of a new one" in told
    else:
        assert bars_drawn(second, 10) == list(new.counts(18))
        assert "0 left of the pool the run had, then 18 of a new one" in told

    # Going on again gives the same bits, from before and after the pool's end at step 10.
    # A tensor of a state is read from its file when it is asked for, and the third part
    # replaces that file: the reference is a copy of it.
    kept = shutil.copyfile(of_type(second, CheckpointSaved)[-1].state, tmp_path / "reference.pt")
    reference = read_state(kept)
    between = of_type(second, CheckpointSaved)[:-1]
    assert [saved.step for saved in between] == [8, 12]
    for saved in between:
        third = run(make_config(*changed), resume=Path(saved.state))
        assert_same_state(reference, read_state(Path(of_type(third, CheckpointSaved)[-1].state)))
        told = " ".join(event.text for event in of_type(third, Warned))
        assert "pool" not in told


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("training.seed=1", "training.seed"),
        ("training.batch_size=2", "training.batch_size"),
        ("training.accumulation_steps=1", "training.accumulation_steps"),
        ("training.precision=bf16", "training.precision"),
        ("optimizer=velo_rms", "optimizer.kind"),
        ("optimizer.moments=float32", "optimizer.moments"),
        ("objective.prediction=v_prediction", "objective"),
        ("targets.layers=attention", "other layers"),
        ("buckets.resolution=64", "pictures, captions or bucket"),
    ],
)
def test_what_must_match_is_refused_with_its_name(make_config, saved_two_steps, change, words):
    state, output = saved_two_steps
    config = make_config("training.steps=3", change, f"output.folder={output}")
    with pytest.raises(CheckpointError, match=words):
        run(config, resume=state)


@pytest.fixture(scope="module")
def saved_two_steps_cache():
    return {}


@pytest.fixture
def saved_two_steps(make_config, saved_two_steps_cache, tmp_path_factory):
    if not saved_two_steps_cache:
        output = tmp_path_factory.mktemp("two steps")
        config = make_config("training.steps=2", f"output.folder={output}")
        saved = of_type(run(config), CheckpointSaved)[-1]
        saved_two_steps_cache["it"] = (Path(saved.state), output)
    return saved_two_steps_cache["it"]


def test_a_state_at_the_end_of_the_run_has_nothing_left_to_do(make_config, saved_two_steps):
    state, output = saved_two_steps
    events = run(make_config("training.steps=2", f"output.folder={output}"), resume=state)
    assert of_type(events, StepCompleted) == []
    assert of_type(events, RunFinished)[-1].reason == "completed"


def test_a_state_beyond_the_end_is_refused(make_config, saved_two_steps):
    state, output = saved_two_steps
    with pytest.raises(CheckpointError, match=r"training\.steps"):
        run(make_config("training.steps=1", f"output.folder={output}"), resume=state)


def test_another_vae_or_text_encoder_is_refused(make_config, saved_two_steps, tmp_path):
    state, output = saved_two_steps
    other = tmp_path / "other.safetensors"
    write_random_base(other, ModelSizes(unet_channels=(32, 64, 64)), seed=1)
    for setting in ("model.vae", "model.text_encoders"):
        config = make_config("training.steps=3", f"{setting}={other}", f"output.folder={output}")
        with pytest.raises(CheckpointError, match="VAE or a text encoder is another"):
            run(config, resume=state)


def test_resuming_beside_another_run_of_that_name_leaves_its_saves_alone(
    make_config, saved_two_steps, tmp_path
):
    state, _ = saved_two_steps
    events = run(make_config("training.steps=3", "training.seed=5", "checkpoints.every_steps=3"))
    others = Path(of_type(events, CheckpointSaved)[-1].state)
    content = others.read_bytes()
    events = run(make_config("training.steps=3"), resume=state)
    saved = Path(of_type(events, CheckpointSaved)[-1].state)
    assert (others.name, saved.name) == ("small_step_000003.pt", "small-2_step_000003.pt")
    assert others.read_bytes() == content
    told = " ".join(event.text for event in of_type(events, Warned))
    assert "saves of another run called 'small'" in told
    # From there on it is known by that name.
    events = run(make_config("training.steps=4"), resume=saved)
    assert Path(of_type(events, CheckpointSaved)[-1].state).name == "small-2_step_000004.pt"


def test_what_could_not_be_encoded_at_first_stays_out(make_config, tmp_path, monkeypatch):
    settings = ["checkpoints.every_steps=2", f"cache.folder={tmp_path / 'cache'}"]
    unreadable = {"picture 3.png"}
    usual = latent_cache.read_picture

    def read_picture(path, *others, **settings):
        if Path(path).name in unreadable:
            raise DatasetError(f"{path} cannot be read: the share is gone")
        return usual(path, *others, **settings)

    monkeypatch.setattr(latent_cache, "read_picture", read_picture)
    straight = run(make_config(*settings))
    first, last = (Path(saved.state) for saved in of_type(straight, CheckpointSaved))
    reference = read_state(shutil.copyfile(last, tmp_path / "reference.pt"))
    assert reference["identity"]["left_out"] == ["picture 3.png"]

    unreadable.clear()
    resumed = run(make_config(*settings), resume=first)
    again = read_state(Path(of_type(resumed, CheckpointSaved)[-1].state))
    assert_same_state(reference, again)

    # One that was trained with cannot be left out.
    unreadable.add("picture 5.png")
    elsewhere = make_config(*settings, f"cache.folder={tmp_path / 'empty'}")
    with pytest.raises(CheckpointError, match=r"picture 5\.png"):
        run(elsewhere, resume=first)


def test_validation_has_the_chunks_of_training(make_config, pictures, tmp_path, monkeypatch):
    """Whichever of the pictures has the long caption."""
    folder = shutil.copytree(pictures, tmp_path / "own")
    (folder / "picture 0.txt").write_text("word " * 100, encoding="utf-8")
    loaders = []
    usual = Encoders.loader

    def loader(encoders, *arguments):
        loaders.append(usual(encoders, *arguments))
        return loaders[-1]

    monkeypatch.setattr(Encoders, "loader", loader)
    settings = ["captions.tokens=150", "validation.pictures=3", "training.steps=1"]
    run(make_config(*settings, f'data.folders=[{{"path": "{folder.as_posix()}"}}]'))
    assert [made.num_chunks for made in loaders] == [2, 2]


def test_two_living_runs_of_one_name_do_not_mix(make_config, tmp_path):
    config = make_config("training.steps=200")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(encode_config(config)), encoding="utf-8")
    child = subprocess.Popen(
        [sys.executable, "-m", "aozora", "train", str(path)], stderr=subprocess.PIPE
    )
    try:
        lock = tmp_path / "output" / "checkpoints" / "small.lock"
        deadline = time.monotonic() + 60
        while not lock.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(CheckpointError, match="another run"):
            run(make_config("training.steps=1"))
    finally:
        child.kill()
        child.communicate()
    assert of_type(run(make_config("training.steps=1")), RunFinished)[-1].reason == "completed"
