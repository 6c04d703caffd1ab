from __future__ import annotations

import pytest
import torch

from aozora.training.within_memory import WithinMemory

CARD = torch.device("meta")  # stands for a card: whatever is not the processor
CPU = torch.device("cpu")


class Encoder:
    """Encodes captions, of which the card has room for ``room`` letters at once."""

    def __init__(self, room):
        self.room = room
        self.loaded = []
        self.tried = []
        self.warnings = []
        self.encode = WithinMemory(
            self.load, self.run, self.join, self.size_of, CARD, self.warnings.append, "captions"
        )

    def load(self, device):
        self.loaded.append(device)
        if device == CARD and self.room is None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return f"model on {device}"

    def run(self, model, batch, device):
        if device == CARD:
            self.tried.append(batch)
            if sum(map(len, batch)) > self.room:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return [(model, text) for text in batch]

    @staticmethod
    def join(parts):
        return [encoded for part in parts for encoded in part]

    @staticmethod
    def size_of(batch):
        return len(batch[0])


def on(device, *batch):
    return [(f"model on {device}", text) for text in batch]


def test_what_fits_is_encoded_on_the_card_by_a_model_that_is_loaded_once():
    encoder = Encoder(room=4)
    assert encoder.loaded == []
    assert encoder.encode(["ab"]) == on("meta", "ab")
    assert encoder.encode(["ab", "cd"]) == on("meta", "ab", "cd")
    assert encoder.loaded == [CARD]
    assert encoder.warnings == []


def test_a_batch_that_does_not_fit_is_halved_until_it_does():
    encoder = Encoder(room=4)
    batch = ["ab", "cd", "ef", "gh", "ij"]
    assert encoder.encode(batch) == on("meta", *batch)
    assert encoder.tried == [batch, batch[:3], batch[:2], batch[2:3], batch[3:]]
    assert encoder.loaded == [CARD]
    assert encoder.warnings == []


def test_a_size_that_failed_is_not_tried_again():
    encoder = Encoder(room=4)
    encoder.encode(["ab", "cd", "ef"])
    encoder.tried.clear()
    assert encoder.encode(["gh", "ij", "kl"]) == on("meta", "gh", "ij", "kl")
    assert encoder.tried == [["gh", "ij"], ["kl"]]


def test_only_what_does_not_fit_on_its_own_goes_to_the_processor():
    encoder = Encoder(room=4)
    assert encoder.encode(["abcdef", "ghijkl"]) == on("cpu", "abcdef", "ghijkl")
    assert encoder.encode(["ab", "cd"]) == on("meta", "ab", "cd")
    tried = list(encoder.tried)
    assert encoder.encode(["mnopqr"]) == on("cpu", "mnopqr")
    assert encoder.encode(["mnopqrst", "uvwxyzab"]) == on("cpu", "mnopqrst", "uvwxyzab")
    assert encoder.tried == tried
    assert encoder.loaded == [CARD, CPU]
    (warning,) = encoder.warnings
    assert "captions" in warning


def test_a_card_without_room_for_the_model_leaves_all_to_the_processor():
    encoder = Encoder(room=None)
    for _ in range(2):
        assert encoder.encode(["a", "b"]) == on("cpu", "a", "b")
    assert encoder.loaded == [CARD, CPU]
    assert len(encoder.warnings) == 1


def test_a_model_that_was_dropped_is_free_and_loaded_again_when_needed():
    encoder = Encoder(room=5)
    encoder.encode(["a"])
    encoder.encode.drop()
    assert not encoder.encode._models
    encoder.encode(["a"])
    assert encoder.loaded == [CARD, CARD]


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    encoder = Encoder(room=2)
    encoder.encode = WithinMemory(
        encoder.load, _fail, encoder.join, encoder.size_of, CARD, encoder.warnings.append, "x"
    )
    with pytest.raises(RuntimeError, match="illegal"):
        encoder.encode(["a"])
    assert encoder.warnings == []


def _fail(model, batch, device):
    raise RuntimeError("an illegal memory access was encountered")
