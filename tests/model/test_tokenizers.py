from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aozora.errors import ModelFileError
from aozora.model.tokenizers import load_tokenizer

VECTORS = json.loads((Path(__file__).parent / "data" / "token_vectors.json").read_text("utf-8"))
MERGES_SHA256 = "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a"
VOCABULARY_SHA256 = "e089ad92ba36837a0d31433e555c8f45fe601ab5c221d4f607ded32d9f7a4349"


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["text"][:20])
def test_known_captions_get_their_published_ids(tokenizer, vector):
    chunks = tokenizer.encode_chunks(vector["text"])
    tokens = vector["tokens"]
    assert list(chunks.ids[0]) == [49406, *tokens] + [49407] * (76 - len(tokens))
    padding = [0] * (75 - len(tokens))
    assert list(chunks.ids_2[0]) == [49406, *tokens, 49407, *padding]


def test_the_vocabulary_is_read_without_importing_its_package(tokenizer):
    assert len(tokenizer.vocabulary) == 49408
    assert "open_clip" not in sys.modules


def test_written_files_are_those_of_the_hub_byte_for_byte(tokenizer, tmp_path):
    tokenizer.write_folder(tmp_path)
    digests = {
        name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        for name in ("merges.txt", "vocab.json")
    }
    assert digests == {"merges.txt": MERGES_SHA256, "vocab.json": VOCABULARY_SHA256}


def test_a_folder_the_user_names_and_the_models_own_are_read(tokenizer, tmp_path):
    tokenizer.write_folder(tmp_path / "tokenizer")
    for found in (
        load_tokenizer(tmp_path),
        load_tokenizer(tmp_path / "tokenizer"),
        load_tokenizer(None, tmp_path),
    ):
        assert found.merges == tokenizer.merges
        assert found.fingerprint == tokenizer.fingerprint


def test_a_folder_of_newer_transformers_is_read(tokenizer, tmp_path):
    """They write tokenizer.json alone."""
    from transformers import CLIPTokenizer

    tokenizer.write_folder(tmp_path / "old")
    CLIPTokenizer.from_pretrained(tmp_path / "old").save_pretrained(tmp_path / "new")
    (tmp_path / "new" / "merges.txt").unlink(missing_ok=True)
    (tmp_path / "new" / "vocab.json").unlink(missing_ok=True)
    assert load_tokenizer(tmp_path / "new").merges == tokenizer.merges


def test_bad_tokenizer_folders_are_refused(tokenizer, tmp_path):
    with pytest.raises(ModelFileError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n", encoding="utf-8")
    with pytest.raises(ModelFileError, match="1 merges instead of 48894"):
        load_tokenizer(tmp_path)
    tokenizer.write_folder(tmp_path)
    (tmp_path / "vocab.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelFileError, match=r"vocab\.json does not fit"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.json").unlink()
    merges = [*tokenizer.merges[:-1], "zzzzqqq xxx"]
    (tmp_path / "merges.txt").write_text("\n".join(merges), encoding="utf-8")
    with pytest.raises(ModelFileError, match="unknown parts"):
        load_tokenizer(tmp_path)


def test_without_any_vocabulary_the_error_tells_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelFileError) as caught:
        load_tokenizer()
    assert "bootstrap.py setup" in caught.value.hint


@pytest.mark.parametrize("special", ["<|endoftext|>", "<|startoftext|>"])
def test_special_tokens_in_a_caption_are_plain_text(tokenizer, special):
    tokens = tokenizer.tokens(f"a {special} b")
    assert 49406 not in tokens
    assert 49407 not in tokens
    assert len(tokens) > 4


def test_long_captions_are_cut_where_told(tokenizer):
    caption = "cat " * 200
    cut = tokenizer.encode_chunks(caption, 2)
    assert (cut.num_tokens, cut.num_cut) == (200, 50)
    assert cut.ids == ((49406, *[2368] * 75, 49407),) * 2
    whole = tokenizer.encode_chunks(caption, 3)
    assert whole.num_cut == 0
    assert whole.ids_2[2] == (49406, *[2368] * 50, 49407, *[0] * 25)
    with pytest.raises(ValueError, match="at least one"):
        tokenizer.encode_chunks(caption, 0)


def test_short_captions_are_filled_with_empty_chunks(tokenizer):
    chunks = tokenizer.encode_chunks("a cat", 2)
    assert chunks.ids[1] == (49406,) + (49407,) * 76
    assert chunks.ids_2[1] == (49406, 49407) + (0,) * 75


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=200), num_chunks=st.integers(1, 3))
def test_any_text_gives_well_formed_chunks(tokenizer, text, num_chunks):
    chunks = tokenizer.encode_chunks(text, num_chunks)
    assert len(chunks.ids) == len(chunks.ids_2) == num_chunks
    kept = []
    for first, second in zip(chunks.ids, chunks.ids_2, strict=True):
        assert len(first) == len(second) == 77
        assert first[0] == second[0] == 49406
        end = first.index(49407)
        assert set(first[end:]) == {49407}
        assert second[: end + 1] == first[: end + 1]
        assert set(second[end + 1 :]) <= {0}
        kept += first[1:end]
    assert len(kept) + chunks.num_cut == chunks.num_tokens == tokenizer.num_tokens(text)
