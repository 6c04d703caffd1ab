"""The learning-rate editor in its page: mouse, keyboard, table, ready-made curves, undo."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QContextMenuEvent, QGuiApplication, QMouseEvent, QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QComboBox, QMenu

from aozora.config.codec import decode_config
from aozora.config.lr_presets import cosine
from aozora.config.lr_schedule import DEFAULT_POINTS, LrPoint, LrSchedule
from gui import theme
from gui.document import Document
from gui.editors.folding_row import FoldingRow
from gui.editors.lr_table import RATE, SHAPE, SHARE, STEP
from gui.editors.lr_value_dialog import LrValueDialog
from gui.pages.schedule import CURVE, Page

Key = Qt.Key
NONE = Qt.KeyboardModifier.NoModifier
SHIFT, CTRL, ALT = (
    Qt.KeyboardModifier.ShiftModifier,
    Qt.KeyboardModifier.ControlModifier,
    Qt.KeyboardModifier.AltModifier,
)

# The offscreen platform cannot raise windows, grab keys or bound sizes, and says so.
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")


@pytest.fixture
def document(qapp):
    return Document()


@pytest.fixture
def page(qtbot, document):
    page = Page(document)
    qtbot.addWidget(page)
    page.resize(1000, 760)
    page.show()
    return page


@pytest.fixture
def chart(page):
    page.editor.chart.setFocus()
    return page.editor.chart


def curve(document):
    return LrSchedule.from_json(document.value(CURVE))


def at(chart, index):
    return chart.point_position(index).toPoint()


def drag(chart, start, stop, keys=NONE, *, release=True):
    QTest.mousePress(chart, Qt.MouseButton.LeftButton, keys, start)
    for part in (0.2, 0.6, 1.0):
        move(chart, start + (stop - start) * part, keys)
    if release:
        QTest.mouseRelease(chart, Qt.MouseButton.LeftButton, keys, stop)


def move(chart, place, keys=NONE):
    """Move the mouse with the button held; QTest.mouseMove has no modifiers."""
    event = QMouseEvent(
        QEvent.Type.MouseMove,
        QPointF(place),
        QPointF(chart.mapToGlobal(place)),
        Qt.MouseButton.NoButton,
        Qt.MouseButton.LeftButton,
        keys,
    )
    QApplication.sendEvent(chart, event)


def test_dragging_a_point_is_one_undo_step(chart, document):
    drag(chart, at(chart, 1), at(chart, 1) + QPoint(80, -30))
    point = curve(document).points[1]
    assert point.x > 0.1
    assert point.lr > 1.5e-6
    assert document.undo_title == "move point"
    document.undo()
    assert curve(document).points == DEFAULT_POINTS
    assert chart.schedule.points == DEFAULT_POINTS
    assert not document.undo_title


def test_the_curve_drawn_is_the_one_the_engine_reads(chart, document):
    drag(chart, at(chart, 1), at(chart, 1) + QPoint(83, -37))
    drag(chart, at(chart, 3), at(chart, 3) + QPoint(0, 400), ALT)
    engine = decode_config(document.config()).schedule.learning_rate
    assert engine == chart.schedule
    assert engine.sample(777) == chart.schedule.sample(777)


def test_escape_in_a_drag_leaves_everything_as_it_was(chart, document):
    drag(chart, at(chart, 1), at(chart, 1) + QPoint(80, -30), release=False)
    assert chart.scene().schedule != curve(document)
    QTest.keyClick(chart, Key.Key_Escape)
    QTest.mouseRelease(chart, Qt.MouseButton.LeftButton, NONE, at(chart, 1) + QPoint(80, -30))
    assert chart.scene().schedule.points == DEFAULT_POINTS
    assert not document.undo_title


def test_the_axis_stays_in_a_drag_and_fits_on_release(chart):
    before = chart.axes().decades
    start = at(chart, 1)
    drag(chart, start, QPoint(start.x(), round(chart.axes().top)), release=False)
    assert chart.axes().decades == before
    QTest.mouseRelease(chart, Qt.MouseButton.LeftButton, NONE, start)
    assert chart.axes().decades.high > before.high


def test_the_first_point_keeps_its_place(chart, document):
    drag(chart, at(chart, 0), at(chart, 0) + QPoint(200, 20))
    assert curve(document).points[0].x == 0.0
    assert curve(document).points[0].lr != 1e-7


def test_clicking_the_line_adds_a_point_without_changing_the_curve(chart, document):
    place = QPoint(round(chart.axes().to_px_x(0.5)), at(chart, 1).y())
    QTest.mouseClick(chart, Qt.MouseButton.LeftButton, NONE, place)
    changed = curve(document)
    assert len(changed.points) == 5
    assert chart.chosen == (2,)
    assert changed.sample(500) == pytest.approx(LrSchedule().sample(500))


def test_double_clicking_an_empty_place_adds_a_point_there(chart, document):
    axes = chart.axes()
    place = QPoint(round(axes.to_px_x(0.5)), round(axes.to_px_y(3e-7)))
    QTest.mouseDClick(chart, Qt.MouseButton.LeftButton, NONE, place)
    point = curve(document).points[2]
    assert point.x == pytest.approx(0.5, abs=0.01)
    assert point.lr == pytest.approx(3e-7, rel=0.1)
    assert document.undo_title == "add point"


def test_shift_click_and_a_rubber_band_choose_several_that_move_together(chart, document):
    QTest.mouseClick(chart, Qt.MouseButton.LeftButton, NONE, at(chart, 1))
    QTest.mouseClick(chart, Qt.MouseButton.LeftButton, SHIFT, at(chart, 2))
    assert chart.chosen == (1, 2)
    QTest.mouseClick(chart, Qt.MouseButton.LeftButton, SHIFT, at(chart, 2))
    assert chart.chosen == (1,)
    axes = chart.axes()
    corner = QPoint(round(axes.left + 12), round(axes.top + 4))
    drag(chart, corner, QPoint(round(axes.right - 12), round(axes.bottom - 2)))
    assert chart.chosen == (1, 2)
    drag(chart, at(chart, 1), at(chart, 1) + QPoint(0, -40), SHIFT)
    points = curve(document).points
    assert points[1].lr == points[2].lr > 1e-6
    assert points[1].x == 0.05


def test_dragging_far_off_the_plot_removes_a_point(chart, document):
    drag(chart, at(chart, 1), QPoint(at(chart, 1).x(), -120))
    assert len(curve(document).points) == 3
    assert document.undo_title == "remove point"


def test_ctrl_drag_scales_the_whole_curve(chart, document):
    axes = chart.axes()
    start = QPoint(round(axes.to_px_x(0.5)), round(axes.to_px_y(3e-7)))
    drag(chart, start, start + QPoint(0, -30), CTRL)
    points = curve(document).points
    factor = points[1].lr / 1e-6
    assert factor > 1.2
    assert points[0].lr == pytest.approx(1e-7 * factor, rel=1e-3)
    assert document.undo_title == "scale curve"


def test_ctrl_wheel_zooms_and_a_double_click_on_the_axis_resets(chart):
    before = chart.axes().decades
    place = QPointF(400, 150)
    event = QWheelEvent(
        place,
        chart.mapToGlobal(place),
        QPoint(),
        QPoint(0, 240),
        Qt.MouseButton.NoButton,
        CTRL,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(chart, event)
    zoomed = chart.axes().decades
    assert zoomed.high - zoomed.low < before.high - before.low
    QTest.mouseDClick(chart, Qt.MouseButton.LeftButton, NONE, QPoint(8, 100))
    assert chart.axes().decades == before


def test_the_wheel_alone_is_left_to_the_page(chart):
    before = chart.axes().decades
    place = QPointF(400, 150)
    event = QWheelEvent(
        place,
        chart.mapToGlobal(place),
        QPoint(),
        QPoint(0, 240),
        Qt.MouseButton.NoButton,
        NONE,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    event.setAccepted(True)
    chart.wheelEvent(event)
    assert not event.isAccepted()
    assert chart.axes().decades == before


def test_a_curve_can_be_drawn_with_keys_alone(chart, document):
    press = lambda *keys: [QTest.keyClick(chart, *_pair(key)) for key in keys]  # noqa: E731
    press(Key.Key_Home)
    assert chart.chosen == (0,)
    press(Key.Key_BracketRight)
    assert chart.chosen == (1,)
    press((Key.Key_Tab, CTRL))
    assert chart.chosen == (2,)
    press(Key.Key_BracketLeft)
    press(Key.Key_Right)
    assert curve(document).points[1].x == pytest.approx(0.055)
    press((Key.Key_Right, SHIFT))
    assert curve(document).points[1].x == pytest.approx(0.105)
    press((Key.Key_Left, CTRL))
    assert curve(document).points[1].x == pytest.approx(0.105 - 1 / 1999)
    press(Key.Key_Up)
    assert curve(document).points[1].lr == pytest.approx(1.02e-6)
    press((Key.Key_Up, SHIFT))
    assert curve(document).points[1].lr == pytest.approx(1.275e-6, rel=1e-3)
    press((Key.Key_Down, CTRL))
    assert curve(document).points[1].lr == pytest.approx(1.275e-6 / 1.001, rel=1e-3)
    press(Key.Key_Insert)
    assert len(curve(document).points) == 5
    press(Key.Key_Delete)
    assert len(curve(document).points) == 4
    press(Key.Key_End, Key.Key_Delete)
    assert len(curve(document).points) == 4
    assert "stay" in chart.parent().parent().notice.text()
    press(Key.Key_Escape)
    assert chart.chosen == ()


def _pair(key):
    return key if isinstance(key, tuple) else (key, NONE)


def test_nudges_of_a_second_are_one_undo_step(chart, document):
    QTest.keyClick(chart, Key.Key_Home)
    for _ in range(5):
        QTest.keyClick(chart, Key.Key_Up)
    assert curve(document).points[0].lr > 1e-7
    document.undo()
    assert curve(document).points == DEFAULT_POINTS


def test_a_point_at_zero_comes_up_with_the_arrow(chart, document):
    document.set_values({CURVE: [[0, 0.0], [0.5, 1e-6], [1, 1e-7]]}, "x")
    QTest.keyClick(chart, Key.Key_Home)
    QTest.keyClick(chart, Key.Key_Up)
    assert curve(document).points[0].lr > 0.0


def test_enter_asks_for_exact_values(chart, document, qtbot):
    QTest.keyClick(chart, Key.Key_Home)
    QTest.keyClick(chart, Key.Key_BracketRight)
    QTest.keyClick(chart, Key.Key_Return)
    dialog = chart.findChild(LrValueDialog)
    assert dialog.place.text() == "101"
    dialog.rate.setText("nonsense")
    QTest.keyClick(dialog.rate, Key.Key_Return)
    assert "not a number" in dialog.fault.text()
    assert curve(document).points == DEFAULT_POINTS
    dialog.rate.setText("2,5e-6")
    dialog.place.setText("1990")
    dialog.accept()
    assert "neighbours" in dialog.fault.text()
    dialog.place.setText("501")
    dialog.accept()
    point = curve(document).points[1]
    assert (point.lr, round(point.x * 1999)) == (2.5e-6, 500)


def test_values_not_touched_in_the_dialog_keep_all_their_digits(chart, document):
    document.set_values({CURVE: [[0, 1.23456e-7], [0.333333, 1e-6], [1, 1e-7]]}, "x")
    chart.choose((1,))
    chart.ask_value()
    dialog = chart.findChild(LrValueDialog)
    dialog.shape_box.setCurrentIndex(1)
    dialog.accept()
    point = curve(document).points[1]
    assert (point.x, point.lr, point.shape) == (0.333333, 1e-6, "linear")


def test_copy_and_paste_carry_the_curve_as_text(chart, document):
    QTest.keyClick(chart, Key.Key_C, CTRL)
    text = QGuiApplication.clipboard().text()
    assert json.loads(text)["learning_rate"][0] == [0.0, 1e-7, "log"]
    QGuiApplication.clipboard().setText("[[0, 1e-6], [1, 5e-7]]")
    QTest.keyClick(chart, Key.Key_V, CTRL)
    assert curve(document).points == (LrPoint(0, 1e-6), LrPoint(1, 5e-7))
    QGuiApplication.clipboard().setText("no curve")
    QTest.keyClick(chart, Key.Key_V, CTRL)
    assert len(curve(document).points) == 2
    many = [[k / 1999, 1e-6 + k * 1e-9] for k in range(2000)]
    QGuiApplication.clipboard().setText(json.dumps(many))
    QTest.keyClick(chart, Key.Key_V, CTRL)
    assert len(curve(document).points) <= 64
    assert "2000 points" in chart.parent().parent().notice.text()


def test_the_menu_does_what_it_says(chart, document, page):
    chart.choose((1,))
    menu = chart._menu.build(1)
    titles = {action.text(): action for action in menu.actions() if action.text()}
    assert not titles["Add here"].isEnabled()
    shapes = next(a.menu() for a in menu.actions() if a.menu() is not None)
    assert isinstance(shapes, QMenu)
    next(a for a in shapes.actions() if a.text() == "Linear").trigger()
    assert curve(document).points[1].shape == "linear"
    titles["Delete"].trigger()
    assert len(curve(document).points) == 3
    titles["Reset to the default curve"].trigger()
    assert curve(document).points == DEFAULT_POINTS
    ends = {a.text(): a for a in chart._menu.build(0).actions() if a.text()}
    assert not ends["Delete"].isEnabled()


def test_a_right_click_opens_the_menu_of_the_point_under_it(chart, qtbot):
    place = at(chart, 2)
    event = QContextMenuEvent(QContextMenuEvent.Reason.Mouse, place, chart.mapToGlobal(place), NONE)
    QApplication.sendEvent(chart, event)
    assert chart.chosen == (2,)
    menu = next(w for w in chart.findChildren(QMenu) if w.isVisible())
    menu.close()


def test_the_table_shows_and_takes_every_number(page, document):
    table = page.editor.table
    model = table.points
    cell = lambda row, column: model.index(row, column).data()  # noqa: E731
    assert [cell(1, c) for c in (STEP, SHARE, RATE, SHAPE)] == ["101", "5.00 %", "1.00e-06", "Hold"]
    assert model.setData(model.index(1, RATE), "2e-6")
    assert curve(document).points[1].lr == 2e-6
    assert model.setData(model.index(1, STEP), "200")
    assert round(curve(document).points[1].x * 1999) == 199
    assert model.setData(model.index(1, SHARE), "20 %")
    assert curve(document).points[1].x == 0.2
    assert model.setData(model.index(1, SHAPE), "linear")
    assert curve(document).points[1].shape == "linear"
    assert not model.setData(model.index(1, RATE), "5")
    assert "0 to 1" in page.editor.notice.text()
    assert not model.setData(model.index(1, SHARE), "95")
    assert curve(document).points[1].x == 0.2
    editable = Qt.ItemFlag.ItemIsEditable
    assert not model.flags(model.index(0, SHARE)) & editable
    assert model.flags(model.index(0, RATE)) & editable


def test_typing_in_the_table_commits_on_enter_only(page, document, qtbot):
    table = page.editor.table
    index = table.points.index(1, RATE)
    table.setCurrentIndex(index)
    table.edit(index)
    field = table.focusWidget() or QApplication.focusWidget()
    field = table.viewport().findChild(type(field)) if field is table else field
    field.selectAll()
    QTest.keyClicks(field, "3e-6")
    assert curve(document).points[1].lr == 1e-6
    QTest.keyClick(field, Key.Key_Return)
    qtbot.waitUntil(lambda: curve(document).points[1].lr == 3e-6)


def test_a_shape_is_chosen_in_the_table_with_keys(page, document):
    table = page.editor.table
    index = table.points.index(1, SHAPE)
    table.setCurrentIndex(index)
    table.edit(index)
    box = table.viewport().findChild(QComboBox)
    assert box.currentData() == "hold"
    QTest.keyClick(box, Key.Key_Up)
    assert curve(document).points[1].shape == "cosine"


def test_table_and_chart_choose_the_same_points(page, chart):
    chart.choose((1, 2))
    assert page.editor.table.chosen_rows() == (1, 2)
    page.editor.table.selectRow(3)
    assert chart.chosen == (3,)
    assert not page.editor.remove_button.isEnabled()


def test_the_buttons_of_the_table_add_and_remove(page, document):
    page.editor.add_button.click()
    assert len(curve(document).points) == 5
    page.editor.remove_button.click()
    assert curve(document).points == DEFAULT_POINTS
    table = page.editor.table
    QTest.keyClick(table, Key.Key_Insert)
    assert len(curve(document).points) == 5
    table.selectRow(2)
    QTest.keyClick(table, Key.Key_Delete)
    assert curve(document).points == DEFAULT_POINTS


def test_rows_with_a_doubt_carry_its_text(page, document):
    document.set_values({CURVE: [[0, 1e-6], [0.5, 1e-3], [1, 1e-7]]}, "x")
    remark = page.editor.table.points.index(1, 5).data()
    assert "high" in remark
    assert any("high" in text for text in page.editor.remarks.texts())


def test_a_ready_made_curve_is_previewed_and_one_step(page, document):
    strip = page.editor.strip
    strip.choose("Cosine")
    strip.field("peak").setText("4e-6")
    strip.field("peak").editingFinished.emit()
    ghost = page.editor.chart.scene().ghost
    assert ghost == cosine(4e-6, 0.0, 0.05)
    assert not document.undo_title
    strip.apply_button.click()
    assert curve(document) == cosine(4e-6, 0.0, 0.05)
    assert page.editor.chart.scene().ghost is None
    assert not strip.isVisible()
    document.undo()
    assert curve(document).points == DEFAULT_POINTS


def test_bad_numbers_of_a_ready_made_curve_cannot_be_applied(page):
    strip = page.editor.strip
    strip.choose("Warm-up, stable, decay")
    strip.field("decay").setText("98")
    strip.field("decay").editingFinished.emit()
    assert "leave a part" in strip.fault.text()
    assert not strip.apply_button.isEnabled()
    strip.field("decay").setText("abc")
    strip.field("decay").editingFinished.emit()
    assert "not a number" in strip.fault.text()
    strip.cancel_button.click()
    assert not strip.isVisible()


def test_a_kept_curve_is_offered_and_comes_back(page, document):
    page.editor.keep("mine / yours")
    assert "letters" in page.editor.notice.text()
    page.editor.keep("mine")
    document.set_values({CURVE: [[0, 1e-6], [1, 1e-6]]}, "x")
    page.editor.strip.choose("kept:mine")
    page.editor.strip.apply_button.click()
    assert curve(document).points == DEFAULT_POINTS


def test_the_curve_of_another_configuration_can_be_taken(page, document, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"schedule": {"learning_rate": [[0, 2e-6], [1, 0]]}}))
    page.editor.take_file(str(path))
    assert curve(document).points == (LrPoint(0, 2e-6), LrPoint(1, 0.0))
    path.write_text("{}")
    page.editor.take_file(str(path))
    assert "no learning-rate curve" in page.editor.notice.text()


def test_another_number_of_steps_never_changes_the_curve(page, document, chart):
    chart.choose((1,))
    for steps in (2, 20, 250_000, 1, 2500):
        document.set_values({"training.steps": steps}, "steps")
        assert curve(document).points == DEFAULT_POINTS
        assert chart.chosen == (1,)
        chart.grab()


def test_another_curve_in_the_middle_of_a_drag_wins(chart, document):
    drag(chart, at(chart, 1), at(chart, 1) + QPoint(80, -30), release=False)
    document.set_values({CURVE: [[0, 1e-6], [1, 1e-7]]}, "x")
    QTest.mouseRelease(chart, Qt.MouseButton.LeftButton, NONE, at(chart, 1))
    assert len(curve(document).points) == 2


def test_another_theme_in_the_middle_of_a_drag_keeps_the_drag(chart, document, qapp):
    drag(chart, at(chart, 1), at(chart, 1) + QPoint(80, -30), release=False)
    for name in ("light", "contrast", "dark"):
        theme.apply(qapp, name)
        assert not chart.grab().isNull()
    assert chart.is_dragging
    QTest.mouseRelease(chart, Qt.MouseButton.LeftButton, NONE, at(chart, 1) + QPoint(80, -30))
    assert curve(document).points != DEFAULT_POINTS


def test_losing_the_mouse_is_a_release(chart, document):
    drag(chart, at(chart, 1), at(chart, 1) + QPoint(80, -30), release=False)
    QApplication.sendEvent(chart, QEvent(QEvent.Type.UngrabMouse))
    assert curve(document).points != DEFAULT_POINTS
    assert not chart.is_dragging


def test_the_trained_part_of_a_resumed_run_is_locked_and_jumps_are_named(page, document, chart):
    assert not page.rest.isVisibleTo(page)
    page.offer_rest((1000, 5e-6))
    assert page.rest.text().strip().startswith("Plan the rest, from step 1")
    assert not any("jumps" in text for text in page.editor.remarks.texts())
    page.rest.click()
    drag(chart, at(chart, 1), at(chart, 1) + QPoint(50, -50))
    assert curve(document).points == DEFAULT_POINTS
    assert "trained" in page.editor.notice.text()
    assert any("jumps" in text for text in page.editor.remarks.texts())
    page.offer_rest(None)
    assert not page.rest.isVisibleTo(page)
    assert not any("jumps" in text for text in page.editor.remarks.texts())


def test_what_a_run_applied_is_drawn_on_the_line(page, chart):
    steps = range(1, 2001, 10)
    page.show_applied(steps, [LrSchedule().at_step(s - 1, 2000) for s in steps], 2000)
    scene = chart.scene()
    for x, rate in scene.applied:
        assert rate == pytest.approx(scene.schedule.at(x), rel=1e-9)
    chart.grab()


def test_the_chart_speaks(chart):
    assert chart.accessibleName() == "Learning-rate curve"
    QTest.keyClick(chart, Key.Key_Home)
    QTest.keyClick(chart, Key.Key_BracketRight)
    expected = "point 2 of 4, 5.0 % of run, step 101, learning rate 1.00e-06"
    assert chart.accessibleDescription() == expected


def test_screen_readers_hear_a_chart_and_its_value():
    # In a process of its own: being active cannot be taken back.
    code = """
import sys
from PySide6.QtGui import QAccessible
from PySide6.QtWidgets import QApplication
app = QApplication([])
from gui.editors.lr_chart import LrChart
from gui.editors.ticket_chart import TicketChart
QAccessible.setActive(True)
for kind in (LrChart, TicketChart, LrChart):
    chart = kind()
    chart.show()
    told = QAccessible.queryAccessibleInterface(chart)
    chart.choose((1,))
    print(told.role().name, "|", told.text(QAccessible.Text.Value))
    del told
    chart.close()
    chart.deleteLater()
    del chart
    app.processEvents()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "Chart | point 2 of 4, 5.0 % of run, learning rate 1.00e-06"
    assert lines[1] == "Chart | 50\u201399: 1.00\u00d7, 5.0%"
    assert lines[2] == lines[0]


@pytest.mark.parametrize("width", [200, 299, 320, 1600])
@pytest.mark.parametrize(
    "points",
    [
        [[0, 1e-12], [1, 1.0]],
        [[0, 0.0], [1, 0.0]],
        [[0, 1e-6], [1, 1e-6]],
        [[0, 1e-6], [1, 1e-6], [1, 5e-6]],
        [[0, 2.0], [0.5, 1e-6]],
    ],
)
def test_odd_curves_and_sizes_can_be_shown(document, chart, width, points):
    document.set_values({CURVE: points}, "x")
    chart.resize(width, 260)
    assert not chart.grab().isNull()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (CURVE, "straight"),
        (CURVE, [[0, "high"], [1, 0]]),
        ("checkpoints.every_steps", "often"),
        ("training.steps", "many"),
        ("training.epochs", None),
        ("training.batch_size", -4),
        ("optimizer", "best"),
    ],
)
def test_faulty_values_of_a_file_leave_the_curve_as_it_was(document, chart, path, value):
    document.set_values({path: value}, "x")
    assert document.problems()
    assert chart.schedule.points == DEFAULT_POINTS
    assert not chart.grab().isNull()


@pytest.mark.parametrize(("width", "is_folded"), [(640, True), (1240, False)])
def test_the_table_is_never_cut(page, qapp, width, is_folded):
    page.resize(width, 700)
    qapp.processEvents()
    assert page.findChild(FoldingRow).is_folded == is_folded
    table = page.editor.table
    header = table.horizontalHeader()
    assert header.length() <= table.viewport().width()
    assert page.widget().width() <= page.viewport().width()


def test_units_switch_the_axis(page, chart):
    assert not page.editor.units.button("epochs").isEnabled()
    page.set_batches_per_epoch(400)
    page.editor.units.button("epochs").click()
    assert chart.scene().units == "epochs"
    assert len(chart.scene().run.epoch_places()) == 20


def test_the_pages_of_the_editors_do_without_torch():
    code = (
        "import sys, gui.pages.schedule, gui.pages.timesteps, gui.pages.layers;"
        "sys.exit('torch' in sys.modules or 'pyqtgraph' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
