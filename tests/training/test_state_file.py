"""State files against torch's own reader and writer, and against files that mean harm."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
import zlib

import pytest
import torch

from aozora.errors import CheckpointError
from aozora.training import parallel_file, zip_stream
from aozora.training.parallel_file import ParallelFile
from aozora.training.state_file import STORAGES, FileTensor, read_state_file
from aozora.training.state_writer import Slot, StateWriter, write_state

PLAIN = {
    "step": 3,
    "large": 2**40,
    "lr": 1e-7,
    "name": "Übung",
    "nothing": None,
    "flag": True,
    "nested": [1, (2, "x"), {"a": []}],
    "many": {f"key {number}": number for number in range(2500)},
}


def tensors():
    generator = torch.Generator().manual_seed(1)
    made = {
        str(dtype): torch.randint(0, 2, (3, 5), generator=generator).to(dtype) for dtype in STORAGES
    }
    made["scalar"] = torch.tensor(0.5)
    made["empty"] = torch.empty(0, 4)
    made["odd"] = torch.randn(7, generator=generator).to(torch.bfloat16)
    made["nan"] = torch.tensor([float("nan"), -0.0, float("inf")])
    return made


def same_bits(a, b):
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and a.contiguous().view(-1).view(torch.uint8).tolist()
        == b.contiguous().view(-1).view(torch.uint8).tolist()
    )


def write(path, state):
    with path.open("wb") as file:
        return write_state(file, state)


@pytest.fixture(params=["32 bits", "64 bits"])
def sizes(request, monkeypatch):
    """Write as a file of more than 4 GiB with 70,000 entries would be written, too."""
    if request.param == "64 bits":
        monkeypatch.setattr(zip_stream, "_ZIP64_FROM", 100)
        monkeypatch.setattr(zip_stream, "_ZIP64_ENTRIES_FROM", 2)


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_reads_a_state_with_weights_only(tmp_path, sizes, mmap):
    path = tmp_path / "a.pt"
    write(path, {**PLAIN, "weights": tensors()})
    state = torch.load(path, weights_only=True, mmap=mmap)
    assert {key: state[key] for key in PLAIN} == PLAIN
    for name, tensor in tensors().items():
        assert same_bits(state["weights"][name], tensor), name


def test_a_state_reads_back(tmp_path, sizes):
    path = tmp_path / "a.pt"
    write(path, {**PLAIN, "weights": tensors()})
    state = read_state_file(path)
    assert {key: state[key] for key in PLAIN} == PLAIN
    for name, tensor in tensors().items():
        found = state["weights"][name]
        assert (found.dtype, found.shape, found.numel()) == (
            tensor.dtype,
            tensor.shape,
            tensor.numel(),
        )
        assert same_bits(found.read(), tensor), name


def test_what_torch_wrote_reads_back(tmp_path):
    path = tmp_path / "a.pt"
    whole = torch.arange(10.0)
    torch.save({**PLAIN, "weights": tensors(), "part": whole[4:7]}, path)
    state = read_state_file(path)
    assert state["nested"] == PLAIN["nested"]
    assert state["part"].read().tolist() == [4.0, 5.0, 6.0]
    for name, tensor in tensors().items():
        assert same_bits(state["weights"][name].read(), tensor), name


def test_the_archive_is_whole_and_its_checksum_known(tmp_path, sizes):
    path = tmp_path / "a.pt"
    written = write(path, {"weights": tensors()})
    content = path.read_bytes()
    assert written == zip_stream.FileSum(len(content), zlib.crc32(content))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == len(tensors()) + 3


@pytest.mark.parametrize("split", [0, 1, 7, 1000, 99_999, 100_000])
def test_checksums_are_joined_without_the_bytes(split):
    data = torch.arange(100_000).to(torch.uint8).numpy().tobytes()
    parts = zlib.crc32(data[:split]), zlib.crc32(data[split:])
    assert zip_stream.join_crc32(*parts, len(data) - split) == zlib.crc32(data)


def test_the_same_state_is_the_same_bytes_wherever_it_is(tmp_path):
    write(tmp_path / "one.pt", {"weights": tensors()})
    write(tmp_path / "two.pt", {"weights": tensors()})
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()


def test_tensors_begin_where_they_can_be_mapped(tmp_path):
    write(tmp_path / "a.pt", {"weights": tensors()})
    found = read_state_file(tmp_path / "a.pt")["weights"]
    assert {tensor.offset % 64 for tensor in found.values()} == {0}


def test_tensors_may_come_in_any_order(tmp_path):
    a, b = Slot(torch.float32, (2,)), Slot(torch.int16, (3,))
    path = tmp_path / "a.pt"
    with path.open("wb") as file, StateWriter(file, {"a": a, "list": [b]}) as writer:
        writer.write([(b, torch.tensor([7, 8, 9], dtype=torch.int16))])
        writer.write([(a, torch.tensor([1.0, 2.0]))])
        writer.finish()
    state = torch.load(path, weights_only=True)
    assert state["a"].tolist() == [1.0, 2.0]
    assert state["list"][0].tolist() == [7, 8, 9]


def test_a_state_with_a_tensor_missing_or_wrong_is_not_finished(tmp_path):
    slot = Slot(torch.float32, (2,))
    with (tmp_path / "a.pt").open("wb") as file, StateWriter(file, {"a": slot}) as writer:
        with pytest.raises(ValueError, match="1 tensors of the state were not written"):
            writer.finish()
        for wrong in (torch.zeros(2, dtype=torch.float16), torch.zeros(3)):
            with pytest.raises(ValueError, match="is not what"):
                writer.write([(slot, wrong)])
        writer.write([(slot, torch.zeros(2))])
        with pytest.raises(KeyError):
            writer.write([(slot, torch.zeros(2))])


def test_nothing_stays_open_when_the_very_beginning_cannot_be_written(tmp_path, monkeypatch):
    opened = []
    original = ParallelFile._open
    monkeypatch.setattr(
        ParallelFile, "_open", lambda file: opened.append(original(file)) or opened[-1]
    )

    def fail(handle, position, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parallel_file, "_write", fail)
    # Windows deletes no file that is open, so the error itself must not keep it so.
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "a.pt", {"weights": tensors()})
    assert opened
    assert all(handle.closed for handle in opened)


@pytest.mark.parametrize("strange", [{1, 2}, b"bytes", os, torch.float32, 1j], ids=repr)
def test_only_plain_values_can_be_written(tmp_path, strange):
    with pytest.raises(ValueError, match=r"state\['config'\]\[0\] is a"):
        write(tmp_path / "a.pt", {"config": [strange]})


def test_reading_into_given_memory(tmp_path):
    write(tmp_path / "a.pt", {"a": torch.arange(6.0).view(2, 3)})
    tensor = read_state_file(tmp_path / "a.pt")["a"]
    out = torch.zeros(8)
    tensor.read_into(out[1:7])
    assert out.tolist() == [0, 0, 1, 2, 3, 4, 5, 0]
    for wrong in (torch.zeros(5), torch.zeros(6, dtype=torch.int32), torch.zeros(6, 2)[:, 0]):
        with pytest.raises(ValueError, match="is not"):
            tensor.read_into(wrong)


def test_a_file_that_went_away_or_became_shorter_is_named(tmp_path):
    path = tmp_path / "a.pt"
    write(path, {"a": torch.arange(6.0)})
    tensor = read_state_file(path)["a"]
    with path.open("rb+") as file:
        file.truncate(tensor.offset + 8)
    with pytest.raises(CheckpointError, match="has become shorter"):
        tensor.read()
    path.unlink()
    with pytest.raises(CheckpointError, match=r"a\.pt: cannot be read"):
        tensor.read()


class Bomb:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_no_code_of_a_file_is_run(tmp_path):
    mark = tmp_path / "PWNED"
    bombs = [
        Bomb(os.system, f"touch {mark}"),
        Bomb(eval, f"open({str(mark)!r}, 'w')"),
        Bomb(getattr, {}, "clear"),
        Bomb(pickle.loads, b"N."),
    ]
    for bomb in bombs:
        torch.save({"format": bomb}, tmp_path / "bomb.pt")
        with pytest.raises(CheckpointError, match=r"not a readable training state .it names"):
            read_state_file(tmp_path / "bomb.pt")
    assert not mark.exists()


def test_models_and_strange_tensors_are_refused(tmp_path):
    path = tmp_path / "x.pt"
    for strange in (
        torch.nn.Linear(2, 2),
        torch.nn.Parameter(torch.ones(2)),
        torch.eye(3).to_sparse(),
        torch.randn(3, 4).t(),
    ):
        torch.save({"x": strange}, path)
        with pytest.raises(CheckpointError, match=r"x\.pt: is not a readable training state"):
            read_state_file(path)


def rewritten(content, entries):
    """Return an archive of ``entries`` in place of those of the same name in ``content``."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, entries.get(name, old.read(name)))
    return out.getvalue()


def test_files_that_are_not_what_they_say_are_refused(tmp_path):
    path = tmp_path / "x.pt"
    write(path, {"a": torch.arange(4.0)})
    good = path.read_bytes()
    faults = {
        "shorter tensor": rewritten(good, {"archive/data/0": b"1234"}),
        "other byte order": rewritten(good, {"archive/byteorder": b"big"}),
        "pickle cut short": rewritten(good, {"archive/data.pkl": b"\x80\x02}q\x00("}),
        "no dictionary": rewritten(good, {"archive/data.pkl": pickle.dumps([1], 2)}),
        "cut short": good[:-30],
        "first half missing": good[200:],
        "not a zip": b"PK\x03\x04broken",
        "empty": b"",
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
    faults["compressed"] = out.getvalue()
    for fault, content in faults.items():
        named = tmp_path / f"{fault}.pt"
        named.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{fault}.pt: is not a"):
            read_state_file(named)


def test_flipped_bytes_never_do_worse_than_an_error(tmp_path):
    path = tmp_path / "x.pt"
    write(path, {"a": torch.arange(4.0), "b": [1, 2, {"c": "d"}]})
    good = path.read_bytes()
    refused = 0
    for place in range(len(good)):
        content = bytearray(good)
        content[place] ^= 0xFF
        path.write_bytes(content)
        try:
            state = read_state_file(path)
        except CheckpointError:
            refused += 1
        else:
            tensor = state.get("a")
            if isinstance(tensor, FileTensor):
                assert tensor.offset + tensor.numel() * tensor.dtype.itemsize <= len(good)
    assert refused > len(good) // 4
