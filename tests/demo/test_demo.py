from __future__ import annotations

import pytest
import torch

from aozora.config.checks import check_config
from aozora.data.images import load_image
from aozora.demo.base_model import write_demo_base
from aozora.demo.pictures import CLASSES, class_of, draw_pictures
from aozora.demo.run import DemoReport, demo_config, prepare_demo
from aozora.errors import AozoraError
from aozora.model.image_encoding import encode_images
from aozora.model.loading import load_text_encoders, load_vae
from aozora.model.opening import open_model
from aozora.model.text_encoding import encode_text
from aozora.model.tokenizers import load_tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    write_demo_base(path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw_pictures(tmp_path_factory.mktemp("pictures"))


def test_the_base_has_every_key_of_sdxl_and_stays_small(base):
    with open_model(base) as source:
        sizes = {name: len(source.component(name)) for name in ("unet", "vae", "te1")}
        keys = source.template.header.tensors
    assert sizes == {"unet": 1680, "vae": 248, "te1": 196}
    assert len(keys) == 2514
    assert base.stat().st_size <= 80e6


def test_the_same_seed_writes_the_same_bytes(base, tmp_path):
    write_demo_base(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == base.read_bytes()


def test_latents_have_unit_size_and_hold_the_picture(base, pictures):
    with open_model(base) as source:
        vae = load_vae(source)
    latents = []
    for path in pictures[::4]:
        image = load_image(path).resize((192, 192))
        pixels = torch.tensor(list(image.tobytes()), dtype=torch.float32).reshape(192, 192, 3)
        pixels = (pixels / 127.5 - 1).permute(2, 0, 1)[None]
        latents.append(encode_images(vae, pixels)[0] * 0.13025)
    stacked = torch.stack(latents)
    assert 0.8 < stacked.std() < 1.2
    assert stacked.mean().abs() < 0.3
    # The first channel is the brightness of 8x8 pixels.
    brightness = torch.nn.functional.avg_pool2d(pixels.mean(1, keepdim=True), 8)[0, 0]
    both = torch.stack([latents[-1][0].flatten(), brightness.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.999


def test_captions_of_different_classes_are_told_apart(base):
    tokenizer = load_tokenizer()
    with open_model(base) as source:
        encoders = load_text_encoders(source, torch.float32)
    captions = [f"a {name.replace(' on ', ' circle on a ')} background" for name in CLASSES]
    chunks = [tokenizer.encode_chunks(caption, 1) for caption in captions]
    ids = torch.tensor([chunk.ids for chunk in chunks])
    ids_2 = torch.tensor([chunk.ids_2 for chunk in chunks])
    states, pooled = encode_text(*encoders, ids, ids_2)
    assert torch.isfinite(states.half()).all()
    assert torch.isfinite(pooled.half()).all()
    for values in (states.flatten(1), pooled):
        distances = torch.cdist(values, values) + torch.eye(len(values)) * 1e9
        assert distances.min() > 0.05 * values.norm(dim=1).mean()


def test_pictures_and_captions_follow_from_the_seed(pictures, tmp_path):
    again = draw_pictures(tmp_path)
    assert [path.name for path in again] == [path.name for path in pictures]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(again, pictures, strict=True))
    assert len(pictures) == 64
    assert {path.suffix for path in pictures} == {".png", ".jpg", ".webp"}
    assert len({load_image(path).size for path in pictures}) == 4


def test_every_class_is_drawn(pictures):
    found = set()
    for path in pictures:
        sidecars = [path.with_suffix(kind) for kind in (".txt", ".caption")]
        texts = [p.read_text(encoding="utf-8") for p in sidecars if p.exists()]
        found.add(class_of(texts[0] if texts else path.stem))
    assert found == set(range(len(CLASSES)))
    with pytest.raises(ValueError, match="not a caption"):
        class_of("a house")


def test_the_demos_settings_are_ready_to_train(tmp_path):
    assert check_config(demo_config(tmp_path)) == []


def test_the_demo_does_not_touch_a_folder_of_someone_else(tmp_path):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(AozoraError, match="not made by the demo"):
        prepare_demo(tmp_path)
    assert (tmp_path / "mine.txt").exists()


@pytest.mark.parametrize(
    ("after", "bound", "passed"), [(0.3, 0.4, True), (0.5, 0.6, False), (0.39, 0.38, False)]
)
def test_the_demo_passes_only_when_the_model_learned(after, bound, passed):
    report = DemoReport(
        first_loss=1.0,
        last_loss=0.3,
        validation_before=1.0,
        validation_after=after,
        scalar_bound=bound,
        steps=2,
        stopped_at=1,
        seconds={},
        files={},
    )
    assert report.passed is passed
    assert ("passed" in report.to_text()) is passed
