"""Finds text that is cut off; as a program, goes through the whole window in long words.

    python -m tests.gui.clipping [WIDTH ...]

Every page, panel and dialog is shown in each theme and width, in a language whose words are as long
as German ones; what is cut off is written as a JSON list. The scale is QT_SCALE_FACTOR's.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from pathlib import Path

from PySide6.QtCore import QTranslator
from PySide6.QtWidgets import (
    QAbstractButton,
    QComboBox,
    QHeaderView,
    QLabel,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QWidget,
)

from gui.shell.rail import RailEntry

KINDS = (QLabel, QAbstractButton, QComboBox, QLineEdit, QHeaderView)
# What a combo box and a line edit keep free around their text.
COMBO_MARGIN, LINE_MARGIN = 38, 18


class LongWords(QTranslator):
    """A language with every vowel twice: about a third longer, and still readable."""

    def translate(self, context, text, disambiguation=None, n=-1):
        parts = re.split(r"(\{[^}]*\})", text)
        return "".join(p if p.startswith("{") else re.sub("([aeiou])", r"\1\1", p) for p in parts)


def cut(widget):
    """Return what is cut off of ``widget``'s text, as words; empty when nothing is."""
    metrics, width = widget.fontMetrics(), widget.width()
    if isinstance(widget, QLabel):
        if not widget.text() or widget.wordWrap():
            needed = widget.heightForWidth(width) if widget.text() else 0
            return f"needs {needed} of height" if needed > widget.height() + 1 else ""
        room = widget.contentsRect().width()
        text = widget.text().replace("&", "") if widget.buddy() else widget.text()
        needed = max(map(metrics.horizontalAdvance, text.splitlines()))
        return f"needs {needed} of {room}" if needed > room + 1 else ""
    if isinstance(widget, QComboBox):
        needed = metrics.horizontalAdvance(widget.currentText()) + COMBO_MARGIN
        return f"needs {needed} of {width}" if needed > width else ""
    if isinstance(widget, QLineEdit):
        # What is typed may be longer; what invites to type may not.
        needed = metrics.horizontalAdvance(widget.placeholderText()) + LINE_MARGIN
        return f"needs {needed} of {width}" if needed > width else ""
    if isinstance(widget, QHeaderView):
        return _cut_titles(widget)
    if isinstance(widget, RailEntry):
        needed = widget.sizeHint().width()
        return "" if widget.is_narrow or needed <= width else f"needs {needed} of {width}"
    if isinstance(widget, QPushButton):
        # With its icon and what the style keeps free.
        needed = widget.sizeHint().width()
    else:
        needed = metrics.horizontalAdvance(widget.text().replace("&", ""))
    return f"needs {needed} of {width}" if needed > width else ""


def _cut_titles(header):
    model = header.model()
    if model is None or header.orientation().name == "Vertical":
        return ""
    for section in range(header.count()):
        title = str(model.headerData(section, header.orientation()) or "")
        needed = header.fontMetrics().horizontalAdvance(title) + 16
        if not header.isSectionHidden(section) and needed > header.sectionSize(section) + 1:
            return f"title {title!r} needs {needed} of {header.sectionSize(section)}"
    return ""


def faults(root):
    """Return what is cut off of the texts that are seen in ``root``."""
    found = []
    for widget in (widget for kind in KINDS for widget in root.findChildren(kind)):
        fault = cut(widget) if widget.isVisible() else ""
        if fault:
            words = widget.currentText() if isinstance(widget, QComboBox) else _words(widget)
            found.append(f"{words!r} {fault}")
    return sorted(set(found))


def _words(widget):
    if isinstance(widget, QLineEdit):
        return widget.placeholderText()
    return "" if isinstance(widget, QHeaderView) else widget.text()


class Walk:
    """Goes through a window in every theme and width."""

    def __init__(self, app, window):
        self.app, self.window = app, window
        self.found = set()

    def look(self, place, root):
        """Note what is cut off in ``root``, which is seen."""
        self.app.processEvents()
        for _ in range(9):
            # Rows that fold and texts that wrap find their places one after the other.
            if faults(root):
                self.app.processEvents()
        self.found.update(f"{place}: {fault}" for fault in faults(root))

    def wait(self, is_so):
        """Wait until something is so."""
        end = time.monotonic() + 20
        while not is_so() and time.monotonic() < end:
            self.app.processEvents()
        assert is_so()

    def pages(self, width):
        """Look at every page."""
        from gui.shell.page_list import page_specs

        self.window.resize(width, 800)
        for spec in page_specs():
            self.window.show_page(spec.key)
            page = self.window.pages.page(spec.key)
            while getattr(page, "is_busy", False):
                self.app.processEvents()
            self.look(f"{spec.key} at {width}", self.window)

    def panels(self):
        """Look at what stands over the pages or above them."""
        notices = self.window.notices
        notices.recovery.found.emit(lost_run())
        self.look("banner", notices.about_session)
        notices.about_session.hide()
        self.window.preflight.toggle()
        self.look("preflight", self.window.preflight)
        self.window.preflight.hide()

    def dialogs(self):
        """Look at every dialog."""
        QMessageBox.exec = lambda box: self._seen(box)
        ask = self.window.dialogs
        ask.unsaved("my-first")
        ask.stopping(37, is_closing=False)
        ask.stopping(0, is_closing=True)
        ask.confirm("Delete?", "The record of the run is deleted.", "Delete")
        ask.tell("This file cannot be opened", "It has no settings.", "Choose another file.")
        for dialog in all_dialogs(self.window):
            self._seen(dialog)

    def _seen(self, dialog):
        dialog.show()
        self.look(dialog.windowTitle(), dialog)
        dialog.hide()


def record_run(output):
    """Record a run that has finished in ``output``; return its folder."""
    from aozora.config.codec import encode_config
    from aozora.config.schema import TrainConfig
    from aozora.events import RunFinished, RunStarted, to_json
    from tests.gui.fake_engine import step_event

    folder = output / "runs" / "portrait-20260101-120000"
    folder.mkdir(parents=True)
    events = [
        RunStarted(run_id="r", folder=str(folder)),
        *(step_event(step, 20) for step in range(1, 21)),
        RunFinished(reason="completed", step=20, skipped_steps=0, seconds=20.0),
    ]
    facts = {"run_id": "r", "name": "portrait", "started": "2026-01-01T12:00:00+0000"}
    (folder / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    config = json.dumps(encode_config(TrainConfig()))
    (folder / "config.json").write_text(config, encoding="utf-8")
    lines = [to_json(event, "r", 1e9 + number) for number, event in enumerate(events)]
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def lost_run():
    """Return a run that ended without a word."""
    from gui.engine.run_folders import RunFolder

    path = Path("/runs/portrait-20260101-120000")
    return RunFolder(
        path=path,
        run_id=path.name,
        name="portrait",
        outcome="died",
        started=1.0,
        last_sign=2.0,
        step=33,
        total_steps=60,
        state="/checkpoints/portrait_step_000030.pt",
        state_step=30,
    )


def all_dialogs(window):
    """Yield the window's own dialogs, filled."""
    from aozora.config.checks import ticket_pool
    from aozora.config.codec import encode_config
    from aozora.config.schema import TrainConfig
    from aozora.config.ticket_segments import SegmentedPool
    from gui.editors.lr_chart import LrChart
    from gui.editors.lr_value_dialog import LrValueDialog
    from gui.engine.resume_wizard import ResumeWizard
    from gui.engine.state_question import StateFacts, StateQuestion
    from gui.pages.sample_files import SamplePicture
    from gui.pages.samples_compare import CompareSamples
    from gui.shell.compare import differences
    from gui.shell.compare_dialog import CompareDialog
    from gui.shell.crash import CrashDialog

    document = window.document
    rows = differences(document.reference(), document.overlay())
    yield CompareDialog(rows, document.origin.name, window)
    yield CompareDialog([], document.origin.name, window)
    yield CrashDialog("Traceback (most recent call last):\nValueError", "{}", window)
    pictures = [SamplePicture(Path(f"a_{n}.png"), "a portrait", n) for n in (100, 2000)]
    yield CompareSamples(*pictures, window)
    yield LrValueDialog(window.pages.page("schedule").findChild(LrChart), 1)
    StateQuestion.ask = lambda self, path: None
    wizard = ResumeWizard(document, Path("/checkpoints/demo_step_000010.pt"), window)
    yield wizard
    facts = {"name": "demo", "step": 10, "samples": 40, "optimizer": "raven_adamw"}
    stored = encode_config(TrainConfig())
    pool = SegmentedPool.of(ticket_pool(TrainConfig()), 8000)
    wizard._answered(StateFacts(facts, stored, tickets=pool.to_json()))
    yield wizard


def main(widths):
    from gui.app import make_application
    from gui.collector import GarbageCollector
    from gui.preferences import PreferenceKeeper
    from gui.shell.window import MainWindow

    with tempfile.TemporaryDirectory() as folder:
        preferences = PreferenceKeeper(Path(folder, "window.json"))
        app = make_application(preferences, [])
        language = LongWords(app)
        app.installTranslator(language)
        with GarbageCollector(app):
            window = MainWindow(preferences)
            window.checker.pause(True)
            output = Path(folder, "output")
            changes = {"training.seed": 7, "loss.weighting": "min_snr"}
            window.document.set_values({**changes, "output.folder": str(output)}, "some")
            window.show()
            walk = Walk(app, window)
            walk.pages(widths[0])
            # Before the first run pages say what will be there; with one there is more to see.
            recorded = record_run(output)
            window.links.show_charts(recorded)
            window.links.show_run(recorded)
            walk.wait(lambda: window.pages.page("runs").table.run is not None)
            walk.wait(lambda: window.pages.page("run").group.history.last_step == 20)
            for name in ("dark", "light", "contrast"):
                preferences.change(theme=name)
                for width in widths:
                    walk.pages(width)
                walk.panels()
                walk.dialogs()
            seen = QWidget.grab(window).devicePixelRatio()
            window.document.new()
            window.close()
            app.processEvents()
    sys.stdout.write(json.dumps({"scale": seen, "cut": sorted(walk.found)}))


if __name__ == "__main__":
    main([int(width) for width in sys.argv[1:]] or [1024, 1280])
