"""The Layers page: whose layers it counts, and what a choice of them takes."""

from __future__ import annotations

import json
import os

import pytest
from PySide6.QtWidgets import QLabel

from aozora.errors import Problem
from aozora.model.synthetic import ModelSizes, write_random_base
from gui.document import Document
from gui.editors.layer_rules import count
from gui.editors.numbers import format_parameters
from gui.editors.unet_shapes import UnetSizes, unet_shapes
from gui.pages.layer_costs import choice_rows, seconds_text, set_rows, waiting_words
from gui.pages.layers import Page
from gui.pages.model_shapes import parse_shapes
from gui.shell.estimate import parse_estimate

GIB = 2**30
EN_DASH = chr(0x2013)
TINY = unet_shapes(UnetSizes((32, 64, 128), (1, 1, 2), 64 + 128, 6 * 256 + 128))
ANSWER = {name: list(shape) for name, shape in TINY.items()}

# The offscreen platform cannot bound sizes, and says so.
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")


def answer(vram=8, *, fits=True, problems=()):
    """Return what a check says, with a card or without."""
    summary = {
        "total_steps": 100,
        "memory": {
            "vram_range": [(vram - 0.5) * GIB, (vram + 0.5) * GIB] if vram else [0, 0],
            "ram_range": [9 * GIB, 11 * GIB],
            "step_seconds_range": [0.4, 0.6],
            "calibrated_by": "",
        },
    }
    sets = [
        {
            "layers": name,
            "trained_parameters": trained,
            "vram_bytes": vram * GIB,
            "ram_bytes": 12 * GIB,
            "step_seconds": 4.0,
            "fits": fits,
        }
        for name, trained in (("all", 2_567_000_000), ("attention", 600_000_000))
    ]
    plain = [{"path": p.path, "text": p.text, "remedy": p.remedy} for p in problems]
    return parse_estimate(
        {
            "problems": plain,
            "notes": [],
            "summary": None if problems else summary,
            "layer_sets": sets,
        }
    )


@pytest.fixture
def document(qapp):
    return Document()


@pytest.fixture
def page(qtbot, document):
    page = Page(document)
    qtbot.addWidget(page)
    page.resize(1000, 900)
    page.show()
    yield page
    page.close_down()


@pytest.fixture
def base(tmp_path):
    """A file that is there; what it holds is what a test says the engine answered."""
    path = tmp_path / "base.safetensors"
    path.write_bytes(b"model")
    return path


@pytest.fixture
def asked(page, monkeypatch):
    """What the page asks the engine, which is not started."""
    found = []
    monkeypatch.setattr(page.model._question, "ask", found.append)
    return found


def reply(page, data, failure=""):
    page.model._question.answered.emit(data, failure)


# Whose layers are counted


def test_the_layers_are_those_of_the_chosen_file(page, document, qtbot, tmp_path):
    path = tmp_path / "tiny.safetensors"
    write_random_base(path, ModelSizes())
    assert "full size" in page.model.note
    document.set_values({"model.base": str(path)}, "base")
    assert "is being read" in page.model_note.text()
    qtbot.waitUntil(lambda: page.model.is_known, timeout=120_000)
    assert page.model.shapes == TINY
    assert list(page.model.shapes) == list(TINY)
    assert page.model_note.text() == "Counted for tiny.safetensors."
    assert page.root.num_params == count(TINY, TINY)
    assert format_parameters(count(TINY, TINY)) in page.figure.text()
    assert "{:,} of {:,} tensors".format(*[len(TINY)] * 2) in page.notice.text()


def test_what_is_unfolded_chosen_and_ticked_stays(page, document, asked, base):
    tree = page.tree
    tree.expand(tree.layers.find("mid_block.*"))
    tree.setCurrentIndex(tree.layers.find("mid_block.attentions.0.*"))
    document.set_values({"model.base": str(base), "targets.exclude": ["mid_block.*"]}, "base")
    before = page.figure.text()
    reply(page, ANSWER)
    assert page.figure.text() != before
    assert tree.isExpanded(tree.layers.find("mid_block.*"))
    assert not tree.isExpanded(tree.layers.find("up_blocks.0.*"))
    assert tree.layers.node(tree.currentIndex()).pattern == "mid_block.attentions.0.*"
    left = sum(node.num_params for node in page.root.children if node.key != "mid_block")
    assert format_parameters(left) in page.figure.text()


@pytest.mark.parametrize(
    ("data", "failure", "words"),
    [
        (None, "Error: it is a web page\nWhat to do: get the file", "it is a web page"),
        ({}, "", "no list of layers"),
        ({"conv_in.weight": "4"}, "", "conv_in.weight has no shape"),
        ([1], "", "no list of layers"),
    ],
)
def test_a_model_that_cannot_be_read_is_counted_as_full_size(
    page, document, asked, base, data, failure, words
):
    document.set_values({"model.base": str(base)}, "base")
    reply(page, ANSWER)
    assert page.model.is_known
    reply(page, data, failure)
    assert not page.model.is_known
    assert page.model.shapes == unet_shapes()
    assert words in page.model_note.text()
    assert "SDXL at full size" in page.model_note.text()
    assert "2.57 B of 2.57 B" in page.figure.text()


def test_without_a_model_the_note_says_which_layers_are_counted(page, document, asked, tmp_path):
    assert "no base model is chosen" in page.model_note.text()
    document.set_values({"model.base": str(tmp_path / "none")}, "base")
    assert "no such base model" in page.model_note.text()
    assert not page.model.is_busy
    assert asked == []


def test_a_file_is_asked_about_once_until_it_changes(page, document, asked, base, qtbot):
    document.set_values({"model.base": str(base)}, "base")
    qtbot.waitUntil(lambda: asked == [["inspect", str(base), "--layers", "--json"]])
    reply(page, ANSWER)
    page.hide()
    page.show()
    assert not page.model.is_busy
    page.hide()
    os.utime(base, (1, 1))
    page.show()
    qtbot.waitUntil(lambda: len(asked) == 2)


def test_a_page_nobody_sees_asks_nothing(page, document, asked, base):
    page.hide()
    document.set_values({"model.base": str(base)}, "base")
    assert not page.model.is_busy
    page.show()
    assert page.model.is_busy


def test_shapes_come_through_json(tmp_path):
    assert parse_shapes(json.loads(json.dumps(ANSWER))) == TINY
    with pytest.raises(ValueError, match="no shape"):
        parse_shapes({"a": [1, True]})


# What a choice takes


def test_this_choice_has_ranges_and_the_sets_have_figures():
    rows = [(name, words.replace(EN_DASH, "-")) for name, words in choice_rows(answer())]
    assert rows == [
        ("Graphics memory", "7.5-8.5 GiB"),
        ("Main memory", "9.0-11.0 GiB"),
        ("A step", "0.40-0.60 s"),
    ]
    sets = set_rows(answer())
    assert [row.name for row in sets] == ["All layers", "Attention only"]
    assert (sets[0].trained, sets[0].vram, sets[0].step) == ("2.57 B", "8.0 GiB", "4.0 s")


def test_without_a_card_nothing_is_said_of_its_memory():
    without = answer(vram=0)
    assert [row.vram for row in set_rows(without)] == ["", ""]
    assert [name for name, _ in choice_rows(without)] == ["Main memory", "A step"]


def test_short_times_have_the_digits_that_matter():
    assert [seconds_text(value) for value in (0.123, 3.74, 41.2)] == ["0.12 s", "3.7 s", "41 s"]


def test_every_reason_for_missing_figures_has_words():
    ready = answer()
    assert waiting_words(ready, is_checking=False, is_ready=True) == ""
    texts = {
        waiting_words(None, is_checking=True, is_ready=True),
        waiting_words(None, is_checking=False, is_ready=False),
        waiting_words(None, is_checking=False, is_ready=True),
        waiting_words(answer(problems=[Problem("a", "b")]), is_checking=False, is_ready=True),
    }
    assert len(texts) == 4
    assert all(texts)


def test_figures_stay_and_are_marked_old_until_the_answer_comes(page, document):
    assert not page.costs.rows
    assert page.sets.isHidden()
    page.show_check(answer(), is_checking=False)
    assert not page.costs.is_old
    assert page.costs.rows[0] == ("Graphics memory", f"7.5{EN_DASH}8.5 GiB")
    assert not page.sets.isHidden()
    page.show_check(None, is_checking=True)
    document.set_values({"targets.layers": "attention"}, "x")
    assert page.costs.is_old
    assert page.costs.rows[0] == ("Graphics memory", f"7.5{EN_DASH}8.5 GiB")
    assert len(page.sets.rows) == 2
    assert "Being forecast" in page.costs.note.text()
    page.show_check(answer(vram=4), is_checking=False)
    assert not page.costs.is_old
    assert page.costs.rows[0] == ("Graphics memory", f"3.5{EN_DASH}4.5 GiB")
    assert page.costs.note.text() == ""


def test_a_choice_that_does_not_fit_is_refused_in_words_and_others_stay(page):
    problem = Problem("memory.vram_limit", "the run needs 14 GiB", "train fewer layers")
    page.show_check(answer(fits=False, problems=[problem]), is_checking=False)
    assert "The run needs 14 GiB. Train fewer layers." in page.costs.note.text()
    assert not page.costs.rows
    assert [row.name for row in page.sets.rows] == ["All layers", "Attention only"]
    labels = " ".join(label.text() for label in page.sets.findChildren(QLabel))
    assert labels.count("does not fit") == 2
