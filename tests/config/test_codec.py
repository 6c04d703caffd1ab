from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aozora.config import codec
from aozora.config.choices.predictions import Flow
from aozora.config.choices.weightings import MinSnr, NoWeighting
from aozora.config.describe import iterate_settings, settings_markdown
from aozora.config.schema import TrainConfig
from aozora.errors import ConfigError


def problems_of(call, *arguments):
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    return {problem.path: problem for problem in caught.value.problems}


def test_the_default_configuration_round_trips():
    config = TrainConfig()
    assert codec.decode_config(json.loads(json.dumps(codec.encode_config(config)))) == config


def test_missing_keys_take_their_defaults():
    assert codec.decode_config({}) == TrainConfig()


def test_all_problems_are_listed_at_once_with_their_paths():
    found = problems_of(
        codec.decode_config,
        {
            "training": {"batch_size": 0, "seeed": 1, "clip_norm": "1"},
            "optimizer": {"kind": "raven_adamw", "weight_decy": 0.1},
            "bukets": {},
            "captions": {"tokens": 80},
        },
    )
    assert set(found) == {
        "training.batch_size",
        "training.seeed",
        "training.clip_norm",
        "optimizer.weight_decy",
        "bukets",
        "captions.tokens",
    }
    assert "weight_decay" in found["optimizer.weight_decy"].remedy
    assert "seed" in found["training.seeed"].remedy
    assert all(problem.remedy or problem.text for problem in found.values())


@pytest.mark.parametrize("value", [True, "5", 5.5, None, [5]])
def test_a_wrong_type_is_never_converted_to_a_whole_number(value):
    assert "training.steps" in problems_of(codec.decode_config, {"training": {"steps": value}})


def test_a_whole_number_serves_as_a_float():
    assert codec.decode_config({"training": {"clip_norm": 2}}).training.clip_norm == 2.0


def test_an_unknown_kind_is_named_with_a_guess():
    found = problems_of(codec.decode_config, {"loss": {"weighting": {"kind": "min_snrr"}}})
    assert "min_snr" in found["loss.weighting"].remedy


def test_naming_a_kind_alone_takes_its_defaults():
    config = codec.decode_config({"loss": {"weighting": "min_snr"}})
    assert config.loss.weighting == MinSnr()


def test_another_schema_version_is_refused():
    assert "schema" in problems_of(codec.decode_config, {"schema": 2})


def test_assignments_reach_nested_options():
    config = codec.apply_settings(
        TrainConfig(),
        [
            "loss.weighting=min_snr",
            "loss.weighting.gamma=3",
            "output.name=2024",
            "training.steps=7",
        ],
    )
    assert config.loss.weighting == MinSnr(gamma=3.0)
    assert config.output.name == "2024"
    assert config.training.steps == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.10", "1.10"),
        ("1e3", "1e3"),
        ("007", "007"),
        ("2024", "2024"),
        ("true", "true"),
        ("null", "null"),
        ("[1]", "[1]"),
        ("a = b", "a = b"),
        ("", ""),
        ('"1.10"', "1.10"),
        (r' "a\"b" ', 'a"b'),
        ('"half', '"half'),
    ],
)
def test_a_text_is_taken_as_it_stands_unless_it_is_quoted(text, expected):
    config = codec.apply_settings(
        TrainConfig(), [f"output.name={text}", f"output.folder={text}", f"cache.folder={text}"]
    )
    assert (config.output.name, config.output.folder, config.cache.folder) == (expected,) * 3


def test_assignments_to_what_is_no_text_are_json():
    config = codec.apply_settings(
        TrainConfig(),
        [
            'logging.wandb="online"',
            "captions.tokens=150",
            "training.clip_norm=2",
            "data.recursive=false",
            'targets.include=["*attn1*"]',
            'data.folders=[{"path": "2024"}]',
            'loss.weighting={"kind": "min_snr", "gamma": 3}',
            "objective.prediction=flow",
        ],
    )
    assert config.logging.wandb == "online"
    assert config.captions.tokens == 150
    assert config.training.clip_norm == 2.0
    assert not config.data.recursive
    assert config.targets.include == ("*attn1*",)
    assert config.data.folders[0].path == "2024"
    assert config.loss.weighting == MinSnr(gamma=3.0)
    assert config.objective.prediction == Flow()


def test_naming_another_kind_resets_the_options():
    config = codec.apply_settings(
        TrainConfig(), ["loss.weighting=min_snr", "loss.weighting.gamma=3"]
    )
    assert codec.apply_settings(config, ["loss.weighting=min_snr"]).loss.weighting == MinSnr()
    assert codec.apply_settings(config, ["loss.weighting=none"]).loss.weighting == NoWeighting()


@pytest.mark.parametrize(
    ("assignment", "path"),
    [
        ("training.stepz=1", "training.stepz"),
        ("trainin.steps=1", "trainin"),
        ("training.steps", "training.steps"),
        ("training.steps=many", "training.steps"),
        ("loss.weighting.gamma=3", "loss.weighting.gamma"),
        ("logging.wandb=true", "logging.wandb"),
        ('training.steps="5"', "training.steps"),
    ],
)
def test_bad_assignments_are_refused_with_their_path(assignment, path):
    assert path in problems_of(codec.apply_settings, TrainConfig(), [assignment])


@pytest.mark.parametrize(
    "text",
    [
        '{"a": NaN}',
        '{"a": Infinity}',
        '{"a": 1e999}',
        '{"a": 1, "a": 2}',
        "[" * 100_000,
        '{"a": ' + "9" * 5000 + "}",
        "{",
        "",
    ],
)
def test_json_that_python_would_let_through_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        codec.parse_json(text)


def test_a_config_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match=r"config\.json"):
        codec.load_config(path)
    with pytest.raises(ConfigError, match="no such file"):
        codec.load_config(tmp_path / "missing.json")


def test_a_byte_order_mark_is_tolerated(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b'\xef\xbb\xbf{"training": {"steps": 3}}')
    assert codec.load_config(path).training.steps == 3


def test_an_overlay_of_another_kind_drops_the_old_options():
    base = codec.encode_config(TrainConfig())
    merged = codec.overlay(base, {"objective": {"prediction": {"kind": "flow"}}})
    assert codec.decode_config(merged).objective.prediction == Flow()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(
    st.sampled_from([row.path for row in iterate_settings() if "[]" not in row.path]), json_values
)
def test_any_value_anywhere_decodes_or_is_refused_with_a_path(path, value):
    data = {}
    node = data
    *parents, last = path.split(".")
    for name in parents:
        node = node.setdefault(name, {})
    node[last] = value
    try:
        config = codec.decode_config(data)
    except ConfigError as error:
        config, problems = None, error.problems
    if config is None:
        assert problems
        assert all(problem.path for problem in problems)
    else:
        assert codec.decode_config(codec.encode_config(config)) == config


def test_every_setting_has_label_help_and_a_default_in_its_range():
    for row in iterate_settings():
        assert row.info.label, row.path
        assert row.info.help.endswith("."), row.path
        if isinstance(row.default, int | float) and not isinstance(row.default, bool):
            assert codec._in_range(row.default, row.info), row.path


def test_the_settings_reference_is_up_to_date(pytestconfig):
    path = pytestconfig.rootpath / "docs" / "settings.md"
    assert path.read_text(encoding="utf-8") == settings_markdown(), (
        "run: aozora settings-doc --output docs/settings.md"
    )
