"""What is told of a dataset is what the caches then do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from aozora.config.codec import apply_settings, encode_config, replace_at
from aozora.model.source import ModelSource
from aozora.training.control import RunControl
from aozora.training.dataset_report import report_dataset
from aozora.training.inputs import Encoders, find_pictures
from aozora.training.preparation import open_base


@pytest.fixture
def folders(pictures, tmp_path):
    """Two folders: four pictures, and two of which one is a copy; captions of 0 to 80 tokens."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    captions = {0: "sky " * 75, 1: "sky " * 76, 2: "sky " * 80, 3: ""}
    for number, caption in captions.items():
        shutil.copy(pictures / f"picture {number}.png", first / f"{number}.png")
        (first / f"{number}.txt").write_text(caption, encoding="utf-8")
    for name, number in (("copy", 0), ("other", 4)):
        shutil.copy(pictures / f"picture {number}.png", second / f"{name}.png")
        (second / f"{name}.txt").write_text("same words", encoding="utf-8")
    (second / "broken.png").write_bytes(b"no picture")
    return first, second


@pytest.fixture
def config(make_config, folders, tmp_path):
    config = make_config(f"cache.folder={tmp_path / 'own cache'}", "validation.pictures=1")
    return replace_at(config, "data.folders", [{"path": str(folder)} for folder in folders])


def _encode(config):
    device = torch.device("cpu")
    with open_base(config) as source:
        encoders = Encoders(config, source, device, lambda event: None, RunControl())
        pictures = find_pictures(config)
        return encoders.encode_pictures(pictures), encoders.encode_text(pictures)


def _row(report, name):
    (row,) = [row for row in report.pictures if row.path.endswith(name)]
    return row


def test_what_is_said_to_be_encoded_at_the_next_start_is(config):
    before = report_dataset(config)
    assert not any(row.is_encoded or row.is_caption_encoded for row in before.pictures)
    assert not list(_files(config))
    latents, texts = _encode(config)
    assert (before.whole.new_pictures, before.whole.pictures) == (latents.built, latents.built)
    assert (before.whole.new_captions, before.whole.captions) == (texts.built, texts.built)
    after = report_dataset(config)
    assert (after.whole.new_pictures, after.whole.new_captions) == (0, 0)
    assert all(row.is_encoded and row.is_caption_encoded for row in after.pictures)
    latents, texts = _encode(config)
    assert (after.whole.pictures, after.whole.captions) == (latents.reused, texts.reused)


def _files(config):
    return Path(config.cache.folder).glob("*/*/*.safetensors")


def test_each_folder_is_counted_with_equal_pictures_and_captions_once(config):
    first, second = report_dataset(config).folders
    assert (first.pictures, first.captions) == (4, 4)
    assert (second.pictures, second.captions) == (2, 1)
    whole = report_dataset(config).whole
    assert whole.pictures == 5, "a copy is encoded once"
    assert whole.captions == 5, "the empty caption is there already"


def test_a_new_caption_or_picture_is_new_and_nothing_else(config, folders):
    _encode(config)
    (folders[0] / "0.txt").write_text("other words", encoding="utf-8")
    shutil.copy(folders[0] / "1.png", folders[0] / "3.png")
    report = report_dataset(config)
    assert [row.path for row in report.pictures if not row.is_caption_encoded] == [
        str(folders[0] / "0.png")
    ]
    assert all(row.is_encoded for row in report.pictures), "the copy has been encoded"
    assert (report.whole.new_pictures, report.whole.new_captions) == (0, 1)
    assert report.folders[1].new_captions == 0


def test_other_settings_of_the_caches_need_other_entries(config):
    _encode(config)
    longer = report_dataset(apply_settings(config, ["captions.tokens=150"]))
    new = {row.num_tokens for row in longer.pictures if not row.is_caption_encoded}
    assert new == {76, 80}, "two chunks instead of one"
    assert longer.whole.new_pictures == 0
    larger = report_dataset(apply_settings(config, ["cache.latents=fp32"]))
    assert larger.whole.new_pictures == larger.whole.pictures
    assert larger.whole.new_captions == 0


def test_tokens_are_counted_and_copies_and_left_out_files_named(config, folders):
    report = report_dataset(config)
    lengths = {row.path.rsplit("/", 1)[-1]: row.num_tokens for row in report.pictures}
    assert lengths == {"0.png": 75, "1.png": 76, "2.png": 80, "3.png": 0} | dict.fromkeys(
        ["copy.png", "other.png"], 2
    )
    pair = {_row(report, "0.png").path, _row(report, "copy.png").path}
    (twin,) = [row for row in report.pictures if row.same_as]
    assert {twin.path, twin.same_as} == pair
    ((path, reason),) = report.left_out
    assert path == str(folders[1] / "broken.png")
    assert reason
    text = report.to_text()
    assert "0 to 80 tokens" in text
    assert "2 of 6 are cut at 75" in text
    assert "1 picture is the same file" in text


def test_a_picture_too_small_is_left_out_by_its_path(config, folders):
    report = report_dataset(apply_settings(config, ["buckets.step=128", "buckets.min_side=128"]))
    assert str(folders[0] / "1.png") in dict(report.left_out)


def test_without_a_model_captions_are_counted_and_the_caches_left_open(config):
    report = report_dataset(replace_at(config, "model.base", ""))
    assert report.whole is None
    assert report.folders == ()
    assert {row.is_encoded for row in report.pictures} == {None}
    assert max(row.num_tokens for row in report.pictures) == 80
    assert "not known" in report.to_text()


def test_an_encoder_is_read_once_and_then_remembered(config, monkeypatch):
    report_dataset(config)
    monkeypatch.setattr(ModelSource, "component_hash", lambda *asked: pytest.fail("read again"))
    report_dataset(config)


def test_the_command_line_tells_the_same(config, here, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(encode_config(config)), encoding="utf-8")
    checked = here("check", path)
    assert checked.returncode == 0, checked.stderr
    report = report_dataset(config)
    assert all(line in checked.stdout for line in report.lines())
    told = here("dataset", path, "--json")
    assert json.loads(told.stdout) == json.loads(json.dumps(report.to_plain()))
    assert "folder 2" in here("dataset", path).stdout
    refused = here("dataset", path, "--set", 'data.folders=[{"path":"/none"}]')
    assert refused.returncode == 2
    assert "no such folder" in refused.stderr
