"""Twelve things somebody new to the program does, each by mouse and by keyboard alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import QEvent, QMimeData, QPoint, QPointF, Qt, QTimer, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QLineEdit, QMenu, QScrollArea

from aozora.config.targeting import select_targets
from aozora.events import CheckpointSaved, RunStarted
from gui import theme
from gui.app import open_window
from gui.editors.lr_chart import LrChart
from gui.editors.ticket_chart import TicketChart
from gui.editors.unet_shapes import unet_shapes
from gui.engine.host import EngineHost
from gui.engine.states import RunState
from gui.pages import runs as runs_page
from gui.pages.preset_cards import PresetCard
from gui.preferences import PreferenceKeeper
from gui.shell import window as window_module
from gui.shell.estimate import Estimate
from gui.shell.rail import RailEntry
from gui.shell.run_bar import StateChip
from tests.gui import test_history as cases
from tests.gui.fake_engine import step_event
from tests.gui.shell_fakes import FakeBody, FakeDialogs

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")

LEFT = Qt.MouseButton.LeftButton
MOST_TABS = 120


class Mouse:
    """Hands that only use the mouse; every click goes to the window, which finds its target."""

    name = "mouse"

    def __init__(self, window):
        self.window = window
        self.actions = 0

    def _aim(self, widget, place):
        above = widget.parentWidget()
        while above is not None:
            if isinstance(above, QScrollArea):
                above.ensureWidgetVisible(widget)
            above = above.parentWidget()
        QApplication.processEvents()
        place = widget.rect().center() if place is None else place
        assert widget.visibleRegion().contains(place), "the place cannot be seen"
        return widget.mapTo(widget.window(), place)

    def press(self, widget, place=None):
        """Click a widget."""
        self.actions += 1
        QTest.mouseClick(widget.window().windowHandle(), LEFT, pos=self._aim(widget, place))

    def drag(self, widget, *places):
        """Press, move through ``places``, let go."""
        self.actions += 1
        aimed = [self._aim(widget, place.toPoint()) for place in places]
        handle = widget.window().windowHandle()
        QTest.mousePress(handle, LEFT, pos=aimed[0])
        for place in aimed[1:]:
            QTest.mouseMove(handle, place)
        QTest.mouseRelease(handle, LEFT, pos=aimed[-1])

    def choose(self, button, text):
        """Open the menu of a button and click what is called ``text``."""

        def click(menu):
            (action,) = [a for a in menu.actions() if a.text() == text]
            QTest.mouseClick(menu, LEFT, pos=menu.actionGeometry(action).center())

        _with_menu(lambda: self.press(button), click)

    def open(self, key):
        """Open a page."""
        entries = self.window.rail.findChildren(RailEntry)
        self.press(*[entry for entry in entries if entry.spec.key == key])
        return _settled(self.window, key)

    def drop(self, path):
        """Drag a file or folder from the file manager onto the window."""
        self.actions += 1
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(path))])
        place = self.window.rect().center()
        how = (Qt.DropAction.CopyAction, data, LEFT, Qt.KeyboardModifier.NoModifier)
        entering = QDragEnterEvent(place, *how)
        QApplication.sendEvent(self.window, entering)
        assert entering.isAccepted()
        QApplication.sendEvent(self.window, QDropEvent(QPointF(place), *how))


class Keys:
    """Hands that only use the keyboard; keys go to whatever has the focus."""

    name = "keys"

    def __init__(self, window):
        self.window = window
        self.actions = 0

    def key(self, key, held=Qt.KeyboardModifier.NoModifier, times=1):
        """Press a key."""
        for _ in range(times):
            QTest.keyClick(QApplication.focusWidget() or self.window, key, held)

    def reach(self, is_wanted):
        """Press Tab until a wanted widget has the focus."""
        for _ in range(MOST_TABS):
            focus = QApplication.focusWidget()
            if focus is not None and is_wanted(focus):
                return focus
            self.key(Qt.Key.Key_Tab)
        raise AssertionError("Tab does not lead there")

    def press(self, widget):
        """Go to a button and press Space."""
        self.actions += 1
        self.reach(lambda focus: focus is widget)
        self.key(Qt.Key.Key_Space)

    def write(self, name, text):
        """Go to a line, replace what is there, press Enter."""
        self.actions += 1
        line = self.reach(lambda w: isinstance(w, QLineEdit) and w.accessibleName() == name)
        self.key(Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
        QTest.keyClicks(line, text)
        self.key(Qt.Key.Key_Return)

    def choose(self, button, text):
        """Open the menu of a button with Space, go to ``text`` and press Enter."""

        def walk(menu):
            for _ in menu.actions():
                QTest.keyClick(menu, Qt.Key.Key_Down)
                if menu.activeAction().text() == text:
                    break
            QTest.keyClick(menu, Qt.Key.Key_Return)

        _with_menu(lambda: self.press(button), walk)

    def open(self, key):
        """Open a page: by its number, or by its name in the search."""
        keys = [entry.spec.key for entry in self.window.rail.findChildren(RailEntry)]
        number = keys.index(key) + 1
        if number <= 9:
            self.key(Qt.Key(int(Qt.Key.Key_0) + number), Qt.KeyboardModifier.ControlModifier)
        else:
            (entry,) = [e for e in self.window.rail.findChildren(RailEntry) if e.spec.key == key]
            self.key(Qt.Key.Key_K, Qt.KeyboardModifier.ControlModifier)
            QTest.keyClicks(QApplication.focusWidget(), entry.text())
            self.key(Qt.Key.Key_Return)
        return _settled(self.window, key)


def _with_menu(open_it, use_it):
    """Open a menu and use it; whether opening returns before it is closed depends on Qt."""
    done = []

    def look():
        menu = QApplication.activePopupWidget()
        if isinstance(menu, QMenu):
            timer.stop()
            use_it(menu)
            done.append(menu)

    timer = QTimer()
    timer.timeout.connect(look)
    timer.start(10)
    open_it()
    for _ in range(100):
        if done:
            return
        QTest.qWait(20)
    raise AssertionError("no menu opened")


def _settled(window, key):
    assert window.pages.current == key
    QTest.qWait(30)  # the page gets its layout
    return window.pages.page(key)


@pytest.fixture
def bodies():
    return []


@pytest.fixture
def window(qtbot, qapp, tmp_path, monkeypatch, bodies):
    theme.apply(qapp, "dark")
    folder = tmp_path / "output" / "runs" / "demo"
    events = [
        RunStarted(run_id="r", folder=str(folder)),
        *[step_event(step, 20) for step in range(1, 6)],
    ]

    def body(job, mode):
        bodies.append(FakeBody(job, mode, events))
        return bodies[-1]

    monkeypatch.setattr(
        window_module, "EngineHost", lambda parent, mode: EngineHost(parent, make_body=body)
    )
    monkeypatch.setattr(window_module, "QtDialogs", lambda parent: FakeDialogs())
    window = open_window(PreferenceKeeper(tmp_path / "w.json"), [])
    window.dialogs.answers.update(unsaved="discard", stopping="save")
    window.checker.pause(True)
    window.show()
    qtbot.waitUntil(window.isActiveWindow)
    yield window
    for made in bodies:
        made.over.set()
    window.host.wait(5)
    window.close()
    qapp.processEvents()
    window.deleteLater()
    qapp.sendPostedEvents(None, QEvent.Type.DeferredDelete)


@pytest.fixture(params=[Mouse, Keys], ids=["mouse", "keys"])
def hands(request, window):
    return request.param(window)


@pytest.fixture
def inputs(tmp_path):
    """A model file and a folder of pictures that look like ones."""
    model = tmp_path / "base.safetensors"
    model.write_bytes(b"model")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "one.png").write_bytes(b"picture")
    return model, pictures


def prepare(window, inputs):
    """Fill in what a run needs, for tasks that come later."""
    model, pictures = inputs
    settings = {"model.base": str(model), "data.folders": [{"path": str(pictures)}]}
    output = str(Path(model).parent / "output")
    window.document.set_values(settings | {"output.folder": output}, "inputs")


def take_inputs(window, hands, inputs):
    model, pictures = inputs
    if hands.name == "mouse":
        hands.drop(model)
        hands.drop(pictures)
    else:
        hands.write("Base model", str(model))
        hands.write("Folder with pictures", str(pictures))


def take_preset(window, hands, name):
    page = window.pages.page("start")
    (card,) = [c for c in page.findChildren(PresetCard) if c.preset.name == name]
    hands.press(card)


def start(window, hands):
    if hands.name == "mouse":
        hands.press(window.bar.train)
    else:
        hands.actions += 1
        hands.key(Qt.Key.Key_F5)


def test_1_open_the_program(window, hands):
    assert window.isVisible()
    assert window.pages.current == "start"
    hands.open("model")
    hands.open("start")


def test_2_load_a_preset(window, hands):
    take_preset(window, hands, "sdxl-8gb")
    assert window.document.origin.name == "sdxl-8gb"
    assert window.document.overlay()["training"]


def test_3_choose_model_and_pictures(window, hands, inputs):
    take_inputs(window, hands, inputs)
    assert window.document.value("model.base") == str(inputs[0])
    assert [f["path"] for f in window.document.value("data.folders")] == [str(inputs[1])]
    assert window.document.problems() == ()


def test_4_draw_a_longer_warm_up(window, hands):
    chart = hands.open("schedule").editor.chart
    before = chart.schedule.points[1].x
    if hands.name == "mouse":
        place = chart.point_position(1)
        hands.drag(chart, place, place + QPointF(40, 0), place + QPointF(80, 0))
    else:
        hands.reach(lambda focus: isinstance(focus, LrChart))
        hands.key(Qt.Key.Key_Home)
        hands.key(Qt.Key.Key_BracketRight)
        hands.key(Qt.Key.Key_Right, Qt.KeyboardModifier.ShiftModifier, times=3)
    points = window.document.value("schedule.learning_rate")
    assert points[1][0] > before
    assert len(points) == 4


def test_5_favour_the_middle_timesteps(window, hands):
    chart = hands.open("timesteps").editor.chart
    if hands.name == "mouse":
        axes = chart.axes()
        high = axes.highest * 0.9
        middle = [
            QPointF(axes.bar_left(bar) + axes.bar_width / 2, axes.to_py(high))
            for bar in range(8, 12)
        ]
        hands.drag(chart, *middle)
    else:
        hands.reach(lambda focus: isinstance(focus, TicketChart))
        hands.key(Qt.Key.Key_Home)
        hands.key(Qt.Key.Key_Right, times=8)
        hands.key(Qt.Key.Key_Right, Qt.KeyboardModifier.ShiftModifier, times=3)
        hands.key(Qt.Key.Key_Up, Qt.KeyboardModifier.ShiftModifier)
    weights = window.document.value("timesteps.distribution.weights")
    assert min(weights[8:12]) > max(*weights[:8], *weights[12:])


def test_6_train_only_attention(window, hands):
    page = hands.open("layers")
    rows = [page.kinds.model().index(row, 0) for row in range(page.kinds.model().rowCount())]
    attention = [index for index in rows if "attention" in str(index.data()).lower()]
    # Nothing first, then what is wanted.
    boxes = [(page.tree, page.tree.model().index(0, 0)), *[(page.kinds, i) for i in attention]]
    for tree, index in boxes:
        if hands.name == "mouse":
            place = tree.visualRect(index)
            hands.press(tree.viewport(), QPoint(place.left() + 10, place.center().y()))
        else:
            hands.reach(lambda focus, tree=tree: focus is tree)
            hands.key(Qt.Key.Key_Home)
            hands.key(Qt.Key.Key_Down, times=index.row())
            hands.key(Qt.Key.Key_Space)
    targets = window.document.decoded().targets
    chosen = select_targets(
        unet_shapes(),
        layers=targets.layers,
        blocks=targets.blocks,
        include=targets.include,
        exclude=targets.exclude,
    )
    wanted = [name for name in unet_shapes() if ".attn1." in name or ".attn2." in name]
    assert sorted(chosen.names) == sorted(wanted)


def test_7_see_whether_it_fits(window, hands, inputs):
    prepare(window, inputs)
    memory = {"vram_bytes": 10 * 2**30, "ram_bytes": 8 * 2**30, "step_seconds": 1.0}
    window.checker._estimate = Estimate(summary={"total_steps": 20, "memory": memory})
    window.checker.changed.emit()
    if hands.name == "mouse":
        hands.press(window.bar.chip)
    else:
        chip = hands.reach(lambda focus: isinstance(focus, StateChip))
        hands.press(chip)
    assert window.preflight.isVisible()


def test_8_start(window, hands, inputs, bodies):
    prepare(window, inputs)
    start(window, hands)
    (body,) = bodies
    assert body.job.config["model"]["base"] == str(inputs[0])


def test_9_watch(window, hands, inputs, qtbot):
    prepare(window, inputs)
    start(window, hands)
    qtbot.waitUntil(lambda: window.host.status.step == 5)
    hands.open("model")
    page = hands.open("run")
    assert len(page.group.history.steps) == 5
    assert window.bar.progress_text.text().startswith("step 5 / 20")


def test_10_stop_and_save(window, hands, inputs, qtbot, bodies):
    prepare(window, inputs)
    start(window, hands)
    qtbot.waitUntil(lambda: window.host.status.can_stop)
    hands.choose(window.bar.stop, "Save and stop")
    assert bodies[0].commands == ["stop_and_save"]
    qtbot.waitUntil(lambda: not window.host.status.is_engine_alive)


def test_11_resume(window, hands, inputs, bodies):
    prepare(window, inputs)
    hands.choose(window.bar.resume, "Last state of this output")
    (body,) = bodies
    assert body.job.resume == "last"


def test_12_find_the_file(window, hands, inputs, tmp_path, qtbot, monkeypatch):
    prepare(window, inputs)
    folder = write_finished_run(tmp_path / "output")
    opened = []
    monkeypatch.setattr(
        runs_page.QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile())
    )
    page = hands.open("runs")
    qtbot.waitUntil(lambda: page.table.run is not None)
    hands.press(page.folder)
    assert opened == [str(folder)]


def write_finished_run(output):
    saved = CheckpointSaved(step=2, model="m", state="s", bytes=1, seconds=0.1, removed=[])
    return cases.write_run(output, "demo", [cases.begun(), *cases.steps(1, 2), saved])


def test_from_preset_to_train_in_four_actions(window, hands, inputs, bodies):
    take_preset(window, hands, "smoke-test")
    take_inputs(window, hands, inputs)
    start(window, hands)
    assert hands.actions <= 4
    assert bodies[0].job.config["training"]["steps"] == 20
    assert window.host.status.state is not RunState.FAILED
