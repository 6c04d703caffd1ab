"""The ticket editor in its page: mouse, keyboard, table, ready-made distributions, undo."""

from __future__ import annotations

import json
import math

import pytest
from PySide6.QtCore import QEvent, QPointF, Qt
from PySide6.QtGui import QContextMenuEvent, QMouseEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QLineEdit, QMenu

from aozora.config.checks import ticket_pool
from aozora.config.choices.predictions import Flow, VPrediction
from gui.charts.timestep_bars import TimestepBars
from gui.document import Document
from gui.editors.checked_run import CheckedRun
from gui.editors.ticket_table import SHARE, TICKETS, WEIGHT
from gui.pages.timesteps import BINS, DISTRIBUTION, Page

Key = Qt.Key
NONE = Qt.KeyboardModifier.NoModifier
SHIFT, CTRL, ALT = (
    Qt.KeyboardModifier.ShiftModifier,
    Qt.KeyboardModifier.ControlModifier,
    Qt.KeyboardModifier.AltModifier,
)
FLAT = [1.0] * 20

# The offscreen platform cannot raise windows, grab keys or bound sizes, and says so.
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")


@pytest.fixture
def document(qapp):
    return Document()


@pytest.fixture
def page(qtbot, document):
    page = Page(document)
    qtbot.addWidget(page)
    page.resize(1000, 800)
    page.show()
    return page


@pytest.fixture
def chart(page):
    page.editor.chart.setFocus()
    return page.editor.chart


def bars(document):
    distribution = document.value(DISTRIBUTION)
    assert distribution["kind"] == "custom"
    return distribution["weights"]


def place(chart, bar, weight):
    return chart.bar_position(bar, weight).toPoint()


def sweep(chart, *places, keys=NONE, release=True):
    first, *rest = [place(chart, *entry) for entry in places]
    QTest.mousePress(chart, Qt.MouseButton.LeftButton, keys, first)
    for point in rest:
        event = QMouseEvent(
            QEvent.Type.MouseMove,
            QPointF(point),
            QPointF(chart.mapToGlobal(point)),
            Qt.MouseButton.NoButton,
            Qt.MouseButton.LeftButton,
            keys,
        )
        QApplication.sendEvent(chart, event)
    if release:
        QTest.mouseRelease(chart, Qt.MouseButton.LeftButton, keys, [first, *rest][-1])


def test_painting_changes_only_the_bars_swept_and_is_one_step(chart, document):
    sweep(chart, (4, 2.0), (8, 2.0), (8, 3.0))
    weights = bars(document)
    assert weights[4:8] == pytest.approx([2.0] * 4, abs=0.03)
    assert weights[8] == pytest.approx(3.0, abs=0.03)
    assert weights[:4] + weights[9:] == [1.0] * 15
    assert document.undo_title == "paint bars"
    document.undo()
    assert document.value(DISTRIBUTION) == {"kind": "uniform"}
    assert list(chart.weights) == FLAT


def test_the_tickets_shown_are_those_the_run_draws(page, chart, document):
    sweep(chart, (4, 2.0), (12, 3.5))
    config = document.decoded()
    training = config.training
    total = training.steps * training.batch_size * training.accumulation_steps
    counts = ticket_pool(config).counts(total)
    assert chart.view.counts() == counts
    model = page.editor.table.bars
    shown = [int(model.index(row, TICKETS).data().replace(",", "")) for row in range(20)]
    assert shown == list(counts)
    assert sum(shown) == total


def test_escape_in_a_sweep_leaves_everything_as_it_was(chart, document):
    sweep(chart, (4, 2.0), (8, 2.0), release=False)
    assert list(chart.scene().view.weights) != FLAT
    QTest.keyClick(chart, Key.Key_Escape)
    QTest.mouseRelease(chart, Qt.MouseButton.LeftButton, NONE, place(chart, 8, 2.0))
    assert list(chart.scene().view.weights) == FLAT
    assert not document.undo_title


def test_a_click_paints_one_bar_once_it_is_no_double_click(chart, document, qtbot):
    QTest.mouseClick(chart, Qt.MouseButton.LeftButton, NONE, place(chart, 6, 2.5))
    assert list(chart.scene().view.weights)[6] == pytest.approx(2.5, abs=0.03)
    qtbot.waitUntil(lambda: document.undo_title == "paint bars")
    assert bars(document)[6] == pytest.approx(2.5, abs=0.03)


def test_a_click_counts_at_once_when_the_mouse_leaves_or_a_shortcut_comes(chart, document):
    QTest.mouseClick(chart, Qt.MouseButton.LeftButton, NONE, place(chart, 6, 2.5))
    QApplication.sendEvent(chart, QEvent(QEvent.Type.Leave))
    assert bars(document)[6] > 2.4
    QTest.mouseClick(chart, Qt.MouseButton.LeftButton, NONE, place(chart, 8, 2.5))
    QTest.keyClick(chart, Key.Key_S, CTRL)
    assert bars(document)[8] > 2.4


def test_a_double_click_edits_the_number_and_paints_nothing(chart, document):
    target = place(chart, 6, 2.5)
    QTest.mouseClick(chart, Qt.MouseButton.LeftButton, NONE, target)
    QTest.mouseDClick(chart, Qt.MouseButton.LeftButton, NONE, target)
    field = chart.findChild(QLineEdit)
    assert field.text() == "1"
    QTest.keyClicks(field, "1,75")
    QTest.keyClick(field, Key.Key_Return)
    assert bars(document)[6] == 1.75
    assert document.undo_title == "set bars"
    document.undo()
    assert not document.undo_title


def test_shift_draws_a_straight_line(chart, document):
    sweep(chart, (2, 1.0), (6, 3.8), (10, 3.0), keys=SHIFT)
    assert bars(document)[2:11] == pytest.approx([1 + k / 4 for k in range(9)], abs=0.04)


def test_alt_smooths_and_ctrl_scales(chart, document):
    sweep(chart, (5, 4.0), (5, 3.6))
    spike = bars(document)[5]
    sweep(chart, (3, 1.0), (7, 1.0), keys=ALT)
    assert bars(document)[5] < spike
    assert document.undo_title == "smooth bars"
    before = bars(document)
    sweep(chart, (10, 1.0), (10, 1.5), keys=CTRL)
    assert bars(document) == pytest.approx([w * 1.5 for w in before], rel=0.03)
    assert document.undo_title == "scale bars"


def test_the_axis_grows_on_release_only(chart, document):
    document.set_values({DISTRIBUTION: {"kind": "custom", "weights": [3.9, *FLAT[1:]]}}, "x")
    assert chart.axes().highest == 4.0
    sweep(chart, (10, 1.0), (10, 2.0), keys=CTRL, release=False)
    assert chart.axes().highest == 4.0
    QTest.mouseRelease(chart, Qt.MouseButton.LeftButton, CTRL, place(chart, 10, 2.0))
    assert chart.axes().highest == 8.0


def test_bars_can_be_set_with_keys_alone(chart, document):
    def press(key, keys=NONE):
        QTest.keyClick(chart, key, keys)

    press(Key.Key_Home)
    press(Key.Key_Right)
    assert chart.current == 1
    press(Key.Key_Up)
    assert bars(document)[1] == pytest.approx(1.05)
    press(Key.Key_Down, SHIFT)
    assert bars(document)[1] == pytest.approx(0.55)
    press(Key.Key_End)
    press(Key.Key_Delete)
    assert bars(document)[19] == 0.0
    press(Key.Key_3)
    field = chart.findChild(QLineEdit)
    assert field.text() == "3"
    QTest.keyClicks(field, ".25")
    QTest.keyClick(field, Key.Key_Return)
    assert bars(document)[19] == 3.25
    assert chart.findChild(QLineEdit) is None or not chart.findChild(QLineEdit).isVisible()
    press(Key.Key_L)
    press(Key.Key_Delete)
    assert bars(document)[19] == 3.25
    assert chart.locked == {19}
    press(Key.Key_L)
    before = bars(document)
    press(Key.Key_A, CTRL)
    press(Key.Key_Up)
    assert bars(document) == pytest.approx([w * 1.05 for w in before], abs=1e-3)
    press(Key.Key_Escape)
    assert chart.chosen == frozenset()
    press(Key.Key_Left, SHIFT)
    assert len(chart.chosen) == 2


def test_a_bad_number_stays_in_the_field_and_escape_drops_it(page, chart, document):
    QTest.keyClick(chart, Key.Key_Home)
    QTest.keyClick(chart, Key.Key_9)
    field = chart.findChild(QLineEdit)
    QTest.keyClick(field, Key.Key_Return)
    assert field.isVisible()
    assert "0 to 8" in page.editor.notice.text()
    QTest.keyClick(field, Key.Key_Escape)
    assert not document.undo_title


def test_nudges_of_a_second_are_one_undo_step(chart, document):
    for _ in range(4):
        QTest.keyClick(chart, Key.Key_Up)
    document.undo()
    assert document.value(DISTRIBUTION) == {"kind": "uniform"}


def test_locked_bars_are_passed_over(chart, document):
    chart.lock([5], on=True)
    sweep(chart, (4, 2.0), (6, 2.0))
    assert bars(document)[5] == 1.0
    assert bars(document)[6] > 1.9


def test_the_menu_does_what_it_says(chart, document):
    sweep(chart, (2, 3.0), (4, 3.0))
    chart.choose([3])

    def choose(title):
        menu = chart.menu().build()
        next(a for a in menu.actions() if a.text() == title).trigger()

    choose("Set 0")
    assert bars(document)[3] == 0.0
    choose("Set 1\u00d7")
    assert bars(document)[3] == 1.0
    choose("Mirror")
    assert bars(document)[17] > 2.9
    before = bars(document)
    choose("Smooth")
    assert bars(document) != before
    choose("Normalise")
    assert math.fsum(bars(document)) == pytest.approx(20.0)
    choose("Lock bar")
    assert chart.locked == {3}
    choose("Lock bar")
    assert chart.locked == frozenset()
    choose("Reset to uniform")
    assert bars(document) == FLAT
    choose("Set value…")
    assert chart.findChild(QLineEdit).isVisible()


def test_a_right_click_opens_the_menu_of_the_bar_under_it(chart):
    point = place(chart, 7, 0.5)
    event = QContextMenuEvent(QContextMenuEvent.Reason.Mouse, point, chart.mapToGlobal(point), NONE)
    QApplication.sendEvent(chart, event)
    assert chart.chosen == {7}
    next(w for w in chart.findChildren(QMenu) if w.isVisible()).close()


def test_the_table_sets_all_chosen_rows(page, document):
    table = page.editor.table
    table.selectRow(2)
    table.choose((2, 3, 4))
    assert table.bars.setData(table.bars.index(3, WEIGHT), "2.5x")
    assert bars(document)[1:6] == [1.0, 2.5, 2.5, 2.5, 1.0]
    assert table.bars.index(3, SHARE).data() == f"{2.5 / 24.5 * 100:.2f} %"
    assert not table.bars.setData(table.bars.index(3, WEIGHT), "-1")
    assert "0 to 8" in page.editor.notice.text()
    assert table.bars.setData(table.bars.index(9, WEIGHT), "0")
    assert bars(document)[9] == 0.0
    assert bars(document)[3] == 2.5


def test_table_and_chart_choose_the_same_bars(page, chart):
    chart.choose([4, 6])
    assert page.editor.table.chosen_rows() == (4, 6)
    page.editor.table.selectRow(11)
    assert chart.chosen == {11}


def test_other_numbers_of_bars_keep_what_was_painted(page, chart, document):
    sweep(chart, (0, 3.0), (9, 3.0))
    painted = bars(document)
    page.editor.bins.button("10").click()
    assert document.value("timesteps.bins") == 10
    assert bars(document) == pytest.approx([sum(painted[k : k + 2]) / 2 for k in range(0, 20, 2)])
    assert chart.view.bins == 10
    document.undo()
    assert bars(document) == painted
    assert chart.view.bins == 20


def test_a_formula_stays_a_formula_with_other_numbers_of_bars(page, document):
    document.set_values({DISTRIBUTION: {"kind": "logit_normal"}}, "x")
    page.editor.bins.button("50").click()
    assert document.value(DISTRIBUTION)["kind"] == "logit_normal"
    assert page.editor.chart.view.bins == 50


@pytest.mark.parametrize("path", ["training.steps", "training.batch_size", "timesteps.bins"])
def test_steps_and_batch_never_change_the_weights(chart, document, path):
    sweep(chart, (4, 2.0), (8, 2.0))
    painted = bars(document)
    document.set_values({path: 25}, "x")
    assert bars(document) == painted


def test_a_ready_made_distribution_is_previewed_and_one_step(page, document, chart):
    strip = page.editor.strip
    strip.choose("logit_normal")
    strip.field("mean").setText("1")
    strip.field("mean").editingFinished.emit()
    assert chart.scene().ghost[-4] > 1.0
    assert not document.undo_title
    strip.apply_button.click()
    expected = {"kind": "logit_normal", "mean": 1.0, "sd": 1.0}
    assert document.value(DISTRIBUTION) == expected
    assert chart.scene().ghost is None
    assert "Logit-normal" in page.editor.summary.text()
    sweep(chart, (4, 2.0), (5, 2.0))
    assert "Custom" in page.editor.summary.text()
    document.undo()
    assert document.value(DISTRIBUTION) == expected


def test_numbers_out_of_range_cannot_be_applied(page):
    strip = page.editor.strip
    strip.choose("beta")
    strip.field("a").setText("99")
    strip.field("a").editingFinished.emit()
    assert "0.1" in strip.fault.text()
    assert not strip.apply_button.isEnabled()
    strip.choose("high_noise")
    strip.field("start").setText("10.5")
    strip.field("start").editingFinished.emit()
    assert "whole number" in strip.fault.text()


def test_bars_can_be_taken_from_the_losses_of_a_run(page, document, tmp_path):
    event = {"event": "StepCompleted", "tickets": [10, 980], "sample_losses": [0.3, 0.1]}
    (tmp_path / "events.jsonl").write_text(json.dumps(event) + "\n", encoding="utf-8")
    page.editor.take_run(str(tmp_path))
    assert bars(document)[0] == 1.5
    assert bars(document)[19] == 0.5
    page.editor.take_run(str(tmp_path / "none"))
    assert "no event log" in page.editor.notice.text()


def test_faults_of_the_pool_are_said(page, chart, document):
    document.set_values({DISTRIBUTION: {"kind": "custom", "weights": [0.0] * 20}}, "x")
    assert "No bar" in page.editor.notice.text()
    chart.grab()
    document.set_values({DISTRIBUTION: {"kind": "custom", "weights": [1.0] * 19 + [0.0]}}, "x")
    assert any("never trained" in t.lower() for t in page.editor.remarks.texts())
    document.set_values({"objective.zero_terminal_snr": "on"}, "x")
    assert any("timestep 999" in t.lower() for t in page.editor.remarks.texts())


def test_what_a_check_found_out_is_shown_until_the_base_model_is_another(page, document):
    document.set_values({"timesteps.maximum": 998}, "x")
    assert not any("timestep 999" in t.lower() for t in page.editor.remarks.texts())
    page.set_checked(CheckedRun(VPrediction(), True))
    assert any("timestep 999" in t.lower() for t in page.editor.remarks.texts())
    page.set_checked(CheckedRun(Flow()))
    assert page.editor.view.shifted() is not None
    assert "flow shift" in page.editor.notice.text()
    document.set_values({"model.base": "other.safetensors"}, "x")
    assert page.editor.view.shifted() is None


def test_bars_like_min_snr_beside_its_weighting_are_said_to_weigh_twice(page, document):
    page.editor.strip.choose("min_snr")
    assert "twice" not in page.editor.notice.text()
    document.set_values({"loss.weighting": {"kind": "min_snr"}}, "x")
    page.editor.strip.end_preview()
    page.editor.strip.choose("min_snr")
    assert "twice" in page.editor.notice.text()
    assert page.editor.strip.apply_button.isEnabled()
    page.editor.strip.end_preview()
    assert "twice" not in page.editor.notice.text()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (DISTRIBUTION, "bumpy"),
        (f"{DISTRIBUTION}.weights", [1, 2, 3]),
        ("timesteps.bins", 7),
        ("timesteps.minimum", "low"),
        ("training.seed", "lucky"),
        ("buckets.resolution", None),
        ("training.steps", "many"),
    ],
)
def test_faulty_values_of_a_file_leave_the_bars_as_they_were(document, chart, path, value):
    if path.endswith("weights"):
        document.set_values({f"{DISTRIBUTION}.kind": "custom"}, "x")
    document.set_values({path: value}, "x")
    assert document.problems()
    assert list(chart.weights) == FLAT
    assert not chart.grab().isNull()


def test_without_a_known_length_there_are_shares_but_no_tickets(page, document):
    document.set_values({"training.epochs": 3.0}, "x")
    assert page.editor.table.bars.index(0, TICKETS).data() == "\u2013"
    assert not any("ticket" in text for text in page.editor.remarks.texts())
    page.set_batches_per_epoch(100)
    assert page.editor.table.bars.index(0, TICKETS).data() == "15"
    page.set_samples(290)
    assert sum(page.editor.chart.view.counts()) == 290


def test_what_a_run_has_drawn_is_shown_in_the_bars(page, chart):
    counts = chart.view.counts()
    half = tuple(c // 2 for c in counts)
    page.show_progress(TimestepBars(counts, half, (0.1,) * 19 + (math.nan,)))
    assert (chart.scene().planned, chart.scene().drawn) == (counts, half)
    assert not chart.grab().isNull()
    assert "drawn so far, of the whole run" in page.editor.notice.text()


def test_a_run_of_another_pool_is_measured_by_its_own_tickets_and_said_to_be(page, chart, document):
    planned = (800,) * 10 + (200,) * 10
    page.show_progress(TimestepBars(planned, (80,) * 10 + (20,) * 10, (0.1,) * 20))
    assert chart.scene().planned == planned
    assert "draws from another pool than these bars" in page.editor.notice.text()
    document.set_values({BINS: 10}, "x")
    assert chart.scene().drawn == chart.scene().losses == ()
    assert "The run has 20 bars" in page.editor.notice.text()
    document.set_values({BINS: 20}, "x")
    assert sum(chart.scene().drawn) == 1000
    page.show_progress(TimestepBars())
    assert "run" not in page.editor.notice.text()


def test_the_chart_speaks(chart):
    assert chart.accessibleName() == "Timestep tickets"
    QTest.keyClick(chart, Key.Key_Home)
    assert chart.accessibleDescription() == "0\u201349: 1.00\u00d7, 400 tickets, 5.0%"
    QTest.keyClick(chart, Key.Key_L)
    assert chart.accessibleDescription().endswith("locked")


@pytest.mark.parametrize("width", [200, 299, 320, 1600])
@pytest.mark.parametrize("bins", [10, 100])
def test_odd_sizes_can_be_shown(document, chart, width, bins):
    document.set_values(
        {DISTRIBUTION: {"kind": "custom", "weights": [100.0] + [0.0] * (bins - 1)}}, "x"
    )
    document.set_values({"timesteps.bins": bins, "timesteps.minimum": 100}, "x")
    chart.resize(width, 240)
    assert not chart.grab().isNull()
