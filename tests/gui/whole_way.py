"""A person at the real window, from an empty one to a resumed run.

    python whole_way.py PLAN.json

The program starts as ``python -m gui`` does; mouse and keys go to the window as the system would
send them, so that whatever lies in the way of a click gets it. What was seen is written down for
`test_whole_way.py`.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from PySide6.QtCore import QMimeData, QObject, QPoint, QPointF, Qt, QTimer, QUrl, Slot
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QComboBox, QLineEdit, QMessageBox, QScrollArea

import gui.__main__ as program
import gui.app
from gui import theme
from gui.engine.resume_wizard import ResumeWizard
from gui.engine.states import RunState
from gui.engine.wire import plain_of
from gui.shell.rail import RailEntry

LEFT = Qt.MouseButton.LeftButton
PATIENCE_SECONDS = 60.0
CHARTS = ("loss", "learning_rate", "gradient_norm", "memory")


@dataclass(frozen=True)
class Until:
    """What the person waits for before going on."""

    what: str
    is_so: object


class Person(QObject):
    """Does one thing after the other, and waits where a person would."""

    def __init__(self, window, plan):
        super().__init__(window)
        self.window, self.plan = window, plan
        self.pictures = Path(plan["pictures"])
        self.seen = {"events": [[], []], "run": 0, "charts": {}}
        self._steps = self.whole_way()
        self._until = None
        self._asked_at = time.monotonic()
        self._is_busy = False
        window.host.reported.connect(self._listen)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._tick)
        self._timer.start(20)

    @Slot(object)
    def _listen(self, batch):
        events = self.seen["events"][self.seen["run"]]
        events += [[type(a.event).__name__, plain_of(a.event)] for a in batch]

    @Slot()
    def _tick(self):
        # A click lets Qt work, and with it this timer.
        if self._is_busy:
            return
        self._is_busy = True
        try:
            if self._until is not None and not self._until.is_so():
                if time.monotonic() - self._asked_at > PATIENCE_SECONDS:
                    raise TimeoutError(self._until.what)  # noqa: TRY301 - reported below
                return
            self._until = next(self._steps)
            self._asked_at = time.monotonic()
        except StopIteration:
            self._go("")
        except Exception:  # noqa: BLE001 - the test shows whatever it was
            self._go(traceback.format_exc())
        finally:
            self._is_busy = False

    @Slot()
    def _end(self):
        if self._timer.isActive():
            self._go("" if not self.window.isVisible() else "the window is still there")

    def _go(self, fault):
        self._timer.stop()
        self.seen["fault"] = fault
        if fault:
            self.picture("fault")
        Path(self.plan["seen"]).write_text(json.dumps(self.seen), encoding="utf-8")
        QApplication.exit(1 if fault else 0)

    # Hands and eyes

    def picture(self, name):
        """Photograph the screen, or the window where there is no screen."""
        self.pictures.mkdir(parents=True, exist_ok=True)
        is_real = QApplication.platformName() == "xcb"
        shown = QApplication.activeModalWidget() or self.window
        shot = shown.screen().grabWindow(0) if is_real else shown.grab()
        assert shot.save(str(self.pictures / f"{self.plan['host']}-{name}.png"))

    def click(self, widget, place=None):
        """Click where ``widget`` is, scrolling there first as a person would."""
        handle, place = self._aim(widget, place)
        QTest.mouseClick(handle, LEFT, pos=place)

    def _aim(self, widget, place=None):
        above = widget.parentWidget()
        while above is not None:
            if isinstance(above, QScrollArea):
                above.ensureWidgetVisible(widget)
            above = above.parentWidget()
        QApplication.processEvents()
        place = widget.rect().center() if place is None else place
        return widget.window().windowHandle(), widget.mapTo(widget.window(), place)

    def drag(self, widget, *places):
        """Press, move through ``places`` and let go."""
        aimed = [self._aim(widget, place.toPoint())[1] for place in places]
        handle = widget.window().windowHandle()
        QTest.mousePress(handle, LEFT, pos=aimed[0])
        for start, end in pairwise(aimed):
            for part in (0.25, 0.5, 0.75, 1.0):
                QTest.mouseMove(handle, start + (end - start) * part)
        QTest.mouseRelease(handle, LEFT, pos=aimed[-1])

    def write(self, field, text):
        """Click into a line, type ``text`` in place of what is there, and press Enter."""
        self.click(field)
        assert QApplication.focusWidget() is field, f"a click into {field.accessibleName()!r}"
        field.selectAll()
        QTest.keyClicks(field, text)
        QTest.keyClick(field, Qt.Key.Key_Return)

    def open(self, key):
        """Open a page by its entry in the rail; return it."""
        entries = self.window.rail.findChildren(RailEntry)
        (entry,) = [e for e in entries if e.spec.key == key]
        self.click(entry)
        assert self.window.pages.current == key
        return self.window.pages.page(key)

    def named(self, kind, page, name):
        """Return the one widget of ``kind`` on ``page`` that is called ``name``."""
        (found,) = [w for w in page.findChildren(kind) if w.accessibleName() == name]
        return found

    # The way

    def whole_way(self):
        """Yield what to wait for."""
        window = self.window
        yield Until("the window shows", lambda: window.isVisible() and window.windowHandle())
        window.activateWindow()
        yield Until("the window can be used", window.isActiveWindow)
        self.picture("1-start")
        self.choose_host()
        self.fill_start()
        yield from self.turn_to("schedule")
        self.draw_curve()
        yield from self.turn_to("timesteps")
        self.paint_bars()
        yield from self.turn_to("run")
        self.picture("5-before")
        self.click(window.bar.train)
        yield from self.run_to_finished("6-finished")
        self.seen["run"] = 1
        self.seen["first_folder"] = window.host.status.folder
        (saved,) = self.states()
        QTimer.singleShot(0, lambda: self.drop(saved))
        yield Until("the state is read", lambda: self.wizard() and self.wizard().plan is not None)
        yield from self.look()
        self.picture("7-resume")
        wizard = self.wizard()
        self.seen["resumed_steps"] = wizard.steps.value
        QTimer.singleShot(0, lambda: self.click(wizard.resume))
        yield Until("the run goes on", lambda: window.host.status.is_active)
        yield from self.run_to_finished("8-resumed")
        for key in ("schedule", "timesteps", "console", "runs"):
            yield from self.turn_to(key)
            self.picture(f"9-{key}")
        yield from self.leave()

    def turn_to(self, key):
        """Open a page and look at it."""
        self.open(key)
        yield from self.look()

    def look(self):
        """Wait a moment, in which what is new gets its layout, its content and its place."""
        moment = time.monotonic()
        yield Until("a moment", lambda: time.monotonic() - moment > 0.3)

    def choose_host(self):
        page = self.open("preferences")
        box = self.named(QComboBox, page, "Engine")
        box.setFocus()
        key = Qt.Key.Key_Down if self.plan["host"] == "thread" else Qt.Key.Key_Up
        QTest.keyClick(box, key)
        assert self.window.host.mode == self.plan["host"]

    def fill_start(self):
        page = self.open("start")
        (card,) = [c for c in page.presets.cards if c.preset.name == self.plan["preset"]]
        self.click(card)
        assert self.window.document.origin.name == self.plan["preset"]
        for name, text in self.plan["fields"].items():
            self.write(self.named(QLineEdit, page, name), text)
        self.picture("2-filled")
        assert self.window.document.problems() == ()

    def draw_curve(self):
        chart = self.window.pages.page("schedule").editor.chart
        before = chart.schedule
        start = chart.point_position(2)
        self.drag(chart, start, start + QPointF(-60.0, 30.0), start + QPointF(-90.0, 55.0))
        assert chart.schedule != before, "the point was not dragged"
        total = self.plan["steps"]
        self.seen["drawn_rates"] = [chart.schedule.at_step(n, total) for n in range(total)]
        self.seen["preset_rates"] = [before.at_step(n, total) for n in range(total)]
        longer = self.plan["resumed_steps"]
        self.seen["drawn_longer"] = [chart.schedule.at_step(n, longer) for n in range(longer)]
        self.picture("3-curve")

    def paint_bars(self):
        chart = self.window.pages.page("timesteps").editor.chart
        axes = chart.axes()

        def place(bar, weight):
            return QPointF(axes.bar_left(bar) + axes.bar_width / 2, axes.to_py(weight))

        before = chart.view.weights
        high = axes.highest
        self.drag(chart, place(2, 0.0), place(6, high * 0.4), place(12, high * 0.9))
        assert chart.view.weights != before, "no bar was painted"
        self.seen["drawn_counts"] = list(chart.view.counts())
        self.picture("4-tickets")

    def run_to_finished(self, name):
        window = self.window
        yield Until("the engine is gone", lambda: not window.host.status.is_engine_alive)
        assert window.host.status.state is RunState.FINISHED, window.host.status.message
        page = window.pages.page("run")
        assert window.pages.current == "run"
        keeper = window.host.keeper
        done = self.plan["resumed_steps" if self.seen["run"] else "steps"]
        yield Until("all steps are in the charts", lambda: len(keeper.history.steps) == done)
        charts = {key: page.group.chart(key) for key in CHARTS}
        charts["timesteps"] = page.group.timesteps
        for part, share in (("", 0.0), ("-middle", 0.5), ("-lower", 1.0)):
            bar = page.verticalScrollBar()
            bar.setValue(round(share * bar.maximum()))
            yield from self.look()
            self.picture(f"{name}{part}")
            for key in [key for key, chart in charts.items() if is_in_sight(chart)]:
                self.seen["charts"].setdefault(key, []).append(coloured(charts.pop(key)))
        assert not charts, "charts that cannot be scrolled to"
        self.seen.setdefault("state_words", []).append(window.bar.chip.text())
        self.seen.setdefault("progress_words", []).append(window.bar.progress_text.text())

    def states(self):
        folder = Path(self.plan["fields"]["Output folder"], "checkpoints")
        return list(folder.glob("*.pt"))

    def drop(self, path):
        """Drag a file onto the window and drop it there."""
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(path))])
        place = self.window.rect().center()
        how = (Qt.DropAction.CopyAction, data, LEFT, Qt.KeyboardModifier.NoModifier)
        entering = QDragEnterEvent(place, *how)
        QApplication.sendEvent(self.window, entering)
        assert entering.isAccepted()
        QApplication.sendEvent(self.window, QDropEvent(QPointF(place), *how))

    def wizard(self):
        found = QApplication.activeModalWidget()
        return found if isinstance(found, ResumeWizard) else None

    def leave(self):
        """Close the window, and say that the changes need not be kept."""
        self.seen["is_dirty"] = self.window.document.is_dirty
        QTimer.singleShot(0, self.window.close)
        yield Until("it asks", lambda: isinstance(QApplication.activeModalWidget(), QMessageBox))
        box = QApplication.activeModalWidget()
        (discard,) = [b for b in box.buttons() if b.text() == "Discard"]
        yield from self.look()
        self.picture("9-leave")
        # With its last window the program ends, maybe before this timer's next turn.
        QApplication.instance().aboutToQuit.connect(self._end)
        QTimer.singleShot(0, lambda: self.click(discard))
        yield Until("the window is closed", lambda: not self.window.isVisible())


def is_in_sight(chart):
    """Return whether most of a chart can be seen."""
    return chart.visibleRegion().boundingRect().height() > 0.8 * chart.height()


def coloured(chart):
    """Count the points of a chart that have a colour of their own: neither paper nor ink."""
    picture = chart.grab().toImage()
    plain = {getattr(theme.tokens(), name) for name in ("base", "text", "muted", "border")}
    found = Counter()
    for y in range(40, picture.height() - 30, 2):
        for x in range(60, picture.width() - 10, 2):
            found[picture.pixelColor(QPoint(x, y)).name()] += 1
    series = [n for name, n in found.items() if name not in plain and is_vivid(name)]
    return sum(series)


def is_vivid(name):
    red, green, blue = (int(name[i : i + 2], 16) for i in (1, 3, 5))
    return max(red, green, blue) - min(red, green, blue) > 60


def main():
    """Start the program with a person before it; return the exit code."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    make = gui.app.open_window

    def open_window(preferences, paths):
        window = make(preferences, paths)
        Person(window, plan)
        return window

    gui.app.open_window = open_window
    return program.main([])


if __name__ == "__main__":
    sys.exit(main())
