from __future__ import annotations

import struct
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aozora.data.cache_store import CacheStore, make_key
from aozora.errors import CacheError

KEY = make_key({"x": 1})


@pytest.fixture
def store(tmp_path):
    return CacheStore(tmp_path / "cache", "things")


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    return {"b": torch.randn(4, 3), "a": torch.randn(5).half(), "c": torch.zeros(())}


def test_an_entry_comes_back_as_it_was_written(store, tensors):
    store.write(KEY, tensors, {"note": "é"})
    entry = store.read(KEY)
    assert set(entry.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert entry.tensors[name].dtype == tensor.dtype
        assert torch.equal(entry.tensors[name], tensor)
    assert entry.metadata == {"key": KEY, "note": "é"}


def test_entries_are_plain_safetensors_in_folders_of_two_letters(store, tensors):
    store.write(KEY, tensors)
    path = store.root / KEY[:2] / f"{KEY}.safetensors"
    assert torch.equal(safetensors.torch.load_file(path)["b"], tensors["b"])
    with safetensors.safe_open(path, "pt") as file:
        assert len(file.metadata()["crc32"]) == 8


def test_keys_depend_on_every_input_and_not_on_their_order():
    assert make_key({"a": 1, "b": [2]}) == make_key({"b": [2], "a": 1})
    keys = {make_key(x) for x in ({}, {"a": 1}, {"a": "1"}, {"a": 1.5}, {"a": None}, {"b": 1})}
    assert len(keys) == 6
    assert make_key({"caption": "é\ud800"}).isalnum()


def test_has_lists_what_is_there_without_opening_it(store, tensors):
    keys = [make_key({"n": n}) for n in range(20)]
    assert store.has(keys) == set()
    for key in keys[:12]:
        store.write(key, tensors)
    store.path(keys[0]).write_bytes(b"rubbish that nobody opens")
    store.path(keys[1]).write_bytes(b"")
    (store.path(keys[2]).parent / f"{keys[15]}.safetensors.1.partial").write_bytes(b"x")
    assert store.has([*keys, "unknown"]) == set(keys[:12]) - {keys[1]}


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_flipped_bit_or_cut_is_noticed(store, tensors, data):
    store.write(KEY, tensors)
    whole = store.path(KEY).read_bytes()
    damaged = bytearray(whole)
    if data.draw(st.booleans()):
        damaged[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del damaged[data.draw(st.integers(0, len(whole) - 1)) :]
    store.path(KEY).write_bytes(damaged)
    try:
        entry = store.read(KEY)
    except CacheError:
        return
    # A bit of white space in the header may turn into other white space: then nothing is lost.
    assert all(torch.equal(entry.tensors[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 21) + b'{"__metadata__": [1]}',
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        struct.pack("<Q", 4) + b"\xff" * 4,
    ],
)
def test_rubbish_is_a_damaged_entry_naming_the_file(store, data):
    store.path(KEY).parent.mkdir(parents=True)
    store.path(KEY).write_bytes(data)
    with pytest.raises(CacheError, match="damaged") as caught:
        store.read(KEY)
    assert str(store.path(KEY)) in caught.value.message
    assert "rebuilt" in caught.value.hint


def test_an_entry_under_the_name_of_another_is_refused(store, tensors):
    other = make_key({"x": 2})
    store.write(KEY, tensors)
    store.path(other).parent.mkdir(parents=True, exist_ok=True)
    store.path(KEY).rename(store.path(other))
    with pytest.raises(CacheError, match="damaged"):
        store.read(other)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:20],
        lambda data: bytes(len(data)),
        lambda data: b"",
        lambda data: struct.pack("<Q", 2) + b"{}",
        lambda data: struct.pack("<Q", 4) + b"[[]]",
    ],
)
def test_cut_and_zeroed_entries_are_told_by_their_headers(store, tensors, damage):
    store.write(KEY, tensors)
    assert store.is_whole(KEY)
    path = store.path(KEY)
    path.write_bytes(damage(path.read_bytes()))
    assert not store.is_whole(KEY)


def test_an_entry_without_tensors_or_file_or_of_another_key_is_judged(store, tensors):
    other = make_key({"x": 2})
    assert not store.is_whole(KEY)
    store.write(KEY, {})
    assert store.is_whole(KEY)
    store.path(other).parent.mkdir(parents=True, exist_ok=True)
    store.path(KEY).rename(store.path(other))
    assert not store.is_whole(other)


class Flaky:
    """Refuses the first reads of files, as a drive does that comes back."""

    def __init__(self, monkeypatch, refusals, delays=(0.0, 0.0, 0.0)):
        self.reads = 0
        self._refusals = refusals
        self._real = Path.read_bytes
        monkeypatch.setattr("aozora.data.cache_store._RETRY_SECONDS", delays)
        monkeypatch.setattr(Path, "read_bytes", lambda path: self.read(path))

    def read(self, path):
        self.reads += 1
        if self.reads <= self._refusals:
            raise OSError(5, "Input/output error")
        return self._real(path)


def test_what_cannot_be_read_for_a_while_is_read_in_the_end(store, tensors, monkeypatch):
    store.write(KEY, tensors)
    drive = Flaky(monkeypatch, refusals=3)
    assert torch.equal(store.read(KEY).tensors["b"], tensors["b"])
    assert drive.reads == 4


def test_what_cannot_be_read_at_all_is_an_error_and_stays(store, tensors, monkeypatch):
    store.write(KEY, tensors)
    drive = Flaky(monkeypatch, refusals=4)
    with pytest.raises(CacheError, match="cannot be read"):
        store.read_or_discard(KEY)
    assert drive.reads == 4
    assert store.has([KEY])


def test_in_a_hurry_nothing_is_waited_for(store, tensors, monkeypatch):
    store.write(KEY, tensors)
    drive = Flaky(monkeypatch, refusals=9, delays=(60.0, 60.0))
    with pytest.raises(CacheError, match="cannot be read"):
        store.read(KEY, lambda: True)
    assert drive.reads == 3


def test_a_missing_entry_is_not_waited_for(store, monkeypatch):
    drive = Flaky(monkeypatch, refusals=0, delays=(60.0,))
    with pytest.raises(CacheError, match="missing"):
        store.read(KEY)
    assert drive.reads == 1


def test_missing_entries_say_so(store):
    with pytest.raises(CacheError, match="missing"):
        store.read(KEY)


def test_a_damaged_entry_is_discarded_so_that_it_is_made_again(store, tensors):
    store.write(KEY, tensors)
    path = store.path(KEY)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CacheError, match="damaged"):
        store.read_or_discard(KEY)
    assert not store.has([KEY])
    with pytest.raises(CacheError, match="missing"):
        store.read_or_discard(KEY)


def test_a_failed_write_leaves_the_old_entry_and_no_leftover(store, tensors, monkeypatch):
    store.write(KEY, tensors)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", full)
        with pytest.raises(CacheError, match="No space left"):
            store.write(KEY, {"a": torch.zeros(3)})
    assert torch.equal(store.read(KEY).tensors["b"], tensors["b"])
    assert [p.name for p in store.path(KEY).parent.iterdir()] == [f"{KEY}.safetensors"]


def test_leftovers_of_processes_that_are_gone_are_removed(store, tensors):
    assert store.remove_leftovers() == 0
    store.write(KEY, tensors)
    leftover = store.path(KEY).with_name("x.safetensors.999999999.partial")
    leftover.write_bytes(b"x")
    assert store.remove_leftovers() == 1
    assert not leftover.exists()
    assert store.has([KEY])


def test_leftovers_that_cannot_be_removed_are_logged_and_left(store, tensors, monkeypatch, caplog):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    store.write(KEY, tensors)
    store.path(KEY).with_name("x.safetensors.999999999.partial").write_bytes(b"x")
    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    assert store.remove_leftovers() == 0
    assert "cannot be removed" in caplog.text
    assert store.has([KEY])


def test_a_cache_that_cannot_be_listed_names_the_setting(store, tensors, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    store.write(KEY, tensors)
    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(CacheError, match=r"cache\.folder: .*Permission denied"):
        store.remove_leftovers()


def test_a_cache_folder_that_is_a_file_names_the_setting(tmp_path, tensors):
    (tmp_path / "taken").write_text("x", encoding="utf-8")
    store = CacheStore(tmp_path / "taken", "latents")
    with pytest.raises(CacheError, match=r"cache\.folder: .*taken"):
        store.has([KEY])
    with pytest.raises(CacheError, match=r"cache\.folder: .*taken"):
        store.write(KEY, tensors)
