from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aozora.config.codec import decode_config, encode
from aozora.config.describe import iterate_settings
from aozora.config.presets import shipped_presets
from aozora.errors import ConfigError
from gui.document import Document, Origin
from gui.history import History
from gui.settings_tree import changed_paths, choices, effective, setting_paths, with_value, without


@pytest.fixture
def document(qapp):
    return Document()


def _heard(document):
    heard = []
    document.changed.connect(heard.append)
    return heard


# Values


def test_unset_values_are_the_defaults_for_every_setting(document):
    for row in iterate_settings():
        if row.kind or "[]" in row.path:
            continue
        assert document.value(row.path) == row.default, row.path
        assert document.is_default(row.path)


def test_effective_values_are_what_the_engine_decodes():
    for preset in shipped_presets().values():
        settings = {key: value for key, value in preset.settings.items() if key != "schema"}
        assert effective(settings) == encode(decode_config(settings)), preset.name


def test_an_option_of_a_choice_is_read_and_set_by_its_own_path(document):
    assert document.value("loss.weighting") == {"kind": "none"}
    with pytest.raises(KeyError):
        document.value("loss.weighting.gamma")
    document.set_values({"loss.weighting": "min_snr"}, "weighting")
    assert document.value("loss.weighting.gamma") == 5.0
    document.set_values({"loss.weighting.gamma": 3.0}, "gamma")
    assert document.config()["loss"]["weighting"] == {"kind": "min_snr", "gamma": 3.0}
    assert document.default("loss.weighting.gamma") == 5.0
    document.set_values({"loss.weighting.kind": "none"}, "weighting")
    assert document.config()["loss"] == {"weighting": {"kind": "none"}}


def test_an_option_of_the_default_kind_can_be_set_at_once(document):
    document.set_values({"optimizer.weight_decay": 0.5}, "decay")
    assert document.decoded().optimizer.weight_decay == 0.5


def test_a_value_given_out_is_not_the_document_s_own(document):
    folders = [{"path": "a"}]
    document.set_values({"data.folders": folders}, "folders")
    folders[0]["path"] = "b"
    document.value("data.folders")[0]["path"] = "c"
    assert [folder["path"] for folder in document.value("data.folders")] == ["a"]


def test_a_faulty_file_opens_with_problems_and_keeps_what_it_held(document, tmp_path):
    file = tmp_path / "odd.json"
    content = {"schema": 1, "training": {"stepz": 3, "steps": "many"}, "loss": 7}
    file.write_text(json.dumps(content), encoding="utf-8")
    document.load(file)
    assert {problem.path for problem in document.problems()} == {
        "training.stepz",
        "training.steps",
        "loss",
    }
    assert document.decoded() is None
    document.set_values({"training.seed": 1}, "seed")
    assert document.config()["training"] == {"stepz": 3, "steps": "many", "seed": 1}
    document.reset(["training.stepz", "training.steps", "loss"], "mend")
    assert document.decoded().training.seed == 1


@pytest.mark.parametrize("path", sorted(choices()))
@pytest.mark.parametrize("kind", [["raven"], {"kind": "raven"}, None, 5, "nonsense"], ids=repr)
def test_a_kind_that_is_none_is_a_problem_and_the_default_is_shown(document, tmp_path, path, kind):
    settings = with_value({}, path, {"kind": kind})
    file = tmp_path / "bad.json"
    file.write_text(json.dumps(settings), encoding="utf-8")
    document.load(file)
    assert any(problem.path == path for problem in document.problems())
    assert document.overlay() == settings, "what the file held is kept"
    assert document.value(path) == choices()[path].options[choices()[path].default]
    document.set_values({f"{path}.kind": choices()[path].default}, "choose")
    assert document.problems() == Document().problems()


@pytest.mark.parametrize("name", ["changed_paths", "effective", "check_config"])
def test_what_cannot_be_shown_does_not_become_the_document(document, tmp_path, monkeypatch, name):
    def fail(*values):
        raise ZeroDivisionError

    file = tmp_path / "bad.json"
    file.write_text('{"training": {"steps": 7}}', encoding="utf-8")
    document.set_values({"training.steps": 5}, "steps")
    before, heard = document.working_copy(), _heard(document)
    monkeypatch.setattr(f"gui.document.{name}", fail)
    with pytest.raises(ZeroDivisionError):
        document.load(file)
    monkeypatch.undo()
    assert document.working_copy() == before
    assert document.value("training.steps") == 5
    assert not heard
    document.undo()
    assert document.value("training.steps") == document.default("training.steps")


def test_problems_are_the_engine_s_and_are_announced(document, qtbot):
    assert [problem.path for problem in document.problems()] == ["model.base", "data.folders"]
    with qtbot.waitSignal(document.problems_changed):
        document.set_values({"model.base": "base.safetensors"}, "model")
    assert [problem.path for problem in document.problems()] == ["data.folders"]


# Changes


def test_a_change_names_the_paths_that_differ(document):
    heard = _heard(document)
    document.set_values({"training.steps": 5, "training.seed": 42}, "steps")
    document.set_values({"loss.weighting": {"kind": "min_snr"}}, "weighting")
    document.set_values({"loss.weighting.gamma": 2.0}, "gamma")
    assert heard == [
        frozenset({"training.steps"}),
        frozenset(f"loss.weighting{end}" for end in ("", ".kind", ".gamma", ".floor")),
        frozenset({"loss.weighting", "loss.weighting.gamma"}),
    ]


def test_setting_what_is_set_already_is_no_step(document):
    document.set_values({"training.steps": 5}, "steps")
    heard = _heard(document)
    document.set_values({"training.steps": 5}, "steps")
    assert heard == []
    document.undo()
    assert document.undo_title == ""


def test_undo_and_redo_go_over_the_whole_document(document):
    document.set_values({"training.steps": 5, "model.base": "a"}, "both")
    document.set_values({"training.steps": 6}, "steps")
    assert document.undo_title == "steps"
    document.undo()
    document.undo()
    assert (document.value("training.steps"), document.value("model.base")) == (2000, "")
    assert (document.undo_title, document.redo_title) == ("", "both")
    document.redo()
    assert (document.value("training.steps"), document.value("model.base")) == (5, "a")


def test_a_gesture_is_one_step_and_can_be_cancelled(document):
    for start in (10, 20):
        document.begin_gesture("drag")
        for steps in (start, start + 1, start + 2):
            document.set_values({"training.steps": steps}, "drag")
        document.end_gesture()
    document.undo()
    assert document.value("training.steps") == 12
    document.undo()
    assert document.value("training.steps") == 2000
    document.begin_gesture("drag")
    document.set_values({"training.steps": 1}, "drag")
    document.cancel_gesture()
    assert document.value("training.steps") == 2000
    assert document.undo_title == ""


def test_nudges_merge_only_when_asked(document):
    for steps in (1, 2, 3):
        document.set_values({"training.steps": steps}, "nudge", may_merge=True)
    document.undo()
    assert document.value("training.steps") == 2000
    for steps in (1, 2):
        document.set_values({"training.steps": steps}, "typed")
    document.undo()
    assert document.value("training.steps") == 1


# Presets, files, working copy


def test_a_preset_takes_the_place_of_another_and_keeps_the_user_s_paths(document):
    presets = shipped_presets()
    document.set_values({"model.base": "b", "data.folders": [{"path": "p"}]}, "inputs")
    document.apply_preset(presets["smoke-test"])
    assert document.value("output.name") == "smoke"
    document.set_values({"training.seed": 9}, "seed")
    assert document.is_changed("training.seed")
    assert not document.is_changed("training.steps")
    document.apply_preset(presets["sdxl-v-prediction"])
    assert document.value("buckets.resolution") == 1024, "nothing of the other preset stays"
    assert document.value("output.name") == "aozora"
    assert (document.value("model.base"), document.value("training.seed")) == ("b", 42)
    assert document.changed_from_reference() == {"model.base", "data.folders"}
    assert document.origin == Origin("preset", "sdxl-v-prediction")
    document.undo()
    assert document.value("training.seed") == 9
    assert document.origin == Origin("preset", "smoke-test")
    assert not document.is_changed("training.steps"), "what it is compared with came back too"


def test_a_saved_document_opens_as_it_was(document, tmp_path):
    file = tmp_path / "mine.json"
    document.set_values({"training.steps": 5, "loss.weighting": "min_snr"}, "some")
    assert document.is_dirty
    document.save(file)
    assert not document.is_dirty
    assert document.origin == Origin("file", "mine", file)
    document.set_values({"training.steps": 6}, "steps")
    assert document.is_dirty
    document.undo()
    assert not document.is_dirty
    again = Document()
    again.load(file)
    assert again.config() == document.config()
    assert not again.is_dirty


def test_a_preset_file_is_opened_without_becoming_the_target_of_saving(document, tmp_path):
    file = tmp_path / "own.json"
    about = {"title": "T", "description": "D"}
    file.write_text(json.dumps({"about": about, "training": {"steps": 3}}), encoding="utf-8")
    document.load(file)
    assert document.origin == Origin("preset", "own", None)
    assert document.config() == {"schema": 1, "training": {"steps": 3}}


@pytest.mark.parametrize("content", ["[]", "{", '{"schema": 99}', '{"schema": true}'])
def test_what_is_no_configuration_is_refused_and_changes_nothing(document, tmp_path, content):
    file = tmp_path / "bad.json"
    file.write_text(content, encoding="utf-8")
    document.set_values({"training.steps": 5}, "steps")
    with pytest.raises(ConfigError):
        document.load(file)
    assert document.value("training.steps") == 5
    assert document.undo_title == "steps"


def test_a_save_that_fails_leaves_file_and_document_as_they_were(document, tmp_path):
    document.set_values({"training.steps": 5}, "steps")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(OSError, match=r"."):
        document.save(tmp_path / "file" / "inner.json")
    assert document.is_dirty
    assert document.origin.path is None


def test_the_working_copy_brings_back_settings_origin_and_unsaved_mark(document, tmp_path):
    document.save(tmp_path / "mine.json")
    document.set_values({"training.steps": 5}, "steps")
    again = Document()
    again.restore(json.loads(json.dumps(document.working_copy())))
    assert again.config() == document.config()
    assert again.origin == document.origin
    assert again.is_dirty
    for broken in ({}, [], {**document.working_copy(), "origin": 3}):
        with pytest.raises(ValueError, match="working copy"):
            again.restore(broken)


# The pure parts

_PATHS = st.sampled_from(sorted(setting_paths() - set(choices())))


@given(st.dictionaries(_PATHS, st.integers(), max_size=6), _PATHS, st.integers())
@example({"checkpoints.every_epochs": 0}, "checkpoints.dtype", 0)
def test_setting_and_taking_away_a_value_touches_nothing_else(values, path, value):
    overlay = {}
    for where, item in values.items():
        overlay = with_value(overlay, where, item)
    changed = with_value(overlay, path, value)
    assert changed_paths(overlay, changed) <= {path}
    assert without(changed, path) == without(overlay, path)


@given(st.lists(st.sampled_from(["do", "undo", "redo", "save"]), max_size=40))
def test_history_returns_exactly_what_was_there(actions):
    history, past, future, number = History.starting_with(0), [], [], 0
    value, saved = 0, 0
    for action in actions:
        if action == "do":
            past, future, number = [*past, value], [], number + 1
            value = number
            history = history.done(value, "step", moment=0.0)
        elif action == "undo" and past:
            future, value, past = [value, *future], past[-1], past[:-1]
            history = history.undone()
        elif action == "redo" and future:
            past, value, future = [*past, value], future[0], future[1:]
            history = history.redone()
        elif action == "save":
            history, saved = history.marked_saved(), value
        assert history.value == value
        assert history.is_clean == (saved == value)
        assert bool(history.undo_title) == bool(past)
        assert bool(history.redo_title) == bool(future)


def test_a_history_has_an_end():
    history = History.starting_with(0)
    for number in range(1, 2000):
        history = history.done(number, "step", moment=0.0)
    assert len(history.steps) <= 500
    assert history.value == 1999
    assert not history.is_clean
