from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import zlib
from pathlib import Path

import pytest
import torch

from aozora.errors import CheckpointError, ModelFileError, NumericsError, SaveError
from aozora.runtime import atomic_path
from aozora.training import checkpointing
from aozora.training.resume import Identity, compare_settings, require_same
from aozora.training.state_file import read_state_file
from aozora.training.state_writer import write_state
from aozora.training.zip_stream import FileSum
from optimizers.precision import split_fp32


def write_model(state, path):
    content = f"model of step {read_state_file(state)['step']}".encode()
    with atomic_path(path) as partial:
        partial.write_bytes(content)
    return FileSum(len(content), zlib.crc32(content))


def state_of(step, value=1.0, version=checkpointing.STATE_VERSION):
    return {
        "format": checkpointing.STATE_FORMAT,
        "version": version,
        "step": step,
        "weights": {"w": torch.full((4,), value)},
    }


def save(folder, step, run_id="run", name="demo", write_model=write_model, **changes):
    return checkpointing.save_checkpoint(
        folder,
        name,
        run_id,
        step,
        write_state=lambda file: write_state(file, state_of(step, **changes)),
        write_model=write_model,
    )


def test_a_save_can_be_read_back(tmp_path):
    saved = save(tmp_path, 12)
    assert saved.state.name == "demo_step_000012.pt"
    state = checkpointing.read_state(saved.state)
    assert state["step"] == 12
    assert state["weights"]["w"].read().tolist() == [1.0] * 4
    assert saved.model.read_bytes() == b"model of step 12"
    assert saved.manifest.model_crc32 == checkpointing.crc32_of(saved.model)
    assert saved.manifest.state_crc32 == checkpointing.crc32_of(saved.state)
    assert checkpointing.list_checkpoints(tmp_path) == [saved]
    assert checkpointing.last_state(tmp_path, "demo") == saved.state


def test_the_state_file_does_not_hold_its_own_name(tmp_path):
    first = save(tmp_path / "a", 1, name="one").state.read_bytes()
    second = save(tmp_path / "b", 1, name="two").state.read_bytes()
    assert first == second


def test_a_save_without_its_manifest_does_not_count(tmp_path):
    old, new = save(tmp_path, 1), save(tmp_path, 2)
    new.manifest_path.unlink()
    assert checkpointing.list_checkpoints(tmp_path) == [old]
    assert checkpointing.last_state(tmp_path, "demo") == old.state


def test_a_flipped_bit_is_noticed(tmp_path):
    saved = save(tmp_path, 1)
    content = bytearray(saved.state.read_bytes())
    content[len(content) // 2] ^= 1
    saved.state.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        checkpointing.read_state(saved.state)


@pytest.mark.parametrize("content", [b"", b"not a state", b"\x80\x04N.", b"PK\x03\x04broken"])
def test_what_is_no_state_is_refused(tmp_path, content):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.pt"):
        checkpointing.read_state(path)


def test_a_state_that_would_run_code_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'PWNED'}",))

    path = tmp_path / "bomb.pt"
    torch.save({"format": Bomb()}, path)
    with pytest.raises(CheckpointError, match="not a readable"):
        checkpointing.read_state(path)
    assert not (tmp_path / "PWNED").exists()


def test_a_foreign_torch_file_is_refused(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"weights": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="not a training state"):
        checkpointing.read_state(path)


def test_only_the_newest_saves_of_this_run_stay(tmp_path):
    other = save(tmp_path, 1, run_id="other", name="other")
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    removed = checkpointing.prune(tmp_path, "run", 2)
    assert removed == ["demo_step_000001", "demo_step_000002"]
    left = {saved.manifest.name for saved in checkpointing.list_checkpoints(tmp_path)}
    assert left == {"demo_step_000003", "demo_step_000004", other.manifest.name}
    assert not (tmp_path / "demo_step_000001.pt").exists()


@pytest.mark.parametrize("held", [".safetensors", ".pt", ".json"])
def test_a_save_that_another_program_holds_open_is_tried_again(tmp_path, monkeypatch, held):
    for step in (1, 2):
        save(tmp_path, step)
    unlink = Path.unlink

    def refuse(path, missing_ok=False):
        if path.suffix == held:
            raise PermissionError(13, "used by another process")
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        assert checkpointing.prune(tmp_path, "run", 1) == []
    assert (tmp_path / f"demo_step_000001{held}").exists()
    assert (tmp_path / "demo_step_000001.json").exists()
    # What is left is no save unless it is whole.
    whole = [s.manifest.step for s in checkpointing.list_checkpoints(tmp_path)]
    assert whole == ([1, 2] if held == ".safetensors" else [2])
    save(tmp_path, 3)
    removed = checkpointing.prune(tmp_path, "run", 1)
    assert removed == ["demo_step_000001", "demo_step_000002"]
    assert {path.stem for path in tmp_path.iterdir()} == {"demo_step_000003"}


def test_a_state_whose_model_was_moved_away_stays_as_long_as_a_save_of_its_age(tmp_path):
    first, second = save(tmp_path, 1), save(tmp_path, 2)
    second.model.unlink()
    save(tmp_path, 3)
    assert checkpointing.prune(tmp_path, "run", 2) == []
    save(tmp_path, 4)
    assert checkpointing.prune(tmp_path, "run", 2) == [first.manifest.name, second.manifest.name]


def test_pruning_goes_by_time_of_saving_not_by_step(tmp_path):
    save(tmp_path, 300)
    time.sleep(0.01)
    newest = save(tmp_path, 150)
    checkpointing.prune(tmp_path, "run", 1)
    assert checkpointing.list_checkpoints(tmp_path) == [newest]


def test_keeping_none_means_keeping_all(tmp_path):
    save(tmp_path, 1)
    assert checkpointing.prune(tmp_path, "run", 0) == []


def test_a_new_run_does_not_take_the_name_of_anothers_saves(tmp_path):
    assert checkpointing.free_name(tmp_path, "demo") == "demo"
    save(tmp_path, 1)
    assert checkpointing.free_name(tmp_path, "demo") == "demo-2"
    save(tmp_path, 1, name="demo-2")
    assert checkpointing.free_name(tmp_path, "demo") == "demo-3"
    assert checkpointing.last_state(tmp_path, "demo").name.startswith("demo-2")
    # Windows does not tell their files apart.
    assert checkpointing.free_name(tmp_path, "Demo") == "Demo-3"


def test_a_run_that_goes_on_keeps_its_name_unless_another_run_has_it(tmp_path):
    save(tmp_path, 1, run_id="mine")
    assert checkpointing.free_name(tmp_path, "demo", "mine") == "demo"
    save(tmp_path, 2, run_id="other")
    assert checkpointing.free_name(tmp_path, "demo", "mine") == "demo-2"


def test_without_a_save_resuming_the_last_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no saved state"):
        checkpointing.last_state(tmp_path, "demo")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(28, "No space left on device"), SaveError),
        (ModelFileError("the base was moved", "put it back"), SaveError),
        (NumericsError("too large for float16"), NumericsError),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_model_that_cannot_be_written_costs_neither_the_state_nor_earlier_saves(
    tmp_path, error, kind
):
    old = save(tmp_path, 1)

    def fail(state, path):
        assert state.is_file()
        raise error

    with pytest.raises(kind, match=r"state is complete: .*demo_step_000002\.pt"):
        save(tmp_path, 2, write_model=fail)
    assert checkpointing.list_checkpoints(tmp_path) == [old]
    assert checkpointing.read_state(tmp_path / "demo_step_000002.pt")["step"] == 2
    assert not (tmp_path / "demo_step_000002.safetensors").exists()


def test_a_save_that_is_given_up_leaves_nothing_behind(tmp_path):
    def give_up(state, path):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 2, write_model=give_up)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_save_of_the_same_step_stays_until_the_state_is_complete(tmp_path):
    old = save(tmp_path, 2)

    def fail(file):
        file.write(b"begun")
        raise OSError(28, "No space left on device")

    with pytest.raises(SaveError, match="No space left"):
        checkpointing.save_checkpoint(
            tmp_path, "demo", "run", 2, write_state=fail, write_model=write_model
        )
    assert checkpointing.list_checkpoints(tmp_path) == [old]
    assert checkpointing.read_state(old.state)["step"] == 2


def test_a_clock_that_is_behind_does_not_make_the_newest_save_the_oldest(tmp_path, monkeypatch):
    for step in (1, 2, 3):
        save(tmp_path, step)
    monkeypatch.setattr(checkpointing.time, "time", lambda: 1000.0)
    newest = save(tmp_path, 4)
    assert checkpointing.prune(tmp_path, "run", 2) == ["demo_step_000001", "demo_step_000002"]
    assert checkpointing.last_state(tmp_path, "demo") == newest.state


def test_a_state_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    def fail(file):
        file.write(b"begun")
        raise OSError(28, "No space left on device")

    with pytest.raises(SaveError, match="No space left"):
        checkpointing.save_checkpoint(
            tmp_path, "demo", "run", 2, write_state=fail, write_model=write_model
        )
    assert list(tmp_path.iterdir()) == []


def test_a_state_of_an_earlier_version_is_refused_in_words(tmp_path):
    saved = save(tmp_path, 1, version=1)
    with pytest.raises(CheckpointError, match=r"version 1, this program reads version 2"):
        checkpointing.read_state(saved.state)


def test_a_state_of_a_later_version_asks_for_a_newer_program(tmp_path):
    saved = save(tmp_path, 1, version=checkpointing.STATE_VERSION + 1)
    with pytest.raises(CheckpointError, match="version 3") as caught:
        checkpointing.read_state(saved.state)
    assert "newer Aozora" in caught.value.hint


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_exact_weights_are_put_together_from_a_state(tmp_path, dtype):
    exact = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    low = {torch.bfloat16: split_fp32(exact)[1], torch.float16: exact}.get(dtype)
    weight = split_fp32(exact)[0] if dtype == torch.bfloat16 else exact.to(dtype)
    planes = {"exp_avg": [torch.zeros(15)]}
    if low is not None:
        planes["master"] = [low.reshape(-1)[:4], low.reshape(-1)[4:]]
    path = tmp_path / "a.pt"
    with path.open("wb") as file:
        write_state(file, {"weights": {"w": weight}, "optimizer": {"state": {"w": planes}}})
    found = checkpointing.exact_weight(read_state_file(path), "w")
    assert found.dtype == torch.float32
    assert torch.equal(found.view(torch.int32), exact.view(torch.int32))


KILLED_SAVER = """
    import sys, torch
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from test_checkpointing import save
    step = 2
    print("ready", flush=True)
    while True:
        save(Path({folder!r}), step, value=float(step))
        step += 1
"""


def test_a_run_killed_while_saving_keeps_a_readable_save(tmp_path):
    folder = tmp_path / "saves"
    save(folder, 1)
    code = textwrap.dedent(KILLED_SAVER).format(tests=os.path.dirname(__file__), folder=str(folder))
    for number in range(4):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(0.03 + 0.023 * number)
        child.send_signal(signal.SIGKILL) if hasattr(signal, "SIGKILL") else child.kill()
        child.wait()
        child.stdout.close()
        newest = checkpointing.list_checkpoints(folder)[-1]
        state = checkpointing.read_state(newest.state)
        assert state["step"] == newest.manifest.step


def test_manifests_are_plain_json(tmp_path):
    manifest = json.loads(save(tmp_path, 3).manifest_path.read_text(encoding="utf-8"))
    assert manifest["step"] == 3
    assert manifest["state_bytes"] == (tmp_path / "demo_step_000003.pt").stat().st_size


SETTINGS = {
    "training": {"seed": 1, "steps": 10},
    "schedule": {"learning_rate": [[0, 1e-6]]},
    "model": {"base": "a"},
    "optimizer": {"kind": "raven_adamw", "weight_decay": 0.01},
}


def changed(**sections):
    return {name: {**SETTINGS[name], **sections.get(name, {})} for name in SETTINGS}


def test_differences_say_which_settings_may_change():
    current = changed(
        training={"seed": 2, "steps": 20}, model={"base": "b"}, optimizer={"weight_decay": 0.1}
    )
    found = {d.path: d.allowed for d in compare_settings(SETTINGS, current)}
    assert found == {"training.seed": False, "training.steps": True, "optimizer.weight_decay": True}


def test_another_base_is_refused_and_named():
    identity = Identity("base", "data", "epsilon", {"w": [4]})
    state = {"identity": identity.to_plain()}
    require_same(state, identity, [])
    with pytest.raises(CheckpointError, match="base model is another"):
        require_same(state, Identity("other", "data", "epsilon", {"w": [4]}), [])
    with pytest.raises(CheckpointError, match=r"training\.seed"):
        require_same(state, identity, compare_settings(SETTINGS, changed(training={"seed": 2})))
