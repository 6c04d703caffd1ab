"""Shapes that are made once and kept."""

from __future__ import annotations

import json
import logging

import pytest

from aozora.model import building
from aozora.model.building import parameter_shapes
from aozora.model.kept_shapes import shapes_file
from aozora.model.synthetic import ModelSizes, configs_of

CONFIG = configs_of(ModelSizes())["te1"]


@pytest.fixture
def made(monkeypatch):
    """The components that were made, in a process that has made none yet."""
    found = []
    make = building.build_model

    def build(component, config):
        found.append(component)
        return make(component, config)

    monkeypatch.setattr(building, "build_model", build)
    building._parameter_shapes.cache_clear()
    yield found
    building._parameter_shapes.cache_clear()


def again():
    """Return the shapes as another process would."""
    building._parameter_shapes.cache_clear()
    return parameter_shapes("te1", CONFIG)


def kept():
    return shapes_file("te1", building._frozen(CONFIG))


def test_a_model_is_made_once_to_ask_for_its_shapes(made):
    first = again()
    assert made == ["te1"]
    second = again()
    assert made == ["te1"]
    assert list(second.items()) == list(first.items())
    assert all(isinstance(shape, tuple) for shape in second.values())


def test_other_sizes_and_other_packages_are_other_models(made, monkeypatch):
    again()
    parameter_shapes("te1", {**CONFIG, "vocab_size": CONFIG["vocab_size"] + 1})
    assert made == ["te1"] * 2
    monkeypatch.setattr("aozora.model.kept_shapes.version", lambda package: "another")
    again()
    assert made == ["te1"] * 3


@pytest.mark.parametrize("content", ["", "{", "[]", "[[1]]", "5", '[["a", "b"]]'])
def test_a_damaged_file_is_made_again(made, caplog, content):
    whole = again()
    kept().write_text(content, encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert again() == whole
    assert "made again" in caplog.text
    assert len(json.loads(kept().read_text(encoding="utf-8"))) == len(whole)


def test_a_folder_that_cannot_be_written_does_no_harm(made, caplog):
    kept().parent.parent.mkdir(parents=True, exist_ok=True)
    kept().parent.write_text("no folder", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert again()
    assert "Could not keep" in caplog.text
