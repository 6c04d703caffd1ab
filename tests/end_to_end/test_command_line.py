"""The program as it is typed: exit codes, pipes, signals, and what is left on the disk."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from aozora.__main__ import main
from aozora.config.codec import encode_config
from aozora.events import RunFinished, RunStarted, StepCompleted, from_json
from aozora.model.opening import open_model
from aozora.training.checkpointing import list_checkpoints, read_state


def aozora(*arguments, cwd=None, text_in=None):
    return subprocess.run(
        [sys.executable, "-m", "aozora", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=cwd,
        input=text_in,
        check=False,
    )


@pytest.fixture
def config_file(make_config, tmp_path):
    def write(*assignments):
        path = tmp_path / "config with spaces é.json"
        text = json.dumps(encode_config(make_config(*assignments)))
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_bad_settings_are_all_listed_and_nothing_is_written(tmp_path):
    result = aozora(
        "train",
        "--output",
        tmp_path / "out",
        "--set",
        "buckets.step=48",
        "--set",
        "output.name=con",
    )
    assert result.returncode == 2
    for path in ("model.base", "data.folders", "buckets.step", "output.name"):
        assert path in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("model.base=missing.safetensors", "missing.safetensors"),
        ('data.folders=[{"path": "missing folder"}]', "missing folder"),
        ('targets.exclude=["*atention*"]', "targets.exclude"),
        ("validation.pictures=100", "validation.pictures"),
        ("objective.zero_terminal_snr=on", "objective.zero_terminal_snr"),
    ],
)
def test_a_run_that_cannot_start_says_why_and_leaves_nothing(
    config_file, tmp_path, capsys, assignment, words
):
    assert main(["train", str(config_file()), "--set", assignment]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("inside", ["", "missing/deeper"])
@pytest.mark.parametrize(
    ("verb", "setting"),
    [
        ("train", "output.folder"),
        ("train", "cache.folder"),
        ("cache", "cache.folder"),
        ("dataset", "cache.folder"),
    ],
)
def test_a_folder_that_cannot_be_written_is_named(
    config_file, tmp_path, capsys, verb, setting, inside
):
    taken = tmp_path / "taken"
    taken.write_text("x", encoding="utf-8")
    path = str(config_file())
    assert main([verb, path, "--set", f"{setting}={taken / inside}"]) == 2
    said = capsys.readouterr().err
    assert f"Error: {setting}: {taken}" in said
    assert "What to do: " in said
    assert "Traceback" not in said


def test_a_folder_without_a_usable_picture_is_refused(config_file, here, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    result = here("train", config_file(), "--data", empty)
    assert result.returncode == 2
    assert "broken.png" in result.stderr


def test_events_on_the_pipe_are_json_lines_and_nothing_else(config_file, tmp_path):
    # The end of the pipe for commands, which comes at once, changes nothing.
    pipes = ("--events", "-", "--control", "-")
    result = aozora("train", config_file("training.steps=2"), *pipes, text_in="")
    assert result.returncode == 0, result.stderr
    events = [from_json(line) for line in result.stdout.splitlines()]
    assert isinstance(events[-1], RunFinished)
    assert events[-1].reason == "completed"
    started = next(event for event in events if isinstance(event, RunStarted))
    recorded = (tmp_path / "output").glob("runs/*/events.jsonl")
    (path,) = recorded
    assert str(path.parent) == started.folder
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [from_json(line) for line in lines] == events
    run_folder = {entry.name for entry in path.parent.iterdir()}
    assert {"config.json", "run.json", "events.jsonl", "metrics.jsonl", "log.txt"} <= run_folder
    metrics = (path.parent / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in metrics] == [1, 2]


def test_the_run_folder_holds_the_settings_that_were_parsed(config_file, here, tmp_path):
    path = config_file("training.steps=1")
    assert here("train", path, "--set", "training.seed=7").returncode == 0
    (stored,) = (tmp_path / "output").glob("runs/*/config.json")
    expected = json.loads(path.read_text(encoding="utf-8"))
    expected["training"]["seed"] = 7
    assert json.loads(stored.read_text(encoding="utf-8")) == expected


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a run with its events on a pipe, and errors in a file."""
    children = []

    def launch(config, *arguments):
        with (tmp_path / "errors.txt").open("w", encoding="utf-8") as errors:
            child = subprocess.Popen(
                [sys.executable, "-m", "aozora", "train", str(config), "--events", "-", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
            )
        children.append(child)
        return child

    yield launch
    for child in children:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


def wait_for_step(child):
    assert any(isinstance(from_json(line), StepCompleted) for line in child.stdout)


def finish(child, tmp_path):
    """Read on where `wait_for_step` left off, on the same buffered stream."""
    events = [from_json(line) for line in child.stdout]
    child.wait(timeout=120)
    return events, (tmp_path / "errors.txt").read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_last_step_and_ends_well(config_file, tmp_path, start, number):
    child = start(config_file("training.steps=500"))
    wait_for_step(child)
    child.send_signal(number)
    events, errors = finish(child, tmp_path)
    assert child.returncode == 0, errors
    assert events[-1].reason == "stopped"
    (saved,) = list_checkpoints(tmp_path / "output" / "checkpoints")
    assert read_state(saved.state)["step"] == events[-1].step


def test_commands_on_the_pipe_save_and_stop(config_file, tmp_path, start):
    child = start(config_file("training.steps=500", "checkpoints.keep_last=0"), "--control", "-")
    wait_for_step(child)
    child.stdin.write('{"command": "nonsense"}\n{"command": "save_now"}\n')
    child.stdin.flush()
    folder = tmp_path / "output" / "checkpoints"
    deadline = time.monotonic() + 60
    while not list_checkpoints(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.stdin.write('{"command": "stop_and_save"}\n')
    child.stdin.flush()
    events, errors = finish(child, tmp_path)
    assert child.returncode == 0, errors
    assert "nonsense" in errors
    assert events[-1].reason == "stopped"
    assert len(list_checkpoints(folder)) >= 1


def test_a_run_whose_events_nobody_reads_any_more_saves_and_stops(config_file, tmp_path, start):
    child = start(config_file("training.steps=500"))
    wait_for_step(child)
    child.stdout.close()
    child.wait(timeout=120)
    errors = (tmp_path / "errors.txt").read_text(encoding="utf-8")
    assert child.returncode == 0, errors
    assert "cannot be written" in errors
    assert "Traceback" not in errors
    (saved,) = list_checkpoints(tmp_path / "output" / "checkpoints")
    assert 1 <= read_state(saved.state)["step"] < 500


def test_a_preset_with_a_model_and_a_folder_is_enough(base_model, pictures, here, tmp_path):
    result = here(
        *("train", "--preset", "smoke-test", "--model", base_model, "--data", pictures),
        *("--output", tmp_path / "out", "--set", "training.steps=1"),
        *("--set", "training.precision=fp32", "--set", f"cache.folder={tmp_path / 'cache'}"),
    )
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.glob("out/checkpoints/smoke_step_000001.safetensors"))


def test_check_says_what_a_run_would_do(config_file, here, tmp_path):
    result = here("check", config_file("training.epochs=2", "validation.pictures=2"), "--json")
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)["summary"]
    assert summary["pictures"] == 5
    assert summary["held_out"] == 2
    assert summary["trained_parameters"] == summary["total_parameters"] > 1_000_000
    assert (
        sum(row["num_samples"] for row in summary["buckets"]) == summary["samples_per_epoch"] == 5
    )
    assert summary["total_steps"] == -(-2 * summary["batches_per_epoch"] // 2)
    assert not (tmp_path / "output").exists()
    text = here("check", config_file())
    assert "Ready to train" in text.stdout
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file" / "output", tmp_path / "file"):
        refused = here("check", config_file(f"output.folder={place}"))
        assert refused.returncode == 2
        assert "output.folder" in refused.stdout


def test_check_lists_the_problems_of_files_and_settings_together(config_file, here):
    result = here("check", config_file("model.base=none.safetensors", "output.name=con"), "--json")
    assert result.returncode == 2
    problems = json.loads(result.stdout)["problems"]
    assert {problem["path"] for problem in problems} == {"model.base", "output.name"}


def test_inspect_tells_models_and_states_apart(config_file, base_model, here, tmp_path):
    facts = json.loads(here("inspect", base_model, "--json").stdout)
    assert facts["prediction"] == "epsilon"
    assert here("train", config_file("training.steps=1")).returncode == 0
    (saved,) = list_checkpoints(tmp_path / "output" / "checkpoints")
    state = json.loads(here("inspect", saved.state, "--json").stdout)
    assert state["step"] == 1
    assert here("inspect", tmp_path / "none").returncode == 2


def test_inspect_lists_the_layers_of_a_model(base_model, here, tmp_path):
    layers = json.loads(here("inspect", base_model, "--layers", "--json").stdout)
    with open_model(base_model) as source:
        assert layers == {name: list(shape) for name, shape in source.unet_shapes().items()}
    assert here("inspect", tmp_path / "none", "--layers").returncode == 2


def test_presets_doctor_and_settings_reference_print(here, tmp_path):
    assert "smoke-test" in here("presets").stdout
    assert json.loads(here("presets", "smoke-test").stdout)["training"]["steps"] == 20
    assert here("presets", "nothing").returncode == 2
    topics = {finding["topic"] for finding in json.loads(here("doctor", "--json").stdout)}
    assert {"Python", "torch", "Memory", "Attention: sdpa", "CLIP vocabulary"} <= topics
    assert here("settings-doc", "--output", tmp_path / "settings.md").returncode == 0
    assert "training.batch_size" in (tmp_path / "settings.md").read_text(encoding="utf-8")


def test_a_broken_preset_of_the_user_hides_no_other(tmp_path, capsys):
    from aozora.runtime import config_folder

    folder = config_folder() / "presets"
    folder.mkdir(parents=True)
    (folder / "broken.json").write_text("{", encoding="utf-8")
    (folder / "faulty.json").write_text('{"trainin": {}}', encoding="utf-8")
    about = {"title": "Mine", "description": "d"}
    (folder / "mine.json").write_text(json.dumps({"about": about}), encoding="utf-8")
    assert main(["presets"]) == 2
    said = capsys.readouterr()
    assert "smoke-test" in said.out
    assert "Mine" in said.out
    for name in ("broken.json", "faulty.json"):
        assert str(folder / name) in said.err
    assert "mine.json" not in said.err
    assert "Traceback" not in said.err
    for name in ("broken.json", "faulty.json"):
        (folder / name).unlink()
    assert main(["presets"]) == 0
    assert capsys.readouterr().err == ""


def test_files_that_cannot_be_written_are_named(config_file, tmp_path, capsys):
    (tmp_path / "file").touch()
    missing, inside = tmp_path / "no folder" / "events.jsonl", tmp_path / "file" / "settings.md"
    assert main(["train", str(config_file()), "--events", str(missing)]) == 2
    said = capsys.readouterr().err
    assert f"{missing} cannot be written" in said
    assert "--events" in said
    assert not (tmp_path / "output").exists()
    assert main(["settings-doc", "--output", str(inside)]) == 2
    said += capsys.readouterr().err
    assert f"{inside} cannot be written" in said
    assert "--output" in said
    assert "Traceback" not in said
    assert "bug" not in said


def test_cache_fills_the_caches_and_training_reuses_them(config_file, here, tmp_path):
    folder = tmp_path / "own cache"
    path = config_file(f"cache.folder={folder}", "training.steps=1")
    first = here("cache", path)
    assert first.returncode == 0, first.stderr
    assert "7 new, 0 from the cache" in first.stderr
    assert not (tmp_path / "output").exists()
    second = here("train", path)
    assert "0 new, 7 from the cache" in second.stderr
    assert "0 new, 8 from the cache" in second.stderr
