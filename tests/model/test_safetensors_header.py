from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from aozora.errors import ModelFileError
from aozora.model.safetensors_header import read_header
from aozora.model.tensor_file import TensorFile


def file_of(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F16", shape=(2,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


GOOD = {"a": entry(), "b": entry(offsets=(4, 8))}

HOSTILE = {
    "empty": (b"", "is empty"),
    "short": (b"abc", "only 3 bytes"),
    "huge header": (struct.pack("<Q", 1 << 62) + b"{}", "said to be"),
    "header beyond the end": (struct.pack("<Q", 500) + b"{}", "incomplete"),
    "not utf-8": (file_of(b"\xff" * 8), "not readable"),
    "not json": (file_of(b"{'a': 1}"), "not readable"),
    "not a table": (file_of(b"[1, 2]"), "no table"),
    "deep": (file_of(b'{"a":' * 90_000), "not readable"),
    "huge number": (file_of(b'{"a":' + b"9" * 5000 + b"}"), "not readable"),
    "nan": (file_of(b'{"a": NaN}'), "number NaN"),
    "duplicate": (file_of(b'{"a": 1, "a": 2}'), "'a' twice"),
    "half a surrogate": (file_of({"\ud800": entry()}, b"\0" * 4), "not readable"),
    "metadata of numbers": (file_of({"__metadata__": {"n": 1}}), "not text"),
    "no offsets": (file_of({"a": {"dtype": "F16", "shape": [2]}}), "not described"),
    "not an object": (file_of({"a": 3}), "not described"),
    "unknown format": (file_of({"a": entry("F4", (2,), (0, 1))}, b"\0"), "'F4'"),
    "format of another type": (file_of({"a": entry(["F16"])}, b"\0" * 4), "number format"),
    "negative shape": (file_of({"a": entry(shape=(-2,))}, b"\0" * 4), "no proper shape"),
    "true as a length": (file_of({"a": entry(shape=(True, 2))}, b"\0" * 4), "no proper shape"),
    "too many dimensions": (file_of({"a": entry(shape=(1,) * 99 + (2,))}, b"\0" * 4), "dimensions"),
    "negative offset": (file_of({"a": entry(offsets=(-4, 0))}, b"\0" * 4), "no proper place"),
    "shape overflow": (file_of({"a": entry(shape=(1 << 40, 1 << 40))}, b"\0" * 4), "does not fill"),
    "length and shape differ": (file_of({"a": entry(offsets=(0, 6))}, b"\0" * 6), "does not fill"),
    "overlap": (file_of({"a": entry(), "b": entry(offsets=(2, 6))}, b"\0" * 6), "overlap"),
    "gap": (file_of({"a": entry(), "b": entry(offsets=(6, 10))}, b"\0" * 10), "gap"),
    "late start": (file_of({"a": entry(offsets=(2, 6))}, b"\0" * 6), "does not begin"),
    "one byte short": (file_of(GOOD, b"\0" * 7), "incomplete: it should have"),
    "web page": (b"<!DOCTYPE html><html><title>Sign in</title>" * 9, "web page"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs"),
    "pickle": (pickle.dumps([1] * 99, protocol=4), "pickle"),
    "comment of a web page": (b"<!-- \xc3\xa9" + b" sign in" * 99, "web page"),
    "error as JSON": (b'{"error": "Invalid username or password."}', r"text file.*Invalid user"),
    "error in words": (b"Entry not found", "text file, not a model: 'Entry not found'"),
    "long text": ("é".encode() * 999, "text file, not a model: 'é{80}' \\(the"),
    "rar": (b"Rar!\x1a\x07\x01\0" + b"\0" * 99, "archive"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4" + b"\0" * 99, "archive"),
    "gzip": (b"\x1f\x8b\x08\0" + b"\1" * 99, "archive"),
    "gguf": (b"GGUF\3\0\0\0" + b"\0" * 99, "GGUF"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_with_its_name_and_reason(tmp_path, case):
    data, reason = HOSTILE[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=reason) as caught:
        read_header(path)
    assert str(path) in caught.value.message


def test_a_zip_archive_is_told_in_spite_of_its_name(tmp_path):
    path = tmp_path / "model.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", "x")
    with pytest.raises(ModelFileError, match="pickle or zip"):
        read_header(path)


def test_a_zip_archive_that_is_no_pickle_is_to_be_unpacked(tmp_path):
    path = tmp_path / "model.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.safetensors", "x")
    with pytest.raises(ModelFileError, match="is an archive") as caught:
        read_header(path)
    assert "unpack" in caught.value.hint


def test_of_a_model_index_the_folder_is_to_be_named(tmp_path):
    path = tmp_path / "model_index.json"
    path.write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}), encoding="utf-8")
    with pytest.raises(ModelFileError, match="describes a diffusers folder") as caught:
        read_header(path)
    assert str(tmp_path) in caught.value.hint


def test_of_a_training_state_the_model_beside_it_is_named(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"state")
    (tmp_path / "a.safetensors").write_bytes(b"model")
    with pytest.raises(ModelFileError, match=r"is a \.pt file") as caught:
        read_header(tmp_path / "a.pt")
    assert str(tmp_path / "a.safetensors") in caught.value.hint


@pytest.mark.parametrize("ending", [".ckpt", ".pt", ".PTH", ".bin"])
def test_pickles_are_refused_by_name_and_never_opened(tmp_path, ending):
    path = tmp_path / f"model{ending}"
    path.write_bytes(b"whatever")
    with pytest.raises(ModelFileError) as caught:
        read_header(path)
    assert "convert it to .safetensors" in caught.value.hint


def test_missing_files_folders_and_pipes_are_refused(tmp_path):
    with pytest.raises(ModelFileError, match="does not exist"):
        read_header(tmp_path / "none.safetensors")
    with pytest.raises(ModelFileError, match="not a file"):
        read_header(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.safetensors")
        with pytest.raises(ModelFileError, match="not a file"):
            read_header(tmp_path / "pipe.safetensors")


def test_trailing_bytes_are_counted_not_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_of(GOOD, b"\0" * 15))
    assert read_header(path).trailing_bytes == 7


def test_tensors_read_as_the_library_wrote_them(tmp_path):
    torch.manual_seed(0)
    tensors = {
        "half": torch.randn(5, 3).half(),
        "brain": torch.randn(7).bfloat16(),
        "single": torch.randn(2, 2, 2, 2),
        "scalar": torch.tensor(4.5),
        "empty": torch.empty(0),
        "ids": torch.arange(9).reshape(1, 9),
        "mask": torch.tensor([True, False]),
    }
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, metadata={"title": "ü"})
    with TensorFile(path) as file:
        assert file.header.metadata == {"title": "ü"}
        for key, tensor in tensors.items():
            found = file.read(key)
            assert found.dtype == tensor.dtype
            assert torch.equal(found, tensor)
            pieces = b"".join(bytes(piece) for piece in file.read_pieces(key, piece_bytes=4))
            assert pieces == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def test_a_third_of_the_rows_can_be_read(tmp_path):
    fused = torch.arange(18.0).reshape(9, 2)
    save_file({"before": torch.zeros(3), "fused": fused}, tmp_path / "m.safetensors")
    with TensorFile(tmp_path / "m.safetensors") as file:
        assert torch.equal(torch.cat([file.read("fused", third=n) for n in range(3)]), fused)


def test_a_changed_file_is_noticed(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    file = TensorFile(path)
    file.check_unchanged()
    save_file({"a": torch.zeros(4)}, path)
    with pytest.raises(ModelFileError, match="was changed"):
        file.check_unchanged()


def test_the_fingerprint_depends_on_values_not_on_the_name(tmp_path):
    paths = [tmp_path / f"{n}.safetensors" for n in range(3)]
    save_file({"a": torch.zeros(30_000)}, paths[0])
    save_file({"a": torch.zeros(30_000)}, paths[1])
    save_file({"a": torch.zeros(30_000) + 1e-6}, paths[2])
    first, same, other = (TensorFile(path).fingerprint() for path in paths)
    assert first == same != other


def test_a_file_that_was_only_touched_counts_as_unchanged(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    file, unknown = TensorFile(path), TensorFile(path)
    file.fingerprint()
    os.utime(path, ns=(1, 1))
    file.check_unchanged()
    with pytest.raises(ModelFileError, match="was changed"):
        unknown.check_unchanged()
    save_file({"a": torch.ones(3)}, path)
    with pytest.raises(ModelFileError, match="was changed"):
        file.check_unchanged()
