from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from aozora.errors import ModelFileError
from aozora.model.config_folder import write_diffusers_config_folder
from aozora.model.image_encoding import encode_images
from aozora.model.loading import load_text_encoders, load_unet, load_vae
from aozora.model.opening import open_model
from aozora.model.text_encoding import encode_text

UNET = "model.diffusion_model."
CAPTIONS = ["a photo of a cat", "tag, " * 60 + "wow! great!"]


@pytest.fixture(scope="module")
def source(tiny_base):
    return open_model(tiny_base)


@pytest.fixture(scope="module")
def pipeline(source, tiny_base, tokenizer, tmp_path_factory):
    """The same file, loaded by diffusers alone with nothing but the local configurations."""
    from diffusers import StableDiffusionXLPipeline

    folder = tmp_path_factory.mktemp("config")
    write_diffusers_config_folder(source, folder, tokenizer)
    return StableDiffusionXLPipeline.from_single_file(
        tiny_base, config=str(folder), torch_dtype=torch.float32
    )


@pytest.fixture(scope="module")
def encoders(source):
    return load_text_encoders(source, torch.float32)


def equal(ours, theirs):
    mine = {n.removeprefix("text_model."): p for n, p in ours.named_parameters()}
    other = {n.removeprefix("text_model."): p for n, p in theirs.named_parameters()}
    assert mine.keys() == other.keys()
    for name in mine:
        assert torch.equal(mine[name], other[name]), name


def test_our_models_equal_those_diffusers_loads_bit_for_bit(source, pipeline, encoders):
    equal(load_unet(source, torch.float32), pipeline.unet)
    equal(load_vae(source), pipeline.vae)
    equal(encoders[0], pipeline.text_encoder)
    equal(encoders[1], pipeline.text_encoder_2)


def test_our_unet_computes_what_diffusers_computes(source, pipeline):
    torch.manual_seed(0)
    inputs = torch.randn(2, 4, 8, 8), torch.tensor([3, 900]), torch.randn(2, 77, 192)
    added = {"text_embeds": torch.randn(2, 128), "time_ids": torch.rand(2, 6) * 1000}
    with torch.no_grad():
        outputs = [
            unet(*inputs, added_cond_kwargs=added).sample
            for unet in (load_unet(source, torch.float32), pipeline.unet)
        ]
    assert torch.equal(*outputs)


def test_embeddings_are_those_of_the_diffusers_pipeline(pipeline, encoders, tokenizer):
    for caption in CAPTIONS:
        chunks = tokenizer.encode_chunks(caption)
        prompt, pooled = encode_text(
            *encoders, torch.tensor([chunks.ids]), torch.tensor([chunks.ids_2])
        )
        # The pipeline's own tokenizer of encoder 2 would turn every "!" into padding.
        pipeline.tokenizer_2 = _Fixed(chunks.ids_2)
        theirs, _, their_pooled, _ = pipeline.encode_prompt(
            caption, do_classifier_free_guidance=False
        )
        assert prompt.shape == (1, 77, 192)
        torch.testing.assert_close(prompt, theirs, atol=1e-4, rtol=0)
        torch.testing.assert_close(pooled, their_pooled, atol=1e-4, rtol=0)
        # A projection the wrong way round gives vectors that have nothing to do with these.
        state = encoders[1](torch.tensor(chunks.ids_2)).last_hidden_state
        end = torch.tensor(chunks.ids_2).argmax(dim=-1)
        wrong = state[0, end] @ encoders[1].text_projection.weight
        assert (wrong - pooled).norm() > 0.5 * pooled.norm()


class _Fixed:
    """A tokenizer that gives the ids of one caption."""

    model_max_length = 77

    def __init__(self, ids):
        self._ids = torch.tensor(ids)

    def __call__(self, *args, **kwargs):
        from types import SimpleNamespace

        return SimpleNamespace(input_ids=self._ids)

    def tokenize(self, text):
        return []

    def batch_decode(self, ids):
        return ""


def test_chunks_are_encoded_alone_and_pooled_is_the_first(encoders, tokenizer):
    whole = tokenizer.encode_chunks(CAPTIONS[1], 2)
    ids, ids_2 = torch.tensor([whole.ids]), torch.tensor([whole.ids_2])
    prompt, pooled = encode_text(*encoders, ids, ids_2)
    assert prompt.shape == (1, 154, 192)
    for number in range(2):
        part = slice(number, number + 1)
        alone, own_pooled = encode_text(*encoders, ids[:, part], ids_2[:, part])
        torch.testing.assert_close(prompt[:, 77 * number : 77 * (number + 1)], alone)
        if number == 0:
            torch.testing.assert_close(pooled, own_pooled)


def test_latents_are_the_unscaled_mean_that_diffusers_gives(source, pipeline):
    torch.manual_seed(0)
    pixels = torch.rand(2, 3, 64, 32) * 2 - 1
    latents = encode_images(load_vae(source), pixels)
    assert latents.shape == (2, 4, 8, 4)
    assert latents.dtype == torch.float32
    assert torch.equal(latents, pipeline.vae.encode(pixels).latent_dist.mean)


def test_what_is_loaded_is_in_the_asked_format_and_mode(source, encoders):
    unet = load_unet(source, torch.bfloat16)
    assert {p.dtype for p in unet.parameters()} == {torch.bfloat16}
    assert unet.training
    vae = load_vae(source)
    assert vae.dtype == torch.float32
    for frozen in (vae, *encoders):
        assert not frozen.training
        assert not any(p.requires_grad for p in frozen.parameters())


def test_position_ids_are_computed_not_loaded(encoders):
    for encoder in encoders:
        (ids,) = (b for n, b in encoder.named_buffers() if n.endswith("position_ids"))
        assert torch.equal(ids, torch.arange(77).reshape(1, 77))


@pytest.mark.parametrize(
    ("value", "text"),
    [(float("nan"), "has values that are not a number"), (float("inf"), "is infinite")],
)
def test_weights_that_are_not_finite_are_refused_by_file_key(tiny_base, tmp_path, value, text):
    tensors = load_file(tiny_base)
    keys = [UNET + "out.2.bias", UNET + "time_embed.2.weight"]
    for key in keys:
        tensors[key].view(-1)[-1] = value
    save_file(tensors, tmp_path / "bad.safetensors")
    with pytest.raises(ModelFileError) as caught:
        load_unet(open_model(tmp_path / "bad.safetensors"), torch.float32)
    for key in keys:
        assert f"{key}: {text}" in caught.value.message


def test_values_too_large_for_the_asked_format_are_refused(tiny_base, tmp_path):
    tensors = load_file(tiny_base)
    tensors[UNET + "out.2.bias"] = torch.full((4,), 1e5)
    save_file(tensors, tmp_path / "large.safetensors")
    source = open_model(tmp_path / "large.safetensors")
    load_unet(source, torch.bfloat16)
    with pytest.raises(ModelFileError, match=r"out\.2\.bias: too large for float16"):
        load_unet(source, torch.float16)


def test_a_weight_that_is_all_zero_is_told(tiny_base, tmp_path):
    tensors = load_file(tiny_base)
    tensors[UNET + "out.2.weight"].zero_()
    save_file(tensors, tmp_path / "zero.safetensors")
    told = []
    load_unet(open_model(tmp_path / "zero.safetensors"), torch.float32, warn=told.append)
    assert len(told) == 1
    assert UNET + "out.2.weight" in told[0]


def test_a_file_whose_end_never_arrived_is_refused(tiny_base, tmp_path):
    path = tmp_path / "half.safetensors"
    data = bytearray(tiny_base.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    source = open_model(path)
    with pytest.raises(ModelFileError, match=r"\d+% of the .*download or copy was not finished"):
        load_text_encoders(source, torch.float32)


def test_no_file_is_left_open(tiny_base, tmp_path):
    import shutil

    copy = tmp_path / "copy.safetensors"
    shutil.copy(tiny_base, copy)
    source = open_model(copy)
    load_unet(source, torch.float32)
    load_vae(source)
    assert all(file._file is None for file in source._files)
