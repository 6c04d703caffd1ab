"""What a person does to the charts with the mouse, as the window gets it."""

from __future__ import annotations

import csv
import importlib.util
import math
from pathlib import Path

import pyqtgraph
import pytest
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QColor, QImage, QMouseEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QFileDialog

from gui import theme
from gui.charts.run_history import RunHistory
from gui.document import Document
from gui.engine.host import EngineHost
from gui.engine.mailbox import Arrived
from gui.pages.run import RunPage
from gui.pages.run_overlay import overlay_runs
from gui.pages.runs import RunsPage

_spec = importlib.util.spec_from_file_location(
    "history_cases", Path(__file__).with_name("test_history.py")
)
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)
pyqtgraph.setConfigOption("mouseRateLimit", -1)
pytestmark = pytest.mark.qt_log_ignore(
    "This plugin does not support",
    'Mouse event "Mouse.*" not accepted by receiving widget',
)
LEFT, MIDDLE = Qt.MouseButton.LeftButton, Qt.MouseButton.MiddleButton
_alive = []


@pytest.fixture(autouse=True)
def _keep_pages_alive():
    # A page nobody holds could be collected while it is painted; in the window its parent does.
    yield
    _alive.clear()


@pytest.fixture
def document(qapp, tmp_path):
    theme.apply(qapp, "dark")
    made = Document()
    made.set_values({"output.folder": str(tmp_path / "out")}, "folder")
    return made


@pytest.fixture
def host(qapp):
    return EngineHost()


def feed(host, *events):
    for number, event in enumerate(events):
        host.keeper.feed(Arrived(1_000.0 + number, event))


def shown(qtbot, page, height=1300):
    qtbot.addWidget(page)
    _alive.append(page)
    page.resize(1100, height)
    page.show()
    qtbot.waitExposed(page)
    QApplication.processEvents()
    return page


@pytest.fixture
def page(qtbot, document, host):
    feed(host, cases.begun(), cases.planned(300), *cases.steps(1, 200, 300), cases.saved(120))
    made = shown(qtbot, RunPage(document, host))
    made.group.refresh()
    return made


def plot_of(page, key="loss"):
    return page.group.chart(key).plot


def pixel(plot, x, y=None):
    """Return where a place of the chart is; without ``y`` half-way up."""
    _, (low, high) = plot._box.viewRange()
    point = QPointF(x, (low + high) / 2 if y is None else y)
    return plot.mapFromScene(plot._box.mapViewToScene(point))


def point(plot, x):
    """Move the pointer to a place of the chart; it may have been left there by another test."""
    QTest.mouseMove(plot.viewport(), pixel(plot, x) + QPoint(0, 9))
    QTest.mouseMove(plot.viewport(), pixel(plot, x))


def drag(plot, start, end, button=LEFT, keys=Qt.KeyboardModifier.NoModifier, *, release=True):
    view = plot.viewport()
    QTest.mouseMove(view, start)
    QTest.mousePress(view, button, keys, start)
    for share in (0.3, 0.6, 1.0):
        place = start + QPoint(*(int(share * d) for d in (end - start).toTuple()))
        # QTest.mouseMove knows no keys.
        global_place = QPointF(view.mapToGlobal(place))
        move = QMouseEvent(QEvent.Type.MouseMove, QPointF(place), global_place, LEFT, button, keys)
        QApplication.sendEvent(view, move)
    if release:
        QTest.mouseRelease(view, button, keys, end)


def double_click(plot, place):
    view = plot.viewport()
    QTest.mouseMove(view, place)
    QTest.mouseClick(view, LEFT, pos=place)
    QTest.mouseDClick(view, LEFT, pos=place)
    QTest.mouseRelease(view, LEFT, pos=place)


def x_range(page, key="loss"):
    return plot_of(page, key)._box.viewRange()[0]


def test_the_crosshair_is_in_all_charts_and_leaves_with_the_pointer(page):
    plot = plot_of(page)
    point(plot, 50)
    for key in ("loss", "learning_rate", "gradient_norm", "pace"):
        chart = page.group.chart(key)
        assert chart.plot._cross.isVisible()
        assert abs(chart.plot._cross.value() - 50) < 1
        assert "step 50" in chart._readout.text()
    assert "5.00e-05" in page.group.chart("learning_rate")._readout.text()
    QApplication.sendEvent(plot, QEvent(QEvent.Type.Leave))
    assert not any(chart.plot._cross.isVisible() for chart in page.group.charts)
    assert page.group.chart("pace")._readout.text() == ""


def test_the_note_of_the_loss_makes_room_for_what_the_crosshair_reads(page):
    chart = page.group.chart("loss")
    assert "which timesteps were drawn" in chart._note.text()
    assert chart._note.isVisible()
    point(chart.plot, 50)
    assert not chart._note.isVisible()
    QApplication.sendEvent(chart.plot, QEvent(QEvent.Type.Leave))
    assert chart._note.isVisible()
    page.resize(700, 800)
    QApplication.processEvents()
    assert not chart._note.isVisible()
    assert chart.toolTip() == chart._note.text()


def test_the_pointer_on_a_mark_says_what_it_is(page):
    plot, chart = plot_of(page), page.group.chart("loss")
    point(plot, 120)
    assert "saved" in chart._readout.text()
    point(plot, 140)
    assert "saved" not in chart._readout.text()


def test_a_box_zooms_every_chart_and_a_double_click_shows_all_again(page):
    plot = plot_of(page)
    _, (low, high) = plot._box.viewRange()
    drag(plot, pixel(plot, 50, 0.8), pixel(plot, 100, 0.2))
    assert x_range(page) == pytest.approx([50, 100], abs=1)
    assert x_range(page, "pace") == pytest.approx([50, 100], abs=1)
    assert plot._box.viewRange()[1] == pytest.approx([0.2, 0.8], abs=0.05)
    assert not page.toolbar.follow.isChecked()
    double_click(plot, pixel(plot, 75))
    assert x_range(page)[1] == pytest.approx(200, abs=3)
    assert plot._box.viewRange()[1] == pytest.approx([low, high])
    assert page.toolbar.follow.isChecked()


def test_a_flat_box_zooms_the_direction_it_has(page):
    plot = plot_of(page)
    _, before = plot._box.viewRange()
    drag(plot, pixel(plot, 20), pixel(plot, 60))
    assert x_range(page) == pytest.approx([20, 60], abs=1)
    assert page.group.chart("loss")._y_window is None
    page.group.show_all()
    assert not page.toolbar.whole.isEnabled()
    drag(plot, pixel(plot, 100, 0.6), pixel(plot, 100, 0.2))
    assert page.group.view.window is None
    assert plot._box.viewRange()[1] == pytest.approx([0.2, 0.6], abs=0.05)
    assert page.toolbar.whole.isEnabled()
    QTest.mouseClick(page.toolbar.whole, LEFT)
    assert plot._box.viewRange()[1] == pytest.approx(before)


@pytest.mark.parametrize(
    ("button", "keys"),
    [
        (MIDDLE, Qt.KeyboardModifier.NoModifier),
        (LEFT, Qt.KeyboardModifier.ShiftModifier),
    ],
)
def test_a_pan_moves_every_chart_and_switches_following_off(page, button, keys):
    page.group.set_view(page.group.view.zoomed(50, 100).following(True))
    plot = plot_of(page)
    assert page.toolbar.follow.isChecked()
    start = x_range(page)
    width = start[1] - start[0]
    drag(plot, pixel(plot, 170), pixel(plot, 190), button, keys)
    moved = x_range(page)
    assert moved == pytest.approx([130, 180], abs=2)
    assert moved[1] - moved[0] == pytest.approx(width, rel=0.05)
    assert x_range(page, "gradient_norm") == moved
    assert not page.toolbar.follow.isChecked()
    QTest.mouseClick(page.toolbar.follow, LEFT)
    assert x_range(page)[1] == pytest.approx(200, abs=2)


def test_a_window_that_follows_moves_with_the_newest_step(page, host):
    page.group.set_view(page.group.view.zoomed(50, 100))
    feed(host, *cases.steps(201, 220, 300))
    page.group.refresh()
    assert x_range(page) == [50, 100]
    QTest.mouseClick(page.toolbar.follow, LEFT)
    assert x_range(page) == pytest.approx([170, 220], abs=1)
    feed(host, *cases.steps(221, 240, 300))
    page.group.refresh()
    assert x_range(page) == pytest.approx([190, 240], abs=1)


def test_paused_charts_stand_still_until_they_go_on(page, host, qtbot):
    group = page.group
    QTest.mouseClick(page.toolbar.pause, LEFT)
    feed(host, *cases.steps(201, 230, 300))
    group._tick()
    assert group.chart("loss")._items[0].xData[-1] == 200
    QTest.mouseClick(page.toolbar.pause, LEFT)
    assert group.chart("loss")._items[0].xData[-1] == 230


def last_drawn(page):
    lines = [chart._items[0].xData for chart in page.group.charts if not chart.isHidden()]
    return [line[-1] for line in lines if line is not None and len(line)]


def test_live_charts_are_drawn_one_after_the_other(page, host, qtbot):
    group, ends = page.group, []
    group.drawn.connect(lambda: ends.append(last_drawn(page)))
    before = last_drawn(page)
    assert len(before) > 2
    feed(host, *cases.steps(201, 230, 300))
    group._tick()
    assert sum(a != b for a, b in zip(before, last_drawn(page), strict=True)) == 1
    group._tick()
    assert sum(a != b for a, b in zip(before, last_drawn(page), strict=True)) == 1, "not yet again"
    qtbot.waitUntil(lambda: bool(ends))
    assert all(a != b for a, b in zip(before, ends[0], strict=True))


def test_what_the_user_asks_for_is_drawn_at_once_in_the_middle_of_a_round(page, host, qtbot):
    group, ends = page.group, []
    group.drawn.connect(lambda: ends.append(last_drawn(page)))
    feed(host, *cases.steps(201, 230, 300))
    group._tick()
    group.set_view(group.view.zoomed(50, 100))
    assert len(ends) == 1
    assert {x_range(page, chart.spec.key)[0] for chart in group.charts if chart.isVisible()} == {50}
    QApplication.processEvents()
    assert len(ends) == 1, "the round that was begun is over"


def test_nothing_moves_while_a_box_is_drawn(page, host):
    plot = plot_of(page)
    drag(plot, pixel(plot, 50, 0.8), pixel(plot, 100, 0.2), release=False)
    feed(host, *cases.steps(201, 260, 300))
    page.group._tick()
    assert x_range(page)[1] == pytest.approx(200, abs=3)
    QTest.mouseRelease(plot.viewport(), LEFT, pos=pixel(plot, 100, 0.2))
    page.group._tick()
    assert x_range(page) == pytest.approx([50, 100], abs=1)


def test_a_round_that_a_drag_begins_in_is_given_up(page, host, qtbot):
    before = last_drawn(page)
    feed(host, *cases.steps(201, 260, 300))
    page.group._tick()
    # Not by the mouse: its events would let the round go on first.
    plot_of(page)._box.is_dragged = True
    QApplication.processEvents()
    assert sum(a != b for a, b in zip(before, last_drawn(page), strict=True)) == 1
    plot_of(page)._box.is_dragged = False
    with qtbot.waitSignal(page.group.drawn):
        page.group._tick()
    assert all(a != b for a, b in zip(before, last_drawn(page), strict=True))


def test_zooming_out_ends_at_everything(page):
    plot = plot_of(page)
    page.group.set_view(page.group.view.zoomed(50, 150))
    plot.zoomed.emit((-400.0, 600.0, math.nan, math.nan))
    assert page.group.view.window is None
    assert page.toolbar.follow.isChecked()


def test_every_measure_shows_all_of_the_run(page):
    for number, last in ((1, page.group.history.steps.place("seconds")[-1]), (2, None), (0, 200)):
        page.toolbar.place.setCurrentIndex(number)
        end = page.group.history.steps.place("epoch")[-1] if last is None else last
        assert x_range(page)[1] == pytest.approx(end, rel=0.02)
        plot = plot_of(page)
        point(plot, end / 2)
        assert page.group.chart("loss")._readout.text()


def test_clipping_leaves_outliers_outside(page, host, qtbot):
    loud = cases.step_event(201, 300)
    feed(host, type(loud)(**{**vars(loud), "loss": 500.0}))
    page.group.refresh()
    plot = plot_of(page)
    assert plot._box.viewRange()[1][1] > 400
    QTest.mouseClick(page.toolbar.clip, LEFT)
    # The smoothed line is never clipped.
    assert plot._box.viewRange()[1][1] < 100


# An earlier run under this one


def earlier(document, name="before", last=260, **record):
    output = Path(document.value("output.folder"))
    events = [cases.begun(), cases.planned(300), *cases.steps(1, last, 300)]
    return cases.write_run(output, name, events, **record)


def overlaid(page, qtbot, folder):
    with qtbot.waitSignal(page.overlay.chosen, timeout=5_000):
        page.overlay.take(folder)
    return page.group.chart("loss")


def test_an_earlier_run_is_chosen_from_the_menu_and_taken_off_again(page, document, qtbot):
    earlier(document, run_id="other")
    earlier(document, "the same run", run_id="r1")
    chart = page.group.chart("loss")
    QTest.mouseClick(page.overlay, LEFT)
    menu = page.overlay.menu_of_runs
    qtbot.waitUntil(menu.isVisible, timeout=5_000)
    texts = [action.text() for action in menu.actions()]
    assert texts[0].startswith("before: step 260")
    assert not any(text.startswith("the same run") for text in texts)
    assert not page.overlay.isChecked()
    with qtbot.waitSignal(page.overlay.chosen, timeout=5_000):
        menu.actions()[0].trigger()
    menu.close()
    item = chart._overlay_item
    assert item.xData[-1] == 260
    assert item.opts["pen"].style() == Qt.PenStyle.DashLine
    assert item.opts["pen"].color() == QColor(theme.tokens().muted)
    assert "before" in chart._legend.toolTip()
    assert page.overlay.isChecked()
    assert x_range(page)[1] == pytest.approx(260, abs=4)
    point(chart.plot, 100)
    assert "before 0." in chart._readout.text()
    point(chart.plot, 250)
    assert "smoothed" not in chart._readout.text(), "this run is not so far yet"

    QTest.mouseClick(page.overlay, LEFT)
    qtbot.waitUntil(menu.isVisible, timeout=5_000)
    assert menu.actions()[0].isChecked()
    next(action for action in menu.actions() if action.text() == "No overlay").trigger()
    menu.close()
    assert item.xData is None or not len(item.xData)
    assert "before" not in chart._legend.toolTip()
    assert not page.overlay.isChecked()


def test_the_overlay_goes_through_smoothing_scales_and_measures(page, document, qtbot):
    chart = overlaid(page, qtbot, earlier(document))
    page.toolbar.smoothing.setValue(0)
    page.toolbar.log.click()
    item = chart._overlay_item
    assert item.yData[0] == pytest.approx(0.0)
    page.toolbar.place.setCurrentIndex(2)
    history = page.group.overlay.history
    assert item.xData[-1] == pytest.approx(history.steps.place("epoch")[-1])


def test_a_run_without_losses_is_refused_in_words(page, document, qtbot, monkeypatch):
    said = []
    monkeypatch.setattr("gui.pages.run.warn", lambda *a: said.append(a[-1]))
    folder = cases.write_run(Path(document.value("output.folder")), "empty", [cases.begun()])
    page.overlay.take(folder)
    qtbot.waitUntil(lambda: said == ["empty has no recorded loss."], timeout=5_000)
    assert page.group.overlay is None


def test_the_overlay_is_exported_with_numbers_and_picture(
    page, document, qtbot, tmp_path, monkeypatch
):
    chart = overlaid(page, qtbot, earlier(document))
    targets = iter([tmp_path / "x.png", tmp_path / "x.csv"])
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a, **k: (str(next(targets)), ""))
    picture, table = page.toolbar.export.menu().actions()
    picture.trigger()
    image = QImage(str(tmp_path / "x.png"))
    muted = QColor(theme.tokens().muted)
    # The facts and a gap are above, a margin is around.
    place = chart.plot.viewport().mapTo(page.body, pixel(chart.plot, 230))
    place -= page._grid.geometry().topLeft()
    place += QPoint(theme.GAP_4, theme.GAP_4 + page.facts.height() + theme.GAP_3)
    near = [
        QColor(image.pixel(place.x() + dx, y))
        for dx in range(-8, 9)
        for y in range(place.y() - 90, place.y() + 130)
    ]
    assert any(abs(c.red() - muted.red()) + abs(c.blue() - muted.blue()) < 24 for c in near), (
        "the dashed line is in the picture, beyond the last step of this run"
    )
    assert QColor(image.pixel(2, 2)) == theme.colour("window")
    table.trigger()
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 260
    assert rows[9]["loss"] == rows[9]["before: loss"]
    assert float(rows[9]["loss"]) == pytest.approx(0.1)
    assert rows[259]["loss"] == ""
    assert float(rows[259]["before: loss"]) == pytest.approx(1 / 260, rel=1e-5)


def test_charts_that_are_scrolled_away_are_in_the_picture(
    qtbot, document, host, tmp_path, monkeypatch
):
    feed(host, cases.begun(), cases.planned(300), *cases.steps(1, 200, 300))
    page = shown(qtbot, RunPage(document, host), height=420)
    pace = page.group.chart("pace")
    assert pace.visibleRegion().isEmpty()
    assert pace._items[0].xData is None
    target = tmp_path / "x.png"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a, **k: (str(target), ""))
    page.toolbar.export.menu().actions()[0].trigger()
    assert pace._items[0].xData[-1] == 200
    assert QImage(str(target)).height() > page._grid.geometry().height() > page.height()


def test_the_runs_page_asks_for_an_overlay(document, host, qtbot):
    folder = earlier(document)
    runs = shown(qtbot, RunsPage(document, host))
    qtbot.waitUntil(lambda: runs.table.rowCount() == 1, timeout=5_000)
    with qtbot.waitSignal(runs.overlay_asked) as asked:
        QTest.mouseClick(runs.overlay, LEFT)
    assert asked.args == [folder]


def test_each_run_is_offered_once_and_not_the_shown_one(document):
    from gui.engine.run_folders import list_runs

    earlier(document, "a", run_id="a", started=1)
    earlier(document, "a again", run_id="a", started=2)
    earlier(document, "shown", run_id="r1", started=3)
    earlier(document, "never began", last=0, run_id="b", started=4)
    runs = list_runs(Path(document.value("output.folder")))
    assert [run.path.name for run in overlay_runs(runs, "r1")] == ["a again"]


def test_a_shorter_overlay_is_not_read_beyond_its_end(page, qtbot, document):
    chart = overlaid(page, qtbot, earlier(document, last=40))
    plot = chart.plot
    point(plot, 150)
    assert "before" not in chart._readout.text()
    assert isinstance(page.group.overlay.history, RunHistory)
