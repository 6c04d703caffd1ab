"""The parts of the shell that need no window."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys

import pytest

from aozora.config.describe import iterate_settings
from aozora.errors import Problem
from gui.engine.figures import RunFigures
from gui.engine.states import RunState, RunStatus
from gui.preferences import PreferenceKeeper, Preferences, load_preferences, parse_preferences
from gui.shell import run_words
from gui.shell.compare import as_text, differences
from gui.shell.drops import kind_of_drop
from gui.shell.estimate import (
    MEASURED_STEPS,
    Estimate,
    facts,
    headline,
    memory_parts,
    parse_estimate,
    source_words,
)
from gui.shell.page_list import entries, page_of, page_specs
from gui.shell.search import find
from gui.theme import THEMES
from gui.words import between, duration_text, memory_text, size_text

EN_DASH = chr(0x2013)

# Import weight


def test_the_window_is_made_without_torch_pyqtgraph_or_pillow():
    code = (
        "import sys, gui.app, gui.pages.start, gui.pages.model, gui.pages.data\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'pyqtgraph', 'PIL'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Search


def test_every_setting_and_page_can_be_found():
    found = entries()
    rows = {(row.path, row.kind) for row in iterate_settings() if "[]" not in row.path}
    assert {(entry.path, entry.kind) for entry in found if entry.path} == rows
    assert {entry.page for entry in found if not entry.path} == {s.key for s in page_specs()}


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("batch size", "training.batch_size"),
        ("weight decay", "optimizer.weight_decay"),
        ("learning rate", "schedule.learning_rate"),
        ("gamma", "loss.weighting.gamma"),
        ("base", "model.base"),
        ("min_side", "buckets.min_side"),
        ("seed", "training.seed"),
    ],
)
def test_the_first_hit_is_what_was_meant(words, path):
    assert find(words, entries())[0].path == path


def test_all_words_must_fit_and_letters_left_out_are_forgiven():
    assert find("batch elephant", entries()) == []
    assert any(entry.path == "training.accumulation_steps" for entry in find("accmltn", entries()))


def test_each_setting_stands_on_the_page_of_its_section():
    assert page_of("training.steps") == "schedule"
    assert page_of("training.seed") == "optimizer"
    assert page_of("data.folders[3].path") == "data"
    assert page_of("targets.layers") == "layers"
    assert page_of("a_new_section.some_setting") == "output"


# Estimates

_ANSWER = {
    "problems": [],
    "notes": ["n"],
    "summary": {
        "total_steps": 100,
        "epochs": 2.5,
        "pictures": 7,
        "held_out": 1,
        "trained_parameters": 5,
        "total_parameters": 10,
        "disk_bytes": 41e9,
        "disk_free": 120e9,
        "memory": {
            "vram_range": [9.8 * 2**30, 10.6 * 2**30],
            "ram_range": [20 * 2**30, 20 * 2**30],
            "step_seconds_range": [36.0, 54.0],
            "calibrated_by": "",
            "vram_parts": [["weights", 5], ["sums", 7], ["weights", 4]],
        },
    },
}


def test_the_ready_chip_names_vram_ram_time_and_disk():
    estimate = parse_estimate(_ANSWER)
    words = "Ready · 9.8-10.6 GiB VRAM · about 20.0 GiB RAM · 1 h 0 m - 1 h 30 m · 41.0 GB disk"
    assert headline(estimate).replace(EN_DASH, "-") == words
    assert dict(facts(estimate))["Trained parameters"] == "0.0 M (50%)"
    assert memory_parts(estimate, "vram") == [("weights", 9), ("sums", 7)]


def test_a_range_is_read_as_one_figure_where_it_is_one():
    def plain(*span):
        return between(duration_text, span).replace(EN_DASH, "-")

    assert plain(20.0, 50.0) == "20-50 s"
    assert plain(60 * 65.0, 60 * 125.0) == "1 h 5 m - 2 h 5 m"
    assert plain(20.0, 20.1) == "about 20 s"
    assert plain(math.nan, 3.0) == ""


def test_the_window_takes_a_run_at_its_word_when_the_engine_does():
    from aozora.training.calibration import ENOUGH_STEPS

    assert MEASURED_STEPS == ENOUGH_STEPS


def test_what_the_ranges_rest_on_is_said():
    assert "30 steps" in source_words(parse_estimate(_ANSWER))
    memory = _ANSWER["summary"]["memory"] | {"calibrated_by": "cats-20260101-120000"}
    after = parse_estimate({**_ANSWER, "summary": {**_ANSWER["summary"], "memory": memory}})
    assert "cats-20260101-120000" in source_words(after)
    assert source_words(Estimate(summary={})) == ""


def test_forecasts_of_sets_of_layers_are_read_or_refused():
    plain = {"layers": "all", "trained_parameters": 5, "vram_bytes": 1, "ram_bytes": 2}
    whole = {**plain, "step_seconds": 3.0, "fits": True}
    (cost,) = parse_estimate({**_ANSWER, "layer_sets": [whole]}).layer_sets
    assert (cost.layers, cost.trained, cost.vram, cost.ram) == ("all", 5, 1.0, 2.0)
    with pytest.raises(ValueError, match="no forecast"):
        parse_estimate({**_ANSWER, "layer_sets": [plain]})


def test_an_answer_with_problems_or_without_figures_has_words_too():
    problem = {"path": "model.base", "text": "is no model", "remedy": "choose another"}
    estimate = parse_estimate({"problems": [problem], "notes": [], "summary": None})
    assert not estimate.is_ready
    assert headline(estimate) == "1 problem"
    assert facts(estimate) == []
    assert headline(parse_estimate({"problems": [], "summary": {}})) == "Ready"
    assert math.isnan(parse_estimate({"problems": []}).number("memory.vram_bytes"))
    for bad in (None, [], {}, {"problems": 3}):
        with pytest.raises(ValueError, match="no answer"):
            parse_estimate(bad)


# The run bar


@pytest.mark.parametrize("state", list(RunState))
def test_every_state_has_a_chip_with_text_and_icon(state):
    from gui.icons import icon_names

    chip = run_words.chip(RunStatus(state=state), None, False)
    assert chip.text
    assert chip.icon in icon_names()


def test_the_chip_says_what_matters_most():
    ready = Estimate(summary={})
    assert run_words.chip(RunStatus(problems=2), ready, False).text == "2 problems"
    assert run_words.chip(RunStatus(), None, True).text == "Checking…"
    overdue = RunStatus(state=RunState.STOPPING, is_stop_overdue=True)
    assert run_words.chip(overdue, ready, False).tone == "warn"
    silent = RunStatus(state=RunState.TRAINING, silent_seconds=90)
    assert run_words.chip(silent, ready, False).text == "No word for 1 m 30 s"
    failed = Estimate(summary={}, failure="x")
    assert run_words.chip(RunStatus(), failed, False).tone == "warn"


def test_figures_in_words():
    figures = RunFigures(
        step=3,
        total_steps=10,
        seconds_per_step=2.0,
        smooth_loss=0.09124,
        device_used=11 * 2**30,
        device_total=12 * 2**30,
    )
    training = RunStatus(state=RunState.TRAINING, step=3, total_steps=10)
    assert run_words.progress_words(training) == "step 3 / 10  ·  30%"
    assert run_words.pace_words(figures, training) == "2.00 s/it  ·  14 s left"
    assert run_words.loss_words(figures) == "loss 0.0912"
    assert run_words.memory_words(figures) == "VRAM 11.0 GiB of 12.0 GiB"
    nothing = RunFigures()
    assert run_words.pace_words(nothing, training) == run_words.loss_words(nothing) == ""
    preparing = RunStatus(state=RunState.PREPARING, phase="scan", done=2, total=300)
    assert run_words.progress_words(preparing) == "2 / 300"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.6, "1 m 0 s"), (3599, "59 m 59 s"), (90_061, "1 d 1 h")]
)
def test_durations(seconds, text):
    assert duration_text(seconds) == text


def test_sizes():
    assert size_text(41e9) == "41.0 GB"
    assert size_text(999) == "999 B"
    assert size_text(2.5e11) == "250 GB"
    assert memory_text(2**30) == "1.0 GiB"
    assert memory_text(2**20) == "1 MiB"


# Differences


def test_differences_name_settings_and_values():
    old = {"training": {"steps": 10}, "loss": {"weighting": "min_snr"}}
    new = {"training": {"steps": 20}, "loss": {"weighting": {"kind": "none"}}}
    rows = differences(old, new)
    assert ("training.steps", "Steps", "10 steps", "20 steps") in map(dataclasses.astuple, rows)
    gamma = next(row for row in rows if row.path == "loss.weighting.gamma")
    assert (gamma.old, gamma.new) == ("5", "")
    assert "training.steps: 10 steps -> 20 steps" in as_text(rows)
    assert differences(old, old) == []


# Drops


def test_what_is_dropped_is_known_by_its_name_and_content(tmp_path):
    names = {"a.json": "config", "b.pt": "state", "c.SAFETENSORS": "model", "d.txt": "unknown"}
    for name, kind in names.items():
        (tmp_path / name).write_text("")
        assert kind_of_drop(tmp_path / name) == kind
    assert kind_of_drop(tmp_path) == "pictures"
    (tmp_path / "model" / "unet").mkdir(parents=True)
    assert kind_of_drop(tmp_path / "model") == "model"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    assert kind_of_drop(tmp_path / "run") == "run"
    assert kind_of_drop(tmp_path / "nothing") == "unknown"


# Preferences


def test_preferences_come_back_and_garbage_does_not_hurt(tmp_path):
    file = tmp_path / "window.json"
    keeper = PreferenceKeeper(file)
    keeper.change(theme="light", recent=("a", "b"), zoom_percent=125)
    assert load_preferences(file) == keeper.now
    stored = json.loads(file.read_text(encoding="utf-8"))
    stored.update(theme="mauve", zoom_percent=9000, is_help_open="yes", recent=["a", 3], extra=1)
    read = parse_preferences(stored)
    assert (read.theme, read.zoom_percent, read.is_help_open) == ("system", 200, True)
    assert read.recent == ("a",)
    file.write_text("{", encoding="utf-8")
    assert load_preferences(file) == Preferences()


def test_recent_files_are_few_and_each_is_there_once(tmp_path):
    preferences = Preferences()
    for number in [*range(20), 15]:
        preferences = preferences.with_recent(tmp_path / f"{number}.json")
    assert len(preferences.recent) == 8
    assert preferences.recent[0].endswith("15.json")
    assert len(set(preferences.recent)) == 8
    assert preferences.without_recent(tmp_path / "15.json").recent[0].endswith("19.json")


# Colours


def _luminance(colour):
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one, other):
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("tokens", THEMES.values(), ids=THEMES)
def test_colours_can_be_read(tokens):
    for ground in (tokens.window, tokens.base, tokens.raised):
        for ink in (tokens.text, tokens.muted, tokens.accent, tokens.ok, tokens.warn, tokens.error):
            assert _contrast(ink, ground) >= 4.5, (ink, ground)
        assert _contrast(tokens.control, ground) >= 3.0
        assert _contrast(tokens.disabled, ground) >= 2.5
        assert all(_contrast(ink, tokens.base) >= 3.0 for ink in tokens.series)
    assert _contrast(tokens.on_accent, tokens.accent) >= 4.5
    # What cannot be used now is told from what can.
    assert _contrast(tokens.text, tokens.disabled) >= 3.0


def test_the_sheet_has_no_colours_of_its_own():
    import re

    from gui.theme_sheet import STYLE_SHEET

    assert re.findall(r"#[0-9a-fA-F]{3,8}\b|rgb", STYLE_SHEET) == []


def test_a_problem_is_read_as_sentences():
    from gui.forms.setting_row import sentence

    assert sentence(Problem("a", "is empty", "give a folder")) == "Is empty. Give a folder."
    assert sentence(Problem("a", "is empty")) == "Is empty."
