from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import aozora
from aozora.data.cache_store import CacheStore
from aozora.data.latent_cache import build_latents, latent_key
from aozora.data.text_cache import build_text, text_key
from aozora.errors import NumericsError


@pytest.fixture
def latents(tmp_path):
    return CacheStore(tmp_path / "cache", "latents")


@pytest.fixture
def texts(tmp_path):
    return CacheStore(tmp_path / "cache", "text")


@pytest.fixture
def encode_all(items_of, latents, texts, latent_spec, text_spec, vae, text_encoder):
    """Build both caches; return (latents encoded, captions encoded)."""

    def encode(folder, latent_spec=latent_spec, text_spec=text_spec):
        items = items_of(folder)
        encoder = text_encoder()
        vae.batch_sizes.clear()
        made = build_latents(items, latents, vae, latent_spec, batch_size=2, workers=2)
        texts_made = build_text((i.record.caption for i in items), texts, encoder, text_spec)
        assert (made.built, texts_made.built) == (sum(vae.batch_sizes), len(encoder.captions))
        return made.built, texts_made.built

    return encode


def test_everything_is_made_once_and_then_reused(encode_all, pictures):
    assert encode_all(pictures) == (7, 8)
    assert encode_all(pictures) == (0, 0)


def test_editing_one_caption_encodes_exactly_one_caption(encode_all, pictures):
    encode_all(pictures)
    (pictures / "3.txt").write_text("quite another", encoding="utf-8")
    assert encode_all(pictures) == (0, 1)


def test_editing_one_picture_encodes_exactly_one_latent(encode_all, pictures, photo):
    encode_all(pictures)
    photo(128, 64, tint=111).save(pictures / "3.png")
    assert encode_all(pictures) == (1, 0)


def test_another_vae_encodes_all_latents_and_no_text(encode_all, pictures, latent_spec):
    encode_all(pictures)
    assert encode_all(pictures, latent_spec=replace(latent_spec, vae_hash="vae-2")) == (7, 0)
    assert encode_all(pictures) == (0, 0)


@pytest.mark.parametrize("field", ["encoder_hash", "encoder_2_hash", "tokenizer_hash"])
def test_another_encoder_encodes_all_text_and_no_latent(encode_all, pictures, text_spec, field):
    encode_all(pictures)
    assert encode_all(pictures, text_spec=replace(text_spec, **{field: "other"})) == (0, 8)


def test_moving_and_renaming_encode_nothing(encode_all, pictures, tmp_path):
    encode_all(pictures)
    moved = tmp_path / "elsewhere"
    shutil.move(pictures, moved)
    (moved / "3.png").rename(moved / "renamed.png")
    (moved / "3.txt").rename(moved / "renamed.txt")
    assert encode_all(moved) == (0, 0)


def test_the_background_matters_to_transparent_pictures_only(
    encode_all, pictures, photo, latent_spec
):
    image = photo(64, 64).convert("RGBA")
    image.putpixel((0, 0), (0, 0, 0, 0))
    image.save(pictures / "0.png")
    encode_all(pictures)
    assert encode_all(pictures, latent_spec=replace(latent_spec, background=(0, 0, 0))) == (1, 0)


def test_the_geometry_is_part_of_the_key(pictures, items_of, latent_spec):
    item = items_of(pictures)[0]
    keys = {latent_key(item, latent_spec)}
    for field in ("height", "resized_width", "crop_top", "crop_left"):
        moved = replace(item.fit, **{field: getattr(item.fit, field) + 1})
        keys.add(latent_key(replace(item, fit=moved), latent_spec))
    keys.add(latent_key(item, replace(latent_spec, dtype="fp32")))
    assert len(keys) == 6


def test_latents_are_stored_as_encoded_and_batches_share_a_shape(
    pictures, items_of, latents, latent_spec, vae
):
    items = items_of(pictures)
    report = build_latents(items, latents, vae, latent_spec, batch_size=3)
    assert (report.built, report.reused, report.skipped) == (7, 0, ())
    assert sorted(vae.batch_sizes) == [1, 3, 3]
    for item in items:
        stored = latents.read(latent_key(item, latent_spec)).tensors["latents"]
        assert stored.dtype == torch.float16
        assert stored.shape == (4, item.fit.height // 8, item.fit.width // 8)
        assert stored.abs().max() > 0


def test_pictures_of_equal_content_share_a_latent(pictures, items_of, latents, latent_spec, vae):
    shutil.copy(pictures / "0.png", pictures / "copy.png")
    report = build_latents(items_of(pictures), latents, vae, latent_spec)
    assert report.built == sum(vae.batch_sizes) == 7


@pytest.mark.parametrize(("value", "dtype"), [(5.9e4, torch.float16), (7e4, torch.float32)])
def test_values_that_float16_cannot_hold_are_kept_in_float32(
    pictures, items_of, latents, latent_spec, value, dtype
):
    items = items_of(pictures)[:1]
    report = build_latents(
        items, latents, lambda x: torch.full((len(x), 4, 8, 8), value), latent_spec
    )
    assert report.kept_fp32 == (dtype == torch.float32)
    stored = latents.read(latent_key(items[0], latent_spec)).tensors["latents"]
    assert stored.dtype == dtype
    assert torch.isfinite(stored).all()


def test_float32_is_stored_when_asked_for(pictures, items_of, latents, latent_spec, vae):
    spec = replace(latent_spec, dtype="fp32")
    item = items_of(pictures)[0]
    assert build_latents([item], latents, vae, spec).kept_fp32 == 0
    assert latents.read(latent_key(item, spec)).tensors["latents"].dtype == torch.float32


def test_a_latent_that_is_not_finite_is_skipped_and_the_rest_of_its_batch_kept(
    pictures, items_of, latents, latent_spec, vae
):
    items = items_of(pictures)
    bad = items[2]

    def encode(pixels):
        result = vae(pixels)
        if len(vae.batch_sizes) == 1:
            result[1] = float("nan")
        return result

    report = build_latents(items, latents, encode, latent_spec, batch_size=2)
    assert [s.path for s in report.skipped] == [bad.record.relative]
    assert "not finite" in report.skipped[0].reason
    assert report.built == 6
    # Nothing is remembered, so it is tried again.
    assert build_latents(items, latents, vae, latent_spec).built == 1


def test_files_gone_bad_or_changed_since_the_scan_are_skipped(
    pictures, items_of, latents, latent_spec, vae, photo
):
    items = items_of(pictures)
    (pictures / "1.png").unlink()
    (pictures / "2.png").write_bytes(b"rubbish")
    photo(64, 64, tint=77).save(pictures / "4.png")
    report = build_latents(items, latents, vae, latent_spec, batch_size=4)
    reasons = {s.path: s.reason for s in report.skipped}
    assert set(reasons) == {"1.png", "2.png", "4.png"}
    assert "no such file" in reasons["1.png"]
    assert "not a picture" in reasons["2.png"]
    assert "changed since the scan" in reasons["4.png"]
    assert report.changed == (pictures / "4.png",)
    assert report.built == sum(vae.batch_sizes) == 4


def test_a_picture_too_large_for_the_memory_is_skipped(
    pictures, items_of, latents, latent_spec, vae, monkeypatch
):
    items = items_of(pictures)
    real = aozora.data.latent_cache.prepare

    def scarce(image, fit):
        if image.getpixel((40, 0)) == first:
            raise MemoryError
        return real(image, fit)

    first = aozora.data.latent_cache.read_picture(items[2].record.path).image.getpixel((40, 0))
    monkeypatch.setattr("aozora.data.latent_cache.prepare", scarce)
    report = build_latents(items, latents, vae, latent_spec, batch_size=2)
    (skipped,) = report.skipped
    assert skipped.path == items[2].record.relative
    assert "too large for the memory" in skipped.reason
    assert report.built == 6


def test_damaged_entries_are_rebuilt_and_reported(pictures, items_of, latents, latent_spec, vae):
    items = items_of(pictures)
    build_latents(items, latents, vae, latent_spec)
    path = latents.path(latent_key(items[0], latent_spec))
    good = path.read_bytes()
    path.write_bytes(good[:-2] + bytes([good[-2] ^ 4]) + good[-1:])
    report = build_latents(items, latents, vae, latent_spec, verify=True)
    assert (report.built, report.rebuilt, report.reused) == (0, 1, 6)
    assert path.read_bytes() == good


@pytest.mark.parametrize("damage", [lambda data: bytes(len(data)), lambda data: data[:-9]])
def test_zeroed_and_cut_entries_are_made_again_without_being_asked(
    pictures, items_of, latents, texts, latent_spec, text_spec, vae, text_encoder, damage
):
    items = items_of(pictures)
    build_latents(items, latents, vae, latent_spec)
    build_text(["a", "b"], texts, text_encoder(), text_spec)
    paths = [latents.path(latent_key(item, latent_spec)) for item in items[:2]]
    paths.append(texts.path(text_key("a", 1, text_spec)))
    good = [path.read_bytes() for path in paths]
    for path, data in zip(paths, good, strict=True):
        path.write_bytes(damage(data))
    report = build_latents(items, latents, vae, latent_spec)
    assert (report.built, report.rebuilt, report.reused) == (0, 2, 5)
    report = build_text(["a", "b"], texts, text_encoder(), text_spec)
    assert (report.built, report.rebuilt, report.reused) == (0, 1, 2)
    assert [path.read_bytes() for path in paths] == good


def test_a_stop_ends_the_look_at_what_is_there(pictures, items_of, latents, latent_spec, vae):
    items = items_of(pictures)
    build_latents(items, latents, vae, latent_spec)
    asked = []
    report = build_latents(
        items, latents, vae, latent_spec, should_stop=lambda: bool(asked.append(1)) or True
    )
    assert (len(asked), report.reused) == (1, 7)


def test_decoding_stays_a_bounded_number_of_pictures_ahead(
    pictures, items_of, latents, latent_spec, vae, monkeypatch
):
    decoded = []
    real = aozora.data.latent_cache.read_picture

    def counting(path, *arguments, **options):
        decoded.append(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr("aozora.data.latent_cache.read_picture", counting)
    lead = []

    def encode(pixels):
        time.sleep(0.05)
        lead.append(len(decoded) - sum(vae.batch_sizes))
        return vae(pixels)

    build_latents(items_of(pictures), latents, encode, latent_spec, batch_size=1, workers=2)
    assert max(lead) <= 3
    assert max(lead) >= 2


def test_progress_is_told_and_a_stop_keeps_what_is_done(
    pictures, items_of, latents, texts, latent_spec, text_spec, vae, text_encoder
):
    items = items_of(pictures)
    told = []
    stops = iter([False, True])
    report = build_latents(
        items,
        latents,
        vae,
        latent_spec,
        on_progress=lambda done, total: told.append((done, total)),
        should_stop=lambda: next(stops),
    )
    assert report.stopped
    assert told == [(1, 7), (2, 7)]
    assert build_latents(items, latents, vae, latent_spec).reused == 2
    captions = [item.record.caption for item in items]
    encoder = text_encoder()
    report = build_text(captions, texts, encoder, text_spec, batch_size=3, should_stop=lambda: True)
    assert (report.stopped, report.built) == (True, 3)
    assert not build_text(captions, texts, encoder, text_spec, should_stop=lambda: False).stopped


def test_identical_captions_are_encoded_once_and_the_empty_one_always(
    texts, text_spec, text_encoder
):
    encoder = text_encoder()
    report = build_text(["a", "b", "a", "a"], texts, encoder, text_spec)
    assert sorted(encoder.captions) == ["", "a", "b"]
    assert report.built == 3
    entry = texts.read(text_key("a", 1, text_spec)).tensors
    assert entry["prompt_embeds"].shape == (77, 6)
    assert entry["pooled_prompt_embeds"].shape == (4,)
    assert entry["prompt_embeds"].dtype == torch.float16
    assert entry["prompt_embeds"][0, 0] == ord("a") % 97 == entry["pooled_prompt_embeds"][0]


def test_captions_are_batched_by_their_number_of_chunks(texts, text_spec, text_encoder):
    encoder = text_encoder(chunks=0)
    captions = ["short", "x" * 80, "also short", "y" * 160, "z" * 90]
    build_text(
        captions, texts, encoder, text_spec, count_chunks=lambda c: 1 + len(c) // 75, batch_size=2
    )
    stored = texts.read(text_key("y" * 160, 3, text_spec)).tensors
    assert stored["prompt_embeds"].shape == (231, 6)


def test_an_encoder_of_the_wrong_length_is_a_bug(texts, text_spec, text_encoder):
    with pytest.raises(ValueError, match="were encoded to"):
        build_text(["a"], texts, text_encoder(chunks=2), text_spec)


def test_text_that_is_not_finite_ends_the_cache_phase(texts, text_spec):
    with pytest.raises(NumericsError, match="not finite for ''"):
        build_text(
            [], texts, lambda c: (torch.full((1, 77, 6), torch.inf), torch.zeros(1, 4)), text_spec
        )
    assert not texts.has([text_key("", 1, text_spec)])


KILLED = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from aozora.data.cache_store import CacheStore
from aozora.data.dataset import build_dataset
from aozora.data.latent_cache import LatentSpec, build_latents
from aozora.data.scan import scan_folders

records = scan_folders([(Path(sys.argv[1]), 1)], workers=1).records
items = build_dataset(
    records, area=64 * 128, min_side=64, max_side=128, step=64, upscale=False
).items

def encode(pixels):
    print(len(pixels), flush=True)
    time.sleep(0.15)
    return torch.ones(len(pixels), 4, pixels.shape[2] // 8, pixels.shape[3] // 8)

store = CacheStore(Path(sys.argv[2]), "latents")
build_latents(items, store, encode, LatentSpec("vae-1"), batch_size=2)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killing_the_cache_phase_loses_at_most_the_batch_in_work(
    pictures, items_of, latents, latent_spec, vae
):
    environment = {**os.environ, "PYTHONPATH": str(Path(aozora.__file__).parents[1])}
    command = [sys.executable, "-c", KILLED, str(pictures), str(latents.root.parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    with process.stdout as lines:
        begun = [int(lines.readline()) for _ in range(3)]  # the third batch is in work
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    process.wait()
    items = items_of(pictures)
    done = latents.has(latent_key(item, latent_spec) for item in items)
    assert len(done) >= sum(begun[:2])
    report = build_latents(items, latents, vae, latent_spec, batch_size=2, verify=True)
    assert (report.reused, report.rebuilt) == (len(done), 0)
    assert report.built == 7 - len(done)
    assert not list(latents.root.rglob("*.partial"))
