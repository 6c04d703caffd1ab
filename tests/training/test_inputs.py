from __future__ import annotations

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from aozora.config.codec import decode_config, replace_at
from aozora.data.cache_store import CacheStore
from aozora.data.latent_cache import LatentSpec
from aozora.data.text_cache import TextSpec, build_text
from aozora.errors import CacheError, DatasetError
from aozora.events import Warned
from aozora.training import inputs
from aozora.training.control import RunControl
from aozora.training.inputs import Encoders, find_pictures


def _draw(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "pictures"
    made.mkdir()
    for number in range(8):
        _draw(made / f"{number}.bmp", number)
    return made


@pytest.fixture
def make_config(tmp_path, folder):
    def make(held_out=0, seed=42):
        return decode_config(
            {
                "data": {"folders": [{"path": str(folder)}]},
                "buckets": {"resolution": 256, "min_side": 64, "upscale": True},
                "cache": {"folder": str(tmp_path / "cache")},
                "validation": {"pictures": held_out},
                "training": {"seed": seed},
            }
        )

    return make


def _names(items):
    return {item.record.relative for item in items}


# What is held out


def test_the_same_pictures_are_held_out_whatever_they_are_called(make_config, folder):
    def held_out(**options):
        return {i.record.content_hash for i in find_pictures(make_config(3, **options)).held_out}

    first = held_out()
    assert len(first) == 3
    assert held_out() == first
    for number in range(8):
        (folder / f"{number}.bmp").rename(folder / f"renamed {9 - number}.bmp")
    assert held_out() == first
    assert len({frozenset(held_out(seed=seed)) for seed in range(6)}) > 1


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_never_on_both_sides(make_config, folder, seed):
    for number in (0, 1, 2):
        shutil.copy(folder / f"{number}.bmp", folder / f"copy of {number}.bmp")
    pictures = find_pictures(make_config(4, seed))
    assert len(pictures.held_out) == 4
    assert len(pictures.trained) == 7
    sides = [{i.record.content_hash for i in s} for s in (pictures.trained, pictures.held_out)]
    assert not sides[0] & sides[1]
    assert not pictures.warnings[1:], "only that there are no captions"


def test_where_copies_do_not_fit_fewer_are_held_out_and_it_is_said(make_config, folder):
    for number in range(8):
        shutil.copy(folder / f"{number}.bmp", folder / f"copy of {number}.bmp")
    pictures = find_pictures(make_config(3))
    assert len(pictures.held_out) == 2
    assert any("2 pictures are held out instead of 3" in text for text in pictures.warnings)


def test_where_no_copies_fit_at_all_it_is_refused(make_config, folder):
    for number in range(8):
        shutil.copy(folder / f"{number}.bmp", folder / f"copy of {number}.bmp")
    with pytest.raises(DatasetError, match=r"validation\.pictures: 1 cannot .* at least 2 times"):
        find_pictures(make_config(1))


# The caches


@pytest.fixture
def encoders(make_config, tmp_path, monkeypatch):
    """Encoders that average blocks of pixels instead of having a VAE."""
    keys = SimpleNamespace(
        latents=CacheStore(tmp_path / "cache", "latents"),
        texts=CacheStore(tmp_path / "cache", "text"),
        latent_spec=LatentSpec(vae_hash="vae"),
        text_spec=TextSpec("a", "b", "c"),
    )
    ids = SimpleNamespace(ids=[[0]], ids_2=[[0]])
    lengths = SimpleNamespace(
        num_chunks=lambda caption: 1,
        is_cut=lambda caption: False,
        tokenizer=SimpleNamespace(encode_chunks=lambda caption, count: ids),
    )
    monkeypatch.setattr(inputs, "CaptionLengths", lambda config: lengths)
    monkeypatch.setattr(inputs, "CacheKeys", lambda *_: keys)
    monkeypatch.setattr(inputs, "load_vae", lambda *_, **__: None)
    monkeypatch.setattr(
        inputs, "encode_images", lambda vae, pixels: torch.nn.functional.avg_pool2d(pixels, 8)
    )
    source = SimpleNamespace(facts=SimpleNamespace(vae_scaling_factor=0.13025))
    control = RunControl()
    made = Encoders(make_config(), source, torch.device("cpu"), lambda event: None, control)
    return SimpleNamespace(it=made, keys=keys, source=source, control=control)


def test_a_file_that_turns_out_to_be_another_is_forgotten_by_the_index(
    encoders, make_config, folder, tmp_path
):
    pictures = find_pictures(make_config())
    times = (folder / "3.bmp").stat()
    _draw(folder / "3.bmp", 99)
    os.utime(folder / "3.bmp", ns=(times.st_atime_ns, times.st_mtime_ns))
    report = encoders.it.encode_pictures(pictures)
    assert [item.path for item in report.skipped] == ["3.bmp"]
    stored = json.loads((tmp_path / "cache" / "pictures.json").read_text(encoding="utf-8"))
    assert len(stored["files"]) == 7
    again = find_pictures(make_config())
    assert _names(again.trained) == _names(pictures.trained)
    assert encoders.it.encode_pictures(again).built == 1


def test_an_index_that_cannot_be_mended_is_logged(encoders, folder, make_config, caplog):
    pictures = find_pictures(make_config())
    _draw(folder / "3.bmp", 99)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "forget_files", refuse)
        assert encoders.it.encode_pictures(pictures).built == 7
    assert "stay in the index" in caplog.text


def test_one_who_stops_without_a_save_does_not_wait_for_a_lost_drive(
    encoders, make_config, monkeypatch
):
    pictures = find_pictures(make_config())
    encoders.it.encode_pictures(pictures)
    captions = [item.record.caption for item in pictures.trained]
    build_text(
        captions,
        encoders.keys.texts,
        lambda batch: (torch.zeros(len(batch), 77, 4), torch.zeros(len(batch), 4)),
        encoders.keys.text_spec,
    )
    loader = encoders.it.loader(pictures.trained)
    planned = pictures.plan(batch_size=2, seed=1).batch(0)

    def refuse(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    monkeypatch.setattr("aozora.data.cache_store._RETRY_SECONDS", (60.0,))
    encoders.control.stop()
    with pytest.raises(CacheError, match="Input/output error"):
        loader.load(planned)


def test_pictures_that_do_not_fit_together_are_encoded_one_by_one(
    encoders, make_config, monkeypatch
):
    tried = []

    def encode(vae, pixels):
        tried.append(len(pixels))
        if len(pixels) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.zeros(1, 4, 8, 8)

    config = replace_at(make_config(), "cache.vae_batch", 2)
    card = torch.device("meta")  # stands for a card: whatever is not the processor
    events = []
    monkeypatch.setattr(inputs, "encode_images", encode)
    made = Encoders(config, encoders.source, card, events.append, encoders.control)
    assert made.encode_pictures(find_pictures(config)).built == 8
    assert tried == [2, *[1] * 8]
    assert not [event for event in events if isinstance(event, Warned)]


def test_captions_that_do_not_fit_together_are_encoded_one_by_one(
    encoders, make_config, monkeypatch
):
    def encode(first, second, ids, ids_2):
        if len(ids) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.zeros(1, 77, 4), torch.zeros(1, 4)

    monkeypatch.setattr(inputs, "load_text_encoders", lambda *_, **__: (None, None))
    monkeypatch.setattr(inputs, "encode_text", encode)
    config, card = make_config(), torch.device("meta")
    made = Encoders(config, encoders.source, card, lambda event: None, encoders.control)
    assert made.encode_text(find_pictures(config)).built == 9
