from __future__ import annotations

import pytest

from aozora.config.targeting import LAYER_SETS, select_targets
from aozora.errors import ConfigError
from aozora.model.key_map import unet_file_key_to_name


@pytest.fixture(scope="module")
def shapes(published_shapes):
    names = {unet_file_key_to_name(key): shape for key, shape in published_shapes.items()}
    names.pop(None)
    return names


@pytest.mark.parametrize(
    ("layers", "num_tensors", "num_params"),
    [
        ("all", 1680, 2_567_463_684),
        ("attention", 700, 955_353_600),
        ("input_and_middle", 808, 1_243_367_040),
        ("no_resnet_convs", 1590, 2_257_257_924),
    ],
)
def test_named_sets_of_the_full_model(shapes, layers, num_tensors, num_params):
    selection = select_targets(shapes, layers=layers)
    assert (len(selection.names), selection.num_params) == (num_tensors, num_params)
    assert selection.total_params == 2_567_463_684
    assert sum(trained for trained, _ in selection.groups.values()) == num_params
    assert list(selection.names) == [name for name in shapes if name in set(selection.names)]


def test_block_sizes_are_the_published_ones(shapes):
    groups = select_targets(shapes).groups
    millions = {block: round(total / 1e6, 1) for block, (_, total) in groups.items()}
    assert millions["down_blocks.0"] == 5.4
    assert millions["down_blocks.1"] == 60.1
    assert millions["down_blocks.2"] == 757.4
    assert millions["mid_block"] == 413.1
    assert millions["up_blocks.0"] == 1206.6
    assert millions["up_blocks.1"] == 106.3
    assert millions["up_blocks.2"] == 11.2


def test_excluding_both_convolutions_of_resnets_leaves_out_their_297_million(shapes):
    selection = select_targets(shapes, exclude=("conv1", "conv2"))
    assert round((selection.total_params - selection.num_params) / 1e6, 1) == 296.8


def test_sets_hold_what_their_names_say(shapes):
    assert LAYER_SETS.keys() == {"all", "attention", "input_and_middle", "no_resnet_convs"}
    names = {layers: set(select_targets(shapes, layers=layers).names) for layers in LAYER_SETS}
    assert all(".attn1." in n or ".attn2." in n for n in names["attention"])
    assert not any(name.startswith("up_blocks") for name in names["input_and_middle"])
    assert {"conv_in.weight", "mid_block.resnets.0.conv1.bias"} <= names["input_and_middle"]
    left = names["all"] - names["no_resnet_convs"]
    assert all(".resnets." in name and ".conv" in name for name in left)
    assert "down_blocks.0.downsamplers.0.conv.weight" in names["no_resnet_convs"]


def test_blocks_narrow_include_adds_and_exclude_wins(shapes):
    selection = select_targets(
        shapes,
        layers="attention",
        blocks=("mid_block", "up_blocks.1"),
        include=("conv_in.*", "time_emb_proj"),
        exclude=("*.bias",),
    )
    names = selection.names
    assert "conv_in.weight" in names
    assert "conv_in.bias" not in names
    assert any("time_emb_proj" in name for name in names)
    rest = [n for n in names if "time_emb_proj" not in n and not n.startswith("conv_in")]
    assert all(n.startswith(("mid_block.attentions", "up_blocks.1.attentions")) for n in rest)


def test_a_pattern_without_wildcard_is_looked_for_inside_names(shapes):
    plain = select_targets(shapes, exclude=("attn2",)).names
    wild = select_targets(shapes, exclude=("*attn2*",)).names
    assert plain == wild
    with pytest.raises(ConfigError, match="fits no layer"):
        select_targets(shapes, exclude=("attn2*",))


def test_a_block_is_matched_whole(shapes):
    names = select_targets(shapes, blocks=("down_blocks.1",)).names
    assert all(name.startswith("down_blocks.1.") for name in names)
    with pytest.raises(ConfigError, match=r"no block 'down_blocks\.0\.resnet'"):
        select_targets(shapes, blocks=("down_blocks.0.resnet",))


def test_all_patterns_that_fit_nothing_are_listed_with_a_suggestion(shapes):
    with pytest.raises(ConfigError) as caught:
        select_targets(
            shapes, blocks=("mid_blok",), include=("attn1", "atn2"), exclude=("*.to_qq.*", "")
        )
    problems = {problem.path: problem for problem in caught.value.problems}
    assert problems.keys() == {
        "targets.blocks[0]",
        "targets.include[1]",
        "targets.exclude[0]",
        "targets.exclude[1]",
    }
    assert "'mid_block'" in problems["targets.blocks[0]"].remedy
    assert "'attn2'" in problems["targets.include[1]"].remedy
    assert "'*.to_q.*'" in problems["targets.exclude[0]"].remedy


def test_a_selection_of_nothing_is_refused(shapes):
    with pytest.raises(ConfigError, match="no layer is left"):
        select_targets(shapes, layers="attention", exclude=("attentions",))
