"""Layers: the table of shapes, the rules, the tree and its boxes, the page."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest

from aozora.config.targeting import LAYER_SETS, matches, select_targets
from aozora.errors import ConfigError
from aozora.model.building import parameter_shapes
from aozora.model.sizes import standard_config
from aozora.model.synthetic import ModelSizes, configs_of
from gui.document import Document
from gui.editors.layer_nodes import MOST_PATTERNS, kind_nodes, layer_tree, with_node
from gui.editors.layer_rules import LayerChoice, count
from gui.editors.unet_shapes import UnetSizes, unet_shapes
from gui.pages.layers import Page

SHAPES = unet_shapes()
NAMES = tuple(SHAPES)
ROOT = layer_tree(SHAPES)
NODES = [*ROOT.walk(), *kind_nodes(SHAPES)]
TINY = UnetSizes((32, 64, 128), (1, 1, 2), 64 + 128, 6 * 256 + 128)

# The offscreen platform cannot bound sizes, and says so.
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")

PATTERNS = (
    "attn1",
    "*.attn2.*",
    "ff",
    "*.bias",
    "down_blocks.1.*",
    "up_blocks.0.attentions.1.*",
    "conv",
    "*.resnets.0.*",
    "mid_block",
    "norm",
    "conv_in.weight",
    "nothing of the kind",
)
BLOCKS = ("down_blocks.1", "mid_block", "up_blocks.0.resnets.1", "conv_out", "no_block")

choices = st.builds(
    LayerChoice,
    st.sampled_from(sorted(LAYER_SETS)),
    st.lists(st.sampled_from(BLOCKS), max_size=2).map(tuple),
    st.lists(st.sampled_from(PATTERNS), max_size=3).map(tuple),
    st.lists(st.sampled_from(PATTERNS), max_size=3).map(tuple),
)


def test_names_shapes_and_order_are_those_of_the_trained_model():
    real = parameter_shapes("unet", standard_config("unet"))
    assert list(SHAPES.items()) == [(name, tuple(shape)) for name, shape in real.items()]
    assert len(SHAPES) == 1680
    assert count(SHAPES, SHAPES) == 2_567_463_684


def test_other_sizes_are_those_of_the_model_too():
    real = parameter_shapes("unet", configs_of(ModelSizes())["unet"])
    assert unet_shapes(TINY) == {name: tuple(shape) for name, shape in real.items()}


@settings(max_examples=60, deadline=None)
@given(choices)
def test_the_rules_are_those_of_the_engine(choice):
    try:
        engine = select_targets(
            SHAPES,
            layers=choice.layers,
            blocks=choice.blocks,
            include=choice.include,
            exclude=choice.exclude,
        )
    except ConfigError:
        assert choice.faults(NAMES)
    else:
        assert not choice.faults(NAMES)
        assert choice.trained(NAMES) == set(engine.names)
        assert count(SHAPES, engine.names) == engine.num_params


def test_the_tree_holds_every_parameter_once_a_level():
    assert ROOT.names == set(NAMES)
    for node in ROOT.walk():
        assert matches(NAMES, node.pattern) == node.names
        if node.children:
            assert sum(len(child.names) for child in node.children) == len(node.names)
            assert sum(child.num_params for child in node.children) == node.num_params


def test_siblings_have_different_labels_and_none_is_a_raw_name():
    for node in ROOT.walk():
        labels = [child.label for child in node.children]
        assert len(set(labels)) == len(labels)
        assert all(label[0].isupper() for label in labels)


@settings(max_examples=60, deadline=None)
@given(choices, st.sampled_from(range(len(NODES))), st.booleans())
def test_ticking_a_box_changes_its_layers_and_nothing_else(choice, number, on):
    node = NODES[number]
    before = choice.trained(NAMES)
    try:
        after = with_node(choice, node, ROOT, NAMES, on=on).trained(NAMES)
    except ValueError:
        # Only ticking a box against a pattern of the user's may be refused.
        assert on
        assert not node.names <= before
        assert any(matches(NAMES, p) & node.names for p in choice.exclude)
        return
    assert after - node.names == before - node.names
    assert (node.names <= after) if on else node.names.isdisjoint(after)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(range(1, len(NODES))))
def test_ticking_off_and_on_again_leaves_no_pattern_behind(number):
    off = with_node(LayerChoice(), NODES[number], ROOT, NAMES, on=False)
    assert off.exclude == (NODES[number].pattern,)
    assert with_node(off, NODES[number], ROOT, NAMES, on=True) == LayerChoice()


@settings(max_examples=30, deadline=None)
@given(choices, st.sampled_from(range(len(NODES))))
def test_patterns_that_have_nothing_to_do_with_the_box_stay(choice, number):
    node = NODES[number]
    off = with_node(choice, node, ROOT, NAMES, on=False)
    for before, after in ((choice.include, off.include), (choice.exclude, off.exclude)):
        assume(before)
        foreign = [p for p in before if not matches(NAMES, p) <= node.names]
        assert [p for p in after if p in foreign] == foreign


def test_a_pattern_is_narrowed_rather_than_spelled_out():
    node = next(n for n in NODES if n.key == "down_blocks.1")
    choice = with_node(LayerChoice(exclude=("*.attn2.*",)), node, ROOT, NAMES, on=True)
    assert choice.exclude == (
        "down_blocks.2.*.attn2.*",
        "mid_block.*.attn2.*",
        "up_blocks.0.*.attn2.*",
        "up_blocks.1.*.attn2.*",
    )


def test_a_pattern_that_would_fall_to_pieces_is_left_alone():
    node = next(n for n in NODES if n.pattern == "*.attn1.*")
    with pytest.raises(ValueError, match="leaves parts"):
        with_node(LayerChoice(exclude=("*.bias",)), node, ROOT, NAMES, on=True)
    assert MOST_PATTERNS < 100


@pytest.fixture
def document(qapp):
    return Document()


@pytest.fixture
def page(qtbot, document):
    page = Page(document)
    qtbot.addWidget(page)
    page.resize(1000, 900)
    page.show()
    return page


def box(page, pattern):
    for tree in (page.tree, page.kinds):
        try:
            return tree, tree.layers.find(pattern)
        except KeyError:
            continue
    raise KeyError(pattern)


def state(page, pattern):
    tree, index = box(page, pattern)
    return Qt.CheckState(tree.layers.data(index, Qt.ItemDataRole.CheckStateRole))


def click_box(page, pattern):
    tree, index = box(page, pattern)
    tree.scrollTo(index)
    place = tree.visualRect(index)
    QTest.mouseClick(
        tree.viewport(),
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
        QPoint(place.left() + 10, place.center().y()),
    )


def test_a_click_on_a_box_writes_a_pattern_and_counts_anew(page, document):
    assert "2.57 B of 2.57 B" in page.figure.text()
    click_box(page, "*.attn2.*")
    assert document.value("targets.exclude") == ["*.attn2.*"]
    assert state(page, "*.attn2.*") == Qt.CheckState.Unchecked
    assert state(page, "down_blocks.1.*") == Qt.CheckState.PartiallyChecked
    assert state(page, "down_blocks.0.*") == Qt.CheckState.Checked
    left = count(SHAPES, LayerChoice(exclude=("*.attn2.*",)).trained(NAMES))
    assert f"{left / 1e9:.2f} B" in page.figure.text()
    document.undo()
    assert document.value("targets.exclude") == []
    assert state(page, "*") == Qt.CheckState.Checked


def test_boxes_are_ticked_with_the_space_bar(page, document):
    tree, index = box(page, "mid_block.*")
    tree.setFocus()
    tree.setCurrentIndex(index)
    QTest.keyClick(tree, Qt.Key.Key_Space)
    assert document.value("targets.exclude") == ["mid_block.*"]
    QTest.keyClick(tree, Qt.Key.Key_Space)
    assert document.value("targets.exclude") == []


def test_typed_patterns_move_the_boxes(page, document):
    document.set_values({"targets.layers": "attention"}, "x")
    assert state(page, "*.attn1.*") == Qt.CheckState.Checked
    assert state(page, "*.ff.*") == Qt.CheckState.Unchecked
    document.set_values({"targets.include": ["*.ff.*"]}, "x")
    assert state(page, "*.ff.*") == Qt.CheckState.Checked
    document.set_values({"targets.blocks": ["mid_block"]}, "x")
    assert state(page, "down_blocks.1.*") == Qt.CheckState.PartiallyChecked
    row = page.patterns.row("targets.include")
    assert row is not None


def test_training_only_attention_takes_a_few_clicks(page, document):
    click_box(page, "*")
    assert "no layer" in page.notice.text().lower()
    click_box(page, "*.attn1.*")
    click_box(page, "*.attn2.*")
    assert page.choice() == LayerChoice("attention")
    assert document.undo_title == "train cross-attention"


def test_feed_forward_alone_is_said_in_few_patterns(page):
    click_box(page, "*")
    click_box(page, "*.ff.*")
    choice = page.choice()
    assert choice.trained(NAMES) == matches(NAMES, "*.ff.*")
    assert len(choice.include) + len(choice.exclude) <= 3


def test_what_would_stop_the_run_is_said(page, document):
    document.set_values({"targets.exclude": ["atn1"]}, "x")
    assert "'atn1' fits no layer" in page.notice.text()
    document.set_values({"targets.exclude": ["*"]}, "x")
    assert "no layer is left" in page.notice.text().lower()
    document.set_values({"targets.exclude": ["*.bias"]}, "x")
    click_box(page, "*.attn1.*")
    assert "leaves parts" in page.notice.text()
    assert document.value("targets.exclude") == ["*.bias"]


def test_faulty_values_do_not_break_the_page(page, document):
    document.set_values({"targets.layers": "nonsense", "targets.exclude": 5}, "x")
    assert not page.grab().isNull()


def test_the_share_is_painted_for_every_row(page, document):
    document.set_values({"targets.exclude": ["up_blocks"]}, "x")
    model = page.tree.layers
    for node in (model.node(model.find(p)) for p in ("*", "up_blocks.1.*", "conv_in.*")):
        assert node.num_params == sum(math.prod(SHAPES[name]) for name in node.names)
    assert not page.grab().isNull()
