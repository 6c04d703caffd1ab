from __future__ import annotations

import logging

import pytest
import torch

from aozora.config.codec import apply_settings
from aozora.config.schema import TrainConfig
from aozora.errors import AozoraError, CheckpointError
from aozora.events import RunFailed, Warned
from aozora.training import run_record
from aozora.training.run_record import NameLock, RunRecord


@pytest.fixture
def received():
    return []


@pytest.fixture
def make_record(tmp_path, received):
    def make(output=tmp_path / "output", on_event=received.append):
        config = apply_settings(
            TrainConfig(), [f"output.folder={output}", "logging.tensorboard=false"]
        )
        return RunRecord(
            config, name="small", run_id="", device=torch.device("cpu"), on_event=on_event
        )

    return make


@pytest.fixture
def file_limit():
    """Return a function after which no file can grow beyond some bytes, as on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda num_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def is_released(record):
    """Return whether nothing of ``record`` is held: not the name, nor the log."""
    files = [getattr(handler, "baseFilename", "") for handler in logging.getLogger().handlers]
    locks = list(record.checkpoints.glob("*.lock"))
    return not locks and str(record.folder / "log.txt") not in files


@pytest.mark.parametrize("inside", ["", "missing/deeper"])
def test_an_output_folder_that_is_a_file_is_named(make_record, received, tmp_path, inside):
    (tmp_path / "taken").write_text("x", encoding="utf-8")
    record = make_record(tmp_path / "taken" / inside)
    with pytest.raises(AozoraError, match=r"output\.folder: .*taken") as caught, record:
        record.begin_recording()
    assert "choose a folder" in caught.value.hint
    assert received[-1] == RunFailed(message=caught.value.message, hint=caught.value.hint)


def test_a_name_that_cannot_be_claimed_on_a_full_disk_names_the_folder(tmp_path, file_limit):
    file_limit(0)
    with pytest.raises(AozoraError, match=r"output\.folder: .*small\.lock"):
        NameLock(tmp_path, "small")


def test_a_claimed_name_is_still_refused_as_such(tmp_path):
    lock = NameLock(tmp_path, "small")
    with pytest.raises(CheckpointError, match="another run called 'small'"):
        NameLock(tmp_path, "small")
    lock.release()
    NameLock(tmp_path, "small").release()


def test_a_disk_too_full_for_the_first_files_names_the_folder(make_record, file_limit):
    record = make_record()
    file_limit(100)  # the lock fits
    with pytest.raises(AozoraError, match=r"output\.folder: .*small-"), record:
        record.begin_recording()
    assert is_released(record)


def test_an_output_folder_nobody_may_look_into_is_named(make_record, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("aozora.training.run_record.free_run_folder", refuse)
    with pytest.raises(AozoraError, match=r"output\.folder: .*Permission denied"):
        make_record()


def test_a_failure_on_a_full_disk_reaches_the_caller_and_lets_go_of_all(
    make_record, received, file_limit
):
    record = make_record()

    def fail():
        with record:
            record.begin_recording()
            file_limit((record.folder / "events.jsonl").stat().st_size + 10)
            raise ValueError("the end")

    with pytest.raises(ValueError, match="the end"):
        fail()
    kinds = [type(event) for event in received if isinstance(event, (Warned, RunFailed))]
    assert kinds == [Warned, RunFailed]
    assert received[-1].message == "ValueError: the end"
    assert is_released(record)


def test_a_receiver_that_fails_leaves_nothing_held(make_record):
    def receive(event):
        if event == RunFailed(message="the end"):
            raise RuntimeError("no receiver")

    record = make_record(on_event=receive)

    def fail():
        with record:
            record.begin_recording()
            raise AozoraError("the end")

    with pytest.raises(RuntimeError, match="no receiver"):
        fail()
    assert is_released(record)


def test_a_lock_that_cannot_be_removed_hides_no_failure(make_record, monkeypatch, caplog):
    record = make_record()

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    def fail():
        with record:
            record.begin_recording()
            monkeypatch.setattr("pathlib.Path.unlink", refuse)
            raise ValueError("the end")

    with pytest.raises(ValueError, match="the end"):
        fail()
    assert "small.lock cannot be removed" in caplog.text


def test_main_memory_that_runs_out_is_told_with_what_to_do(make_record, received):
    record = make_record()
    with pytest.raises(MemoryError), record:
        raise MemoryError
    assert received[-1].message == "main memory ran out"
    assert "paging file" in received[-1].hint
    assert received[-1].traceback == ""


def test_all_that_a_run_writes_knows_long_paths(make_record, monkeypatch, tmp_path):
    asked = []

    def long_path(path, room):
        asked.append((path, room))
        return tmp_path / "long form"

    monkeypatch.setattr(run_record, "long_path", long_path)
    record = make_record()
    assert asked == [(tmp_path / "output", 100 + len("small"))]
    assert record.checkpoints.parent == record.folder.parent.parent == tmp_path / "long form"
