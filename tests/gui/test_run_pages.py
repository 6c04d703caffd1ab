from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pyqtgraph
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QColor, QImage
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QPushButton, QWidget

from aozora.config.checks import ticket_pool
from aozora.config.codec import decode_config, encode_config
from aozora.config.schema import TrainConfig
from aozora.config.ticket_segments import SegmentedPool
from aozora.events import to_json
from gui import theme
from gui.charts.axes import log_text, log_ticks
from gui.charts.numbers import short_number
from gui.charts.pace import DrawPace
from gui.charts.planned import PlannedPart, PlannedRates
from gui.charts.run_history import RunPart
from gui.charts.view import ChartView
from gui.document import Document
from gui.engine import resume_wizard
from gui.engine.desktop import DesktopLink, look_of
from gui.engine.desktop_windows import Guid, progress_state
from gui.engine.host import EngineHost
from gui.engine.mailbox import Arrived
from gui.engine.resume_parts import tickets_words
from gui.engine.resume_plan import moved_places, plan_resume, resumed_settings
from gui.engine.resume_tickets import TicketsLeft
from gui.engine.resume_wizard import ResumeWizard
from gui.engine.run_folders import load_history, planned_rates
from gui.engine.state_question import StateFacts, StateQuestion, parse_answer
from gui.engine.states import EngineEnded, RunState, StartRequested, advance
from gui.forms.controls import TonedLabel
from gui.pages.console import ConsolePage
from gui.pages.run import RunPage
from gui.pages.run_toolbar import slider_of, smoothing_of
from gui.pages.runs import RunsPage
from gui.pages.sample_files import grid_of, parse_name
from gui.pages.samples import SamplesPage

_spec = importlib.util.spec_from_file_location(
    "history_cases", Path(__file__).with_name("test_history.py")
)
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)
pyqtgraph.setConfigOption("mouseRateLimit", -1)
# The offscreen platform says so for every window with a smallest size.
pytestmark = pytest.mark.qt_log_ignore(
    "does not support propagateSizeHints",
    # pyqtgraph looks at a press and lets it pass until it is a drag.
    'Mouse event "Mouse.*" not accepted by receiving widget',
)


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


_alive = []


@pytest.fixture(autouse=True)
def _keep_pages_alive():
    # A page nobody holds could be collected while it is painted; in the window its parent does.
    yield
    _alive.clear()


def shown(qtbot, page, width=1100, height=1300):
    qtbot.addWidget(page)
    _alive.append(page)
    page.resize(width, height)
    page.show()
    qtbot.waitExposed(page)
    qtbot.wait(30)
    return page


def line_of(page, key, number=0):
    item = page.group.chart(key)._items[number]
    return item.xData, item.yData


def test_the_run_page_says_what_will_be_there(qtbot, document, host):
    page = shown(qtbot, RunPage(document, host))
    assert page.empty.isVisible()
    assert not page.body.isVisible()


def test_the_run_page_draws_the_live_run(qtbot, document, host):
    page = shown(qtbot, RunPage(document, host))
    feed(host, cases.begun(), cases.planned(20), *cases.steps(1, 10))
    page._show_current()
    qtbot.waitUntil(lambda: page.body.isVisible(), timeout=2_000)
    page.group.refresh()
    x, y = line_of(page, "loss")
    assert x.tolist() == list(range(1, 11))
    assert y.tolist() == pytest.approx([1 / n for n in range(1, 11)])
    feed(host, *cases.steps(11, 12))
    page.group.refresh()
    assert line_of(page, "loss")[0][-1] == 12
    assert page.facts.isVisible()


def test_a_page_made_late_has_the_whole_run(qtbot, document, host):
    feed(host, cases.begun(), cases.planned(20), *cases.steps(1, 10))
    page = shown(qtbot, RunPage(document, host))
    assert page.body.isVisible()
    assert len(line_of(page, "loss")[0]) == 10


def test_a_recorded_run_is_shown_with_its_drawn_curve(qtbot, document, host, tmp_path):
    events = [cases.begun(), cases.planned(20), *cases.steps(1, 20)]
    folder = cases.write_run(tmp_path, "demo-1", events)
    events[0] = cases.begun(str(folder))
    page = shown(qtbot, RunPage(document, host))
    page.show_run(folder)
    qtbot.waitUntil(lambda: page.group.history.last_step == 20, timeout=5_000)
    qtbot.wait(50)
    assert page.back.isVisible()
    QTest.mouseClick(page.back, Qt.MouseButton.LeftButton)
    assert not page.body.isVisible()


def curve_of(folder):
    return decode_config(json.loads((folder / "config.json").read_text())).schedule.learning_rate


def test_the_drawn_curve_is_the_engines_own(tmp_path):
    folder = cases.write_run(tmp_path, "demo-1", [cases.begun()])
    rates = planned_rates([RunPart(str(folder), 0, 100)])
    schedule = curve_of(folder)
    assert rates.at(np.array([1.0, 50.0, 100.0])).tolist() == [
        schedule.at_step(0, 100),
        schedule.at_step(49, 100),
        schedule.at_step(99, 100),
    ]
    assert planned_rates([RunPart(str(folder), 0)]) is None
    assert planned_rates([RunPart(str(tmp_path / "gone"), 0, 100)]) is None


def a_resumed_run(output):
    """Write a run of 10 steps that went on from step 6 to 20 with another curve; return both."""
    first = cases.write_run(output, "demo-1", [cases.begun(), cases.planned(10)])
    curves = ([[0, 1e-6], [1, 1e-6]], [[0, 1e-5], [1, 2e-5]])
    folders = [first]
    events = [cases.begun("/moved", 6), cases.planned(20, 6), *cases.steps(7, 20)]
    folders.append(cases.write_run(output, "demo-2", events, started=50, resumed_from="x"))
    lines = [to_json(e, "r1", 1_000_000.0 + e.step) for e in cases.steps(1, 10, 10)]
    with (first / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    for folder, curve in zip(folders, curves, strict=True):
        plain = {"schema": 1, "schedule": {"learning_rate": curve}}
        (folder / "config.json").write_text(json.dumps(plain), encoding="utf-8")
    return folders


def test_each_part_of_a_resumed_run_has_the_curve_that_was_in_force(tmp_path):
    first, second = a_resumed_run(tmp_path)
    history = load_history(second)
    assert history.parts == (RunPart(str(first), 0, 10), RunPart(str(second), 6, 20))
    rates = planned_rates(history.parts)
    assert rates.end == 20
    steps = rates.steps(1, 20, 4)
    assert {1, 6, 7, 20} <= set(steps.tolist())
    values = dict(zip(steps.tolist(), rates.at(steps).tolist(), strict=True))
    assert values[6] == 1e-6
    assert values[7] == curve_of(second).at_step(6, 20)
    assert values[20] == 2e-5
    (first / "config.json").unlink()
    assert math.isnan(planned_rates(history.parts).at(np.array([6.0]))[0])


def test_a_part_that_was_done_again_from_its_start_is_gone():
    history = cases.fed(
        cases.begun("/a"),
        cases.planned(10),
        cases.begun("/b", 4),
        cases.planned(20, 4),
        cases.begun("/c", 4),
        cases.planned(30, 4),
    )
    assert [part.folder for part in history.parts] == ["/a", "/c"]
    assert [part.total_steps for part in history.parts] == [10, 30]


@pytest.mark.parametrize("place", ["step", "seconds", "epoch"])
def test_the_chart_of_the_rates_draws_them_in_every_measure(qtbot, document, host, tmp_path, place):
    _, second = a_resumed_run(tmp_path)
    page = shown(qtbot, RunPage(document, host))
    page.show_run(second)
    qtbot.waitUntil(lambda: page.group.history.last_step == 20, timeout=5_000)
    item = page.group.chart("learning_rate")._planned_item
    qtbot.waitUntil(lambda: item.xData is not None and len(item.xData) > 0, timeout=5_000)
    page.group.set_view(page.group.view.along(place))
    places = page.group.history.steps.place(place)
    # A resumed run's clock goes on where it stood, so that both steps may share a place in time.
    before = np.flatnonzero(np.isclose(item.xData, places[5]))[0]
    after = np.flatnonzero(np.isclose(item.xData, places[6]))[-1]
    assert item.yData[before] == pytest.approx(-6.0)
    assert item.yData[after] == pytest.approx(math.log10(curve_of(second).at_step(6, 20)))


def test_nothing_is_drawn_while_the_page_cannot_be_seen(qtbot, document, host):
    page = shown(qtbot, RunPage(document, host))
    feed(host, cases.begun(), *cases.steps(1, 3))
    page._show_current()
    page.hide()
    before = page.group.chart("loss")._items[0].xData
    feed(host, *cases.steps(4, 9))
    page.group.refresh()
    assert page.group.chart("loss")._items[0].xData is before
    page.show()
    qtbot.waitUntil(lambda: len(line_of(page, "loss")[0]) == 9, timeout=2_000)


def test_frequent_news_of_the_run_do_not_hold_up_slow_drawing(qtbot, document, host, monkeypatch):
    feed(host, cases.begun(), *cases.steps(1, 3))
    page = shown(qtbot, RunPage(document, host))
    page.group._pace.interval_ms = 200
    page.group.set_live(True)
    drawn = []
    page.group.drawn.connect(lambda: drawn.append(host.keeper.history.last_step))
    for step in range(4, 24):
        feed(host, cases.step_event(step, 50))
        page.group.set_live(True)
        qtbot.wait(30)
    assert drawn


def test_a_long_flat_line_can_be_seen(qtbot, document, host):
    feed(host, cases.begun(), *cases.steps(1, 3_000, 3_000))
    page = shown(qtbot, RunPage(document, host))
    chart = page.group.chart("gradient_norm")
    assert len(line_of(page, "gradient_norm")[0]) < 3_000
    ink = QColor(theme.tokens().series[2])
    picture = chart.plot.grab().toImage()
    near = [
        QColor(picture.pixel(x, y))
        for x in range(picture.width() // 2, picture.width() // 2 + 3)
        for y in range(picture.height())
    ]
    assert any(abs(c.hue() - ink.hue()) < 25 and c.saturation() > 60 for c in near)


def drag(plot, start, end):
    def pixel(point):
        return plot.mapFromScene(plot._box.mapViewToScene(QPointF(*point)))

    view = plot.viewport()
    a, b = pixel(start), pixel(end)
    QTest.mouseMove(view, a)
    QTest.mousePress(view, Qt.MouseButton.LeftButton, pos=a)
    for share in (0.3, 0.6, 1.0):
        QTest.mouseMove(view, a + QPoint(*(int(share * d) for d in (b - a).toTuple())))
    QTest.mouseRelease(view, Qt.MouseButton.LeftButton, pos=b)


def test_a_box_zooms_all_charts_and_show_all_undoes_it(qtbot, document, host):
    feed(host, cases.begun(), cases.planned(200), *cases.steps(1, 200, 200))
    page = shown(qtbot, RunPage(document, host))
    plot = page.group.chart("loss").plot
    drag(plot, (50, 0.1), (100, 0.9))
    window = page.group.view.window
    assert window is not None
    assert abs(window[0] - 50) < 5
    assert abs(window[1] - 100) < 5
    assert not page.group.view.follow
    assert not page.toolbar.follow.isChecked()
    x, _ = line_of(page, "gradient_norm")
    assert 45 < x[1] < 55
    assert page.toolbar.whole.isEnabled()
    QTest.mouseClick(page.toolbar.whole, Qt.MouseButton.LeftButton)
    assert page.group.view.window is None
    assert page.toolbar.follow.isChecked()
    assert line_of(page, "gradient_norm")[0][-1] == 200


def test_the_wheel_scrolls_the_page_and_zooms_only_with_ctrl(qtbot, document, host):
    feed(host, cases.begun(), *cases.steps(1, 50, 50))
    page = shown(qtbot, RunPage(document, host), height=500)
    plot = page.group.chart("loss").plot
    before = page.group.view
    from PySide6.QtGui import QWheelEvent

    def wheel(modifiers):
        centre = QPointF(plot.viewport().rect().center())
        return QWheelEvent(
            centre,
            plot.viewport().mapToGlobal(centre),
            QPoint(),
            QPoint(0, 120),
            Qt.MouseButton.NoButton,
            modifiers,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )

    plain = wheel(Qt.KeyboardModifier.NoModifier)
    plot.wheelEvent(plain)
    assert not plain.isAccepted()
    assert page.group.view == before
    plot.wheelEvent(wheel(Qt.KeyboardModifier.ControlModifier))
    assert page.group.view.window is not None


def test_the_crosshair_reads_exact_values_in_every_chart(qtbot, document, host):
    feed(host, cases.begun(), cases.planned(20), *cases.steps(1, 10))
    page = shown(qtbot, RunPage(document, host))
    page.group.chart("loss").plot.pointed.emit(4.2)
    text = page.group.chart("loss")._readout.text()
    assert "step 4" in text
    assert "each step 0.25" in text
    assert "4.00e-06" in page.group.chart("learning_rate")._readout.text()
    page.group.chart("loss").plot.pointed.emit(math.nan)
    assert page.group.chart("loss")._readout.text() == ""


def test_the_toolbar_changes_the_view(qtbot, document, host):
    feed(host, cases.begun(), *cases.steps(1, 10))
    page = shown(qtbot, RunPage(document, host))
    page.toolbar.log.click()
    assert page.group.view.is_log
    _, y = line_of(page, "loss")
    assert y[0] == pytest.approx(0.0)
    assert y[-1] == pytest.approx(-1.0)
    page.toolbar.smoothing.setValue(0)
    assert page.group.view.smoothing == 0.0
    _, smooth = line_of(page, "loss", 1)
    assert smooth.tolist() == pytest.approx(y.tolist())
    page.toolbar.place.setCurrentIndex(2)
    assert page.group.view.place == "epoch"
    assert line_of(page, "loss")[0][-1] == pytest.approx(1.0)


def test_charts_are_saved_as_picture_and_table(qtbot, document, host, tmp_path, monkeypatch):
    feed(host, cases.begun(), *cases.steps(1, 10))
    page = shown(qtbot, RunPage(document, host))
    for ending, save in (("png", page._save_picture), ("csv", page._save_table)):
        path = tmp_path / f"x.{ending}"
        monkeypatch.setattr(page, "_ask_file", lambda *a, path=path: path)
        save()
        assert path.stat().st_size > 100
    assert not QImage(str(tmp_path / "x.png")).isNull()


@pytest.mark.parametrize("width", [640, 968, 1240])
@pytest.mark.parametrize("name", ["dark", "light", "contrast"])
def test_nothing_on_the_run_page_is_wider_than_the_page(qtbot, qapp, document, host, width, name):
    theme.apply(qapp, name)
    feed(host, cases.begun(), cases.planned(20), *cases.steps(1, 10))
    page = shown(qtbot, RunPage(document, host), width=width)
    right = page.viewport().width()
    for widget in page.widget().findChildren(QWidget):
        if widget.isVisible() and widget.parent() is page.group.charts[0].parent():
            assert widget.geometry().right() <= right
    assert page.widget().width() <= right
    theme.apply(qapp, "dark")


def test_smoothing_has_an_exact_place_on_its_slider():
    for weight in (0.0, 0.9, 0.98, 0.99, 0.999):
        assert abs(smoothing_of(slider_of(weight)) - weight) < 0.002


def test_a_view_that_follows_keeps_its_width():
    view = ChartView().zoomed(10, 30)
    assert view.span(0, 100) == (10, 30)
    assert view.following(True).span(0, 100) == (80, 100)
    assert view.whole().span(0, 100) == (0, 100)
    assert view.along("epoch").window is None
    assert view.zoomed(5, 5) is view


def test_slow_draws_halve_the_rate_and_fast_ones_bring_it_back():
    pace = DrawPace()
    for _ in range(5):
        pace.drew(45.0)
    assert pace.interval_ms == 500
    for _ in range(40):
        pace.drew(3.0)
    assert pace.interval_ms == 100


@pytest.mark.parametrize(("low", "high"), [(-7.2, -6.1), (-0.5, 0.1), (-9.0, 0.0)])
def test_ticks_of_a_logarithmic_axis_are_round_and_few(low, high):
    ticks = log_ticks(low, high, 6)
    assert 1 <= len(ticks) <= 7
    for tick in ticks:
        digits = log_text(tick).split("e")[0].replace(".", "").strip("0")
        assert len(digits) <= 2


def test_a_narrow_logarithmic_axis_has_ticks_too():
    ticks = log_ticks(math.log10(1.012), math.log10(1.088), 6)
    assert [log_text(tick) for tick in ticks] == ["1.02", "1.04", "1.06", "1.08"]
    assert log_text(math.log10(9.85e-7)) == "9.85e-7"


def test_short_numbers_are_short():
    values = [0.0912, 1.23e-6, 12.4, 12345.0, math.nan, 0.0]
    assert [short_number(v) for v in values] == [
        "0.09120",
        "1.23e-06",
        "12.40",
        "12,345",
        "\N{EN DASH}",
        "0",
    ]


# Runs


def scan(qtbot, page, count):
    qtbot.waitUntil(lambda: page.table.rowCount() == count, timeout=5_000)


def some_runs(document):
    output = Path(document.value("output.folder"))
    checkpoints = output / "checkpoints"
    checkpoints.mkdir(parents=True)
    for ending in (".pt", ".json"):
        (checkpoints / f"demo_step_000004{ending}").write_text("{}", encoding="utf-8")
    cases.write_run(output, "old", [cases.begun(), *cases.steps(1, 3)], started=1)
    events = [cases.begun(), cases.planned(9), *cases.steps(1, 6)]
    return output, cases.write_run(output, "new", events, started=9)


def test_runs_are_listed_newest_first_with_what_can_be_done(qtbot, document, host):
    some_runs(document)
    page = shown(qtbot, RunsPage(document, host))
    scan(qtbot, page, 2)
    assert page.table.item(0, 0).text() == "new"
    assert "Ended unexpectedly at step 6" in page.ending.text()
    assert "the last state is of step 4" in page.ending.text()
    with qtbot.waitSignal(page.resume_asked) as asked:
        QTest.mouseClick(page.resume, Qt.MouseButton.LeftButton)
    assert Path(asked.args[0]).name == "demo_step_000004.pt"
    with qtbot.waitSignal(page.charts_asked) as charts:
        QTest.mouseClick(page.charts, Qt.MouseButton.LeftButton)
    assert charts.args[0].name == "new"


@pytest.mark.parametrize("width", [620, 740, 1000])
def test_what_can_be_done_with_a_run_fits_into_the_page(qtbot, document, host, width):
    some_runs(document)
    page = shown(qtbot, RunsPage(document, host), width=width, height=600)
    scan(qtbot, page, 2)
    assert page.width() == width
    for button in page.detail.findChildren(QPushButton):
        assert button.width() >= button.sizeHint().width(), button.text()


def test_without_runs_the_page_says_how_to_get_them(qtbot, document, host):
    page = shown(qtbot, RunsPage(document, host))
    qtbot.waitUntil(lambda: not page._list.isVisible(), timeout=5_000)
    assert page.empty.isVisible()


def test_a_run_elsewhere_can_be_shown(qtbot, document, host, tmp_path):
    folder = cases.write_run(tmp_path / "else", "far", [cases.begun(), *cases.steps(1, 2)])
    page = shown(qtbot, RunsPage(document, host))
    page.show_run(folder)
    scan(qtbot, page, 1)
    assert page.table.run.path == folder


def test_the_settings_of_a_run_are_taken_as_one_step(qtbot, document, host):
    _, folder = some_runs(document)
    (folder / "config.json").write_text('{"schema": 1, "training": {"seed": 7}}', encoding="utf-8")
    page = shown(qtbot, RunsPage(document, host))
    scan(qtbot, page, 2)
    before = document.overlay()
    QTest.mouseClick(page.take, Qt.MouseButton.LeftButton)
    assert document.value("training.seed") == 7
    document.undo()
    assert document.overlay() == before


# Console


def test_the_console_shows_filters_and_clears(qtbot, document, host):
    host.console.add(0.0, "info", "first <b>line</b>")
    page = shown(qtbot, ConsolePage(document, host))
    host.console.add(0.0, "warning", "careful")
    host.console.add(0.0, "error", "broken")
    host.console.add(0.0, "output", "noise")
    qtbot.waitUntil(lambda: "noise" in page.text.toPlainText(), timeout=2_000)
    assert "first <b>line</b>" in page.text.toPlainText()
    page.level.setCurrentIndex(page.level.findData("problems"))
    assert [line.split("  ")[1] for line in page.text.toPlainText().splitlines()] == [
        "careful",
        "broken",
    ]
    page.filter.setText("BROK")
    assert page.text.toPlainText().count("\n") == 0
    page.filter.clear()
    QTest.mouseClick(page.clear, Qt.MouseButton.LeftButton)
    assert page.text.toPlainText() == ""


def test_the_console_holds_a_bounded_number_of_lines(qtbot, document, host):
    page = shown(qtbot, ConsolePage(document, host))
    for number in range(8_000):
        host.console.add(0.0, "output", f"line {number}")
    page._append_new()
    assert page.text.blockCount() <= host.console.most_lines
    assert page.text.toPlainText().endswith("line 7999")


# Samples


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("run_step_000500_a cat.png", ("a cat", 500)),
        ("portrait_step_12.JPG", ("portrait", 12)),
        ("step-7.webp", ("", 7)),
        ("portrait.png", None),
        ("run_step_5.txt", None),
    ],
)
def test_a_file_name_says_prompt_and_step(name, expected):
    found = parse_name(Path(name))
    assert (found and (found.prompt, found.step)) == expected


def test_samples_are_prompts_by_steps_and_compared(qtbot, document, host, tmp_path):
    names = [f"r_step_{step}_{prompt}.png" for step in (10, 20) for prompt in ("a", "b")]
    for name in names[:3]:
        image = QImage(20, 30, QImage.Format.Format_RGB32)
        image.fill(QColor("red"))
        assert image.save(str(tmp_path / name))
    grid = grid_of(tmp_path.iterdir())
    assert (grid.prompts, grid.steps, len(grid.pictures)) == (("a", "b"), (10, 20), 3)
    page = SamplesPage(document, host)
    page._chosen = tmp_path
    shown(qtbot, page)
    model = page.view.grid_model()
    qtbot.waitUntil(lambda: model.rowCount() == 2, timeout=5_000)
    index = model.index(0, 0)
    role = Qt.ItemDataRole.DecorationRole
    qtbot.waitUntil(lambda: model.data(index, role) is not None, timeout=5_000)
    assert not page.compare.isEnabled()
    page.view.selectAll()
    page.view.selectionModel().select(
        model.index(0, 1), page.view.selectionModel().SelectionFlag.Deselect
    )
    assert [picture.prompt for picture in page.view.chosen()] == ["a", "b"]
    assert page.compare.isEnabled()


def test_without_samples_the_page_says_how_to_get_them(qtbot, document, host):
    page = shown(qtbot, SamplesPage(document, host))
    assert page.empty.isVisible()
    assert "samples folder" in page._how.text()


# Resume


def stored(**changes):
    plain = encode_config(TrainConfig())
    for path, value in changes.items():
        section, name = path.split("__")
        plain[section][name] = value
    return plain


def test_differences_that_forbid_a_resume_are_told_from_those_that_do_not():
    wanted = stored(training__seed=7, checkpoints__keep_last=9)
    wanted["optimizer"] = {"kind": "velo_rms"}
    plan = plan_resume(stored(), wanted, 10)
    assert {"training.seed", "optimizer.kind"} <= set(plan.forbidden)
    assert "checkpoints.keep_last" in plan.allowed
    assert not {"training", "optimizer"} & {*plan.forbidden, *plan.allowed}


def test_the_same_settings_go_on_at_the_same_curve():
    plan = plan_resume(stored(), {}, 1000)
    assert plan.forbidden == plan.allowed == ()
    assert plan.jump == pytest.approx(1.0, rel=0.02)
    assert not plan.ends_before


def test_another_length_moves_the_rate_and_may_end_before_the_state():
    assert plan_resume(stored(), stored(training__steps=500), 1000).ends_before
    schedule = decode_config(stored()).schedule.learning_rate
    plan = plan_resume(stored(), stored(training__steps=1100), 1000)
    assert plan.rate_after == schedule.at_step(1000, 1100)
    assert plan.rate_before == schedule.at_step(999, 2000)


def state_tickets(config, samples):
    return SegmentedPool.of(ticket_pool(decode_config(config)), samples)


@pytest.mark.parametrize(
    ("changes", "choice"),
    [
        ({}, {}),
        ({"checkpoints__keep_last": 9}, {}),
        ({"timesteps__on_resume": "finish"}, {}),
        (
            {"training__steps": 3000},
            {"rebuild": TicketsLeft(0, 2000, 1000), "finish": TicketsLeft(1000, 1000, 0)},
        ),
        (
            {"training__steps": 1500},
            {"rebuild": TicketsLeft(0, 500, 1000), "finish": TicketsLeft(500, 0, 500)},
        ),
        (
            {"timesteps__bins": 10},
            {"rebuild": TicketsLeft(0, 1000, 1000), "finish": TicketsLeft(1000, 0, 0)},
        ),
        ({"training__steps": 900}, {}),
        ({"training__epochs": 3.0}, {}),
        ({"timesteps__bins": 7}, {}),
    ],
)
def test_each_rule_says_what_the_engine_would_draw(changes, choice):
    saved = state_tickets(stored(), 2000)
    wanted = stored(**changes)
    plan = plan_resume(stored(), wanted, 1000, samples=1000, tickets=saved)
    assert plan.tickets == choice
    assert plan_resume(stored(), wanted, 1000).tickets == {}
    for rule, left in choice.items():
        after = decode_config(wanted)
        resumed = saved.resumed(1000, after.training.steps, ticket_pool(after), rule)
        assert resumed.left_of_begun(1000, after.training.steps) == left.old


def test_a_pool_longer_than_its_run_is_dealt_anew_when_that_is_chosen():
    """It was shortened to 1,500 steps and finishes the pool of 2,000 that it had begun."""
    shortened = stored(training__steps=1500, training__batch_size=1, training__accumulation_steps=1)
    saved = state_tickets(stored(), 2000)
    plan = plan_resume(shortened, shortened, 1000, samples=1000, tickets=saved)
    assert plan.tickets["rebuild"] == TicketsLeft(0, 500, 1000)
    assert plan.tickets["finish"] == TicketsLeft(500, 0, 500)


def test_a_length_in_epochs_is_judged_by_its_own():
    config = stored(training__epochs=4.0)
    saved = state_tickets(config, 400)
    longer = stored(training__epochs=6.0)
    plan = plan_resume(config, longer, 100, samples=200, tickets=saved)
    assert plan.tickets["finish"] == TicketsLeft(200, 200, 0)


def test_a_pool_drawn_to_its_end_leaves_nothing_to_choose(
    qtbot, document, tmp_path, silent_question
):
    config = stored(training__steps=10)
    wizard = wizard_for(qtbot, document, facts_of(config), tmp_path)
    assert wizard.steps.value == 15
    assert wizard.plan.tickets["finish"] == wizard.plan.tickets["rebuild"] == TicketsLeft(0, 20, 0)
    assert not wizard.tickets.isVisible()
    assert "All timestep tickets were drawn" in wizard.note.text()


@pytest.mark.parametrize(
    ("rule", "left", "words"),
    [
        ("rebuild", TicketsLeft(0, 2000, 1), "Deal anew: about 2,000 new tickets; 1 old one is"),
        ("finish", TicketsLeft(1, 2000, 0), "1 old ticket, then about 2,000 new tickets"),
        ("finish", TicketsLeft(9, 0, 0), "9 old tickets to the end; the new one never begins"),
        ("finish", TicketsLeft(9, 0, 5), "9 old tickets to the end; 5 are never drawn"),
    ],
)
def test_what_a_rule_draws_is_said_in_words(rule, left, words):
    assert words.replace(",", "") in tickets_words(rule, left).replace(",", "")


def test_files_that_moved_are_taken_from_the_document(tmp_path):
    here = tmp_path / "here.safetensors"
    here.write_text("", encoding="utf-8")
    old = stored(model__base="/gone/base.safetensors", data__folders=[{"path": "/gone"}])
    document = {"model": {"base": str(here)}, "data": {"folders": [{"path": str(tmp_path)}]}}
    assert moved_places(old, document)["model.base"] == str(here)
    settings = resumed_settings(old, document, steps=3000)
    assert [folder["path"] for folder in settings["data"]["folders"]] == [str(tmp_path)]
    assert settings["training"]["steps"] == 3000
    decode_config(settings)


@pytest.fixture
def silent_question(monkeypatch):
    monkeypatch.setattr(StateQuestion, "ask", lambda self, path: None)


def wizard_for(qtbot, document, facts, tmp_path):
    wizard = ResumeWizard(document, tmp_path / "demo_step_000010.pt")
    qtbot.addWidget(wizard)
    wizard.show()
    wizard._answered(facts)
    return wizard


def facts_of(config, step=10):
    facts = {"name": "demo", "step": step, "samples": 4 * step, "optimizer": "raven_adamw"}
    total = 4 * decode_config(config).training.steps
    return StateFacts(facts, config, tickets=state_tickets(config, total).to_json())


def test_the_wizard_asks_where_tickets_come_from_when_the_pool_has_changed(
    qtbot, document, tmp_path, silent_question
):
    wizard = wizard_for(qtbot, document, facts_of(stored()), tmp_path)
    assert not wizard.tickets.isVisible()
    wizard.steps.setText("3000")
    wizard.steps.editingFinished.emit()
    assert wizard.tickets.isVisible()
    assert wizard.tickets.value == "rebuild"
    QTest.mouseClick(wizard.tickets.options["finish"], Qt.MouseButton.LeftButton)
    assert wizard.settings()["timesteps"]["on_resume"] == "finish"
    assert wizard.plan.tickets["finish"] == TicketsLeft(7960, 4000, 0)
    document.set_values({"timesteps.bins": 10}, "bins")
    wizard.current.click()
    assert wizard.tickets.value == "finish"
    assert decode_config(wizard.settings()).timesteps.on_resume == "finish"
    document.set_values({"training.seed": 7}, "seed")
    wizard.stored.click()
    wizard.current.click()
    assert not wizard.tickets.isVisible(), "what is refused has no choice"


def test_the_wizard_draws_the_curve_before_and_after_the_state(
    qtbot, document, tmp_path, silent_question
):
    wizard = wizard_for(qtbot, document, facts_of(stored(), 1000), tmp_path)
    wizard.steps.setText("3000")
    wizard.steps.editingFinished.emit()
    schedule = decode_config(stored()).schedule.learning_rate
    drawn = wizard.curve.rates.at(np.array([1.0, 1000.0, 1001.0, 3000.0])).tolist()
    places = [(0, 2000), (999, 2000), (1000, 3000), (2999, 3000)]
    assert drawn == [schedule.at_step(*place) for place in places]
    assert wizard.curve.isVisible()
    assert not wizard.curve.grab().isNull()
    document.set_values({"training.epochs": 3.0}, "epochs")
    wizard.current.click()
    assert not wizard.curve.isVisible(), "a length in epochs has no steps to draw over"
    wizard.curve.show_rates(PlannedRates((PlannedPart(0, 1, schedule),)), 1)
    assert not wizard.curve.grab().isNull()


@pytest.mark.parametrize("size", [(780, 740), (780, 400), (520, 300)])
def test_no_word_of_the_wizard_is_cut_off_however_small_it_is(
    qtbot, document, tmp_path, silent_question, size
):
    gone = stored(model__base="/gone/base.safetensors", output__folder="/gone")
    document.set_values({"model.base": "/here/base.safetensors", "timesteps.bins": 10}, "x")
    wizard = wizard_for(qtbot, document, facts_of(gone), tmp_path)
    # At once, before anything was painted, and after it was made smaller.
    for _ in range(2):
        for label in wizard.findChildren(TonedLabel):
            if label.isVisible():
                assert label.height() >= label.heightForWidth(label.width()), label.text()
        wizard.resize(*size)
        qtbot.waitUntil(lambda: wizard.size().toTuple() == size)
        QTest.qWait(0)


def test_the_wizard_goes_on_with_the_stored_settings_unless_told(
    qtbot, document, tmp_path, silent_question
):
    document.set_values({"training.seed": 7}, "seed")
    wizard = wizard_for(qtbot, document, facts_of(stored()), tmp_path)
    assert wizard.stored.isChecked()
    assert wizard.resume.isEnabled()
    assert wizard.settings()["training"]["seed"] == 42
    wizard.current.click()
    assert not wizard.resume.isEnabled()
    assert "must match" in wizard.note.text()
    assert wizard.table.item(0, 3).text() == "must match"
    wizard.stored.click()
    assert wizard.resume.isEnabled()


def test_a_finished_run_goes_on_with_more_steps(qtbot, document, tmp_path, silent_question):
    config = stored(training__steps=10)
    wizard = wizard_for(qtbot, document, facts_of(config), tmp_path)
    assert wizard.steps.minimum == 11
    assert wizard.steps.value == 15
    wizard.steps.clear()
    QTest.keyClicks(wizard.steps, "9")
    wizard.steps.editingFinished.emit()
    assert not wizard.steps.is_valid
    assert wizard.steps.value == 15
    wizard.steps.setText("25")
    wizard.steps.editingFinished.emit()
    assert wizard.settings()["training"]["steps"] == 25
    assert decode_config(wizard.settings()).training.steps == 25


def test_an_unreadable_state_is_refused_in_the_engines_words(
    qtbot, document, tmp_path, silent_question
):
    problem = parse_answer("", "Error: x.pt: is not a training state\n").problem
    wizard = wizard_for(qtbot, document, StateFacts({}, {}, problem), tmp_path)
    assert "is not a training state" in wizard.message.text()
    assert not wizard.resume.isEnabled()


def test_the_state_is_read_by_a_child(qtbot, tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(b"nothing")
    question = StateQuestion()
    with qtbot.waitSignal(question.answered, timeout=60_000) as answer:
        question.ask(path)
    assert "x.pt" in answer.args[0].problem


def test_an_accepted_wizard_starts_the_run(qtbot, document, tmp_path, silent_question, monkeypatch):
    started = []

    class FakeHost:
        def start(self, config, *, resume=""):
            started.append((config["training"]["seed"], resume))
            return True

    def answer(self):
        self._answered(facts_of(stored()))
        return 1

    monkeypatch.setattr(resume_wizard.ResumeWizard, "exec", answer)
    state = tmp_path / "s.pt"
    assert resume_wizard.resume_with_wizard(document, FakeHost(), state)
    assert started == [(42, str(state))]


def test_an_accepted_resume_that_cannot_start_says_why(
    qtbot, document, tmp_path, silent_question, monkeypatch
):
    class BusyHost:
        hindrance = "The last run is still ending."

        def start(self, config, *, resume=""):
            return False

    def answer(self):
        self._answered(facts_of(stored()))
        return 1

    said = []
    monkeypatch.setattr(resume_wizard.ResumeWizard, "exec", answer)
    monkeypatch.setattr(resume_wizard, "warn", lambda parent, *words: said.append(words))
    assert not resume_wizard.resume_with_wizard(document, BusyHost(), tmp_path / "s.pt")
    assert said == [("The run cannot be resumed now", BusyHost.hindrance)]


# Desktop


class Fakes:
    def __init__(self):
        self.calls = []

    def block(self):
        self.calls.append("block")

    def release(self):
        self.calls.append("release")

    def show(self, look, share):
        self.calls.append((look, share))

    def announce(self, title, text):
        self.calls.append((title, text))


def test_the_desktop_follows_a_run(qtbot, host):
    window = QWidget()
    qtbot.addWidget(window)
    fakes = Fakes()
    link = DesktopLink(host, window, blocker=fakes, bar=fakes, announcer=fakes)
    status = advance(host.status, StartRequested())
    host.status_changed.emit(status)
    status = advance(advance(status, cases.begun()), cases.step_event(5, 20))
    host.status_changed.emit(status)
    status = advance(status, EngineEnded(message="killed"))
    host.status_changed.emit(status)
    host.ended.emit(status)
    assert status.state is RunState.FAILED
    assert fakes.calls == [
        "block",
        ("unknown", 0.0),
        ("normal", 0.25),
        "release",
        ("error", 0.25),
        ("Training failed", "killed"),
    ]
    fakes.calls.clear()
    link.set_wishes(keeps_awake=False, notifies=False)
    fakes.calls.clear()
    host.status_changed.emit(advance(host.status, StartRequested()))
    host.ended.emit(host.status)
    assert [call[0] for call in fakes.calls] == ["unknown", "none"]


def test_every_state_has_a_look_in_the_taskbar():
    for state in RunState:
        status = advance(EngineHost().status, StartRequested())
        assert progress_state(look_of(type(status)(state=state))) in (0, 1, 2, 4, 8)


def test_the_numbers_for_windows_are_those_of_its_headers():
    guid = Guid.of("{56FDF344-FD6D-11D0-958A-006097C9A090}")
    assert (guid.data1, guid.data2, guid.data3) == (0x56FDF344, 0xFD6D, 0x11D0)
    assert bytes(guid.data4) == bytes.fromhex("958A006097C9A090")
    assert sys.getsizeof(guid) > 0
