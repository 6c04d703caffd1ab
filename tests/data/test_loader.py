from __future__ import annotations

import pytest
import torch

from aozora.data.batch_plan import BatchPlan
from aozora.data.cache_store import CacheStore
from aozora.data.latent_cache import build_latents, latent_key
from aozora.data.loader import BatchLoader, RamCache
from aozora.data.prefetch import Prefetcher
from aozora.data.text_cache import build_text, text_key
from aozora.errors import CacheError


def count_chunks(caption):
    return 1 + len(caption) // 75


@pytest.fixture
def made(tmp_path, pictures, items_of, latent_spec, text_spec, vae, text_encoder):
    """The dataset, its two stores and a function that makes loaders."""
    (pictures / "2.txt").write_text("long " * 20, encoding="utf-8")
    items = items_of(pictures)
    latents = CacheStore(tmp_path / "cache", "latents")
    texts = CacheStore(tmp_path / "cache", "text")
    build_latents(items, latents, vae, latent_spec)
    captions = [item.record.caption for item in items]
    build_text(captions, texts, text_encoder(chunks=0), text_spec, count_chunks=count_chunks)

    def loader(**options):
        return BatchLoader(
            items, latents, latent_spec, texts, text_spec, count_chunks=count_chunks, **options
        )

    return items, latents, texts, loader


def plan_of(items, batch_size=2):
    return BatchPlan(
        [(item.fit.height, item.fit.width) for item in items],
        [item.record.relative for item in items],
        [item.record.repeats for item in items],
        batch_size,
        seed=42,
    )


def test_a_batch_holds_scaled_latents_embeddings_and_true_time_ids(made, latent_spec, text_spec):
    items, latents, texts, make_loader = made
    plan, loader = plan_of(items), make_loader(latent_shift=0.5, latent_scale=0.25)
    for k in range(plan.batches_per_epoch):
        planned = plan.batch(k)
        batch = loader.load(planned)
        assert (batch.indices, batch.first_sample) == (planned.items, planned.first_sample)
        for place, index in enumerate(planned.items):
            item = items[index]
            stored = latents.read(latent_key(item, latent_spec)).tensors["latents"].float()
            assert torch.equal(batch.latents[place], (stored - 0.5) * 0.25)
            caption = item.record.caption
            key = text_key(caption, count_chunks(caption), text_spec)
            entry = {n: t.float() for n, t in texts.read(key).tensors.items()}
            length = len(entry["prompt_embeds"])
            assert torch.equal(batch.prompt_embeds[place][:length], entry["prompt_embeds"])
            assert torch.equal(batch.pooled_prompt_embeds[place], entry["pooled_prompt_embeds"])
            fit = item.fit
            assert batch.add_time_ids[place].tolist() == [
                *(item.record.height, item.record.width, fit.crop_top, fit.crop_left),
                *(fit.height, fit.width),
            ]
            assert (batch.height, batch.width) == (fit.height, fit.width)
        for tensor in (batch.latents, batch.prompt_embeds, batch.add_time_ids):
            assert tensor.dtype == torch.float32


def test_batches_have_as_many_chunks_as_the_rest_of_the_run(made):
    items, _, _, make_loader = made
    loader = make_loader(least_chunks=3)
    batch = loader.load(plan_of(items).batch(0))
    assert batch.prompt_embeds.shape[1:] == loader.null_prompt_embeds.shape == (3 * 77, 6)
    assert torch.equal(batch.prompt_embeds[0][-77:], make_loader().null_prompt_embeds[:77])


def test_short_captions_are_padded_with_the_empty_chunk(made):
    items, _, _, make_loader = made
    loader = make_loader()
    assert loader.num_chunks == 2
    assert loader.null_prompt_embeds.shape == (154, 6)
    assert loader.null_pooled_prompt_embeds.shape == (4,)
    plan = plan_of(items, batch_size=4)
    for k in range(plan.batches_per_epoch):
        batch = loader.load(plan.batch(k))
        assert batch.prompt_embeds.shape[1:] == (154, 6)
        for place, index in enumerate(batch.indices):
            is_short = len(items[index].record.caption) < 75
            # The test's encoder gives zeros for the empty caption.
            assert bool((batch.prompt_embeds[place, 77:] == 0).all()) == is_short


def test_batches_do_not_depend_on_memory_or_on_what_was_read_before(made):
    items, _, _, make_loader = made
    plan = plan_of(items)
    ample, none = make_loader(), make_loader(ram_bytes=0)
    for k in [5, 0, 3, 0, 7, 5]:
        one, other = ample.load(plan.batch(k)), none.load(plan.batch(k))
        for name in ("latents", "prompt_embeds", "pooled_prompt_embeds", "add_time_ids"):
            assert torch.equal(getattr(one, name), getattr(other, name))


def test_a_batch_may_be_changed_without_harm_to_the_next(made):
    items, _, _, make_loader = made
    plan, loader = plan_of(items), make_loader()
    first = loader.load(plan.batch(0))
    kept = first.latents.clone(), first.prompt_embeds.clone()
    first.latents.zero_()
    first.prompt_embeds.zero_()
    again = loader.load(plan.batch(0))
    assert torch.equal(again.latents, kept[0])
    assert torch.equal(again.prompt_embeds, kept[1])


def test_a_damaged_entry_names_the_file_and_is_rebuilt_by_the_next_run(made, latent_spec, vae):
    items, latents, _, make_loader = made
    plan, loader = plan_of(items, batch_size=1), make_loader()
    index = plan.batch(0).items[0]
    path = latents.path(latent_key(items[index], latent_spec))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CacheError, match="damaged") as caught:
        loader.load(plan.batch(0))
    assert str(path) in caught.value.message
    assert "run again" in caught.value.hint
    assert build_latents(items, latents, vae, latent_spec).built == 1
    assert loader.load(plan.batch(0)).indices == (index,)


def test_a_loader_without_the_empty_caption_says_so(made, text_spec):
    _, _, texts, make_loader = made
    texts.remove(text_key("", 1, text_spec))
    with pytest.raises(CacheError, match="missing"):
        make_loader()


def test_prefetched_batches_are_those_loaded_directly(made):
    items, _, _, make_loader = made
    plan, loader = plan_of(items), make_loader()
    with Prefetcher(lambda k: loader.load(plan.batch(k)), 3, 15, depth=3) as batches:
        for k, batch in enumerate(batches, start=3):
            direct = make_loader().load(plan.batch(k))
            assert batch.indices == direct.indices
            assert torch.equal(batch.latents, direct.latents)


def test_the_memory_cache_keeps_the_most_recent_within_its_limit():
    made = []

    def make(key):
        made.append(key)
        return {"x": torch.zeros(10)}

    ram = RamCache(limit_bytes=100)
    for key in "abacab":
        ram.get(key, lambda key=key: make(key))
        assert ram.used_bytes <= 100
    assert made == ["a", "b", "c", "b"]
