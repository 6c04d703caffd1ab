from __future__ import annotations

import pytest
import torch

from aozora.training.within_memory import WithinMemory

CARD = torch.device("meta")  # stands for a card: whatever is not the processor
CPU = torch.device("cpu")


class Encoder:
    def __init__(self, room):
        self.room = room
        self.loaded = []
        self.warnings = []
        self.encode = WithinMemory(self.load, self.run, CARD, self.warnings.append, "captions")

    def load(self, device):
        self.loaded.append(device)
        return f"model on {device}"

    def run(self, model, batch, device):
        if device != CPU and batch > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return model, batch


def test_what_fits_is_encoded_on_the_card_by_a_model_that_is_loaded_once():
    encoder = Encoder(room=5)
    assert encoder.loaded == []
    assert [encoder.encode(batch) for batch in (1, 5)] == [
        ("model on meta", 1),
        ("model on meta", 5),
    ]
    assert encoder.loaded == [CARD]
    assert encoder.warnings == []


def test_what_does_not_fit_is_encoded_by_the_processor_from_then_on():
    encoder = Encoder(room=2)
    assert encoder.encode(1) == ("model on meta", 1)
    assert encoder.encode(3) == ("model on cpu", 3)
    assert encoder.encode(1) == ("model on cpu", 1)
    assert encoder.loaded == [CARD, CPU]
    assert len(encoder.warnings) == 1
    assert "captions" in encoder.warnings[0]


def test_a_model_that_was_dropped_is_free_and_loaded_again_when_needed():
    encoder = Encoder(room=5)
    encoder.encode(1)
    encoder.encode.drop()
    assert encoder.encode._model is None
    encoder.encode(1)
    assert encoder.loaded == [CARD, CARD]


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    encoder = Encoder(room=2)
    encoder.run = None
    encoder.encode = WithinMemory(encoder.load, _fail, CARD, encoder.warnings.append, "captions")
    with pytest.raises(RuntimeError, match="illegal"):
        encoder.encode(1)
    assert encoder.warnings == []


def _fail(model, batch, device):
    raise RuntimeError("an illegal memory access was encountered")
