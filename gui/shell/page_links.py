"""What flows between the frame and single pages: presets, curves, resumes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PySide6.QtCore import QObject, Slot

from aozora.config.lr_schedule import LrSchedule
from aozora.config.presets import Preset
from aozora.events import RunPlanned, StepCompleted
from gui.charts.decimate import thinned
from gui.charts.timestep_bars import bars_of
from gui.editors.checked_run import CheckedRun
from gui.shell.estimate import Estimate
from gui.words import tr

if TYPE_CHECKING:
    from gui.shell.window import MainWindow

# Pages with the method ``show_estimate``.
_ESTIMATED = ("data", "optimizer")
_CURVE = "schedule.learning_rate"
# A dot for every step of a long run would be thousands on a few hundred pixels.
_MOST_DOTS = 400


class PageLinks(QObject):
    """Connects pages to the rest of the window when they are made.

    Pages know the document only; whatever else concerns them is told to them here, if they have
    the method for it.
    """

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window
        window.pages.made.connect(self._made)
        window.checker.changed.connect(self._estimated)
        window.document.history_changed.connect(self._compared)
        window.host.reported.connect(self._reported)
        window.host.started.connect(self._offer_rest)
        window.host.ended.connect(self._offer_rest)
        window.host.keeper.replaced.connect(self._history_replaced)
        window.pages.shown.connect(self._show_run_on)

    @Slot(str, object)
    def _made(self, key: str, page: Any) -> None:
        if key == "start":
            page.preset_chosen.connect(self._take_preset)
            page.file_chosen.connect(self._window.intake.take)
            page.open_asked.connect(self._window.files.ask_open)
            page.setting_asked.connect(self._window.go_to)
            page.page_asked.connect(self._window.show_page)
            page.demo_asked.connect(self._window.desk.start_demo)
            page.set_preferences(self._window.preferences)
        elif key == "schedule":
            self._estimated()
            self._compared()
            self._show_applied()
            self._offer_rest()
        elif key in (*_ESTIMATED, "layers"):
            self._estimated()
        elif key == "timesteps":
            self._estimated()
            self._show_drawn()
        elif key == "runs":
            page.resume_asked.connect(self._resume_asked)
            page.charts_asked.connect(self.show_charts)
            page.overlay_asked.connect(self.show_overlay)

    @Slot(object)
    def _take_preset(self, preset: Preset) -> None:
        self._window.document.apply_preset(preset)

    @Slot()
    def _estimated(self) -> None:
        estimate = self._window.checker.estimate
        for key in _ESTIMATED:
            page = self._page(key)
            if page is not None and (estimate is None or estimate.is_ready):
                page.show_estimate(estimate)
        layers = self._page("layers")
        if layers is not None:
            layers.show_check(estimate, is_checking=self._window.checker.is_checking)
        data = self._page("data")
        if data is not None:
            checker = self._window.checker
            data.set_engine(is_checking=checker.is_checking, is_running=checker.is_paused)
        batches, samples = _counts(estimate)
        for key in ("schedule", "timesteps"):
            page = self._page(key)
            if page is not None and estimate is not None:
                page.set_batches_per_epoch(batches)
        page = self._page("timesteps")
        if page is not None:
            # An old count would be wrong for other settings; none makes the page count itself.
            page.set_samples(samples)
            if estimate is not None:
                page.set_checked(CheckedRun.of_summary(estimate.summary))

    @Slot()
    def _compared(self) -> None:
        page = self._page("schedule")
        if page is None:
            return
        document = self._window.document
        if not document.is_changed(_CURVE):
            page.compare(None)
            return
        try:
            page.compare(LrSchedule.from_json(document.reference_value(_CURVE)))
        except (TypeError, ValueError):
            page.compare(None)

    @Slot()
    def _history_replaced(self) -> None:
        self._show_run_on(self._window.pages.current)

    @Slot(object)
    def _reported(self, batch: Any) -> None:
        if any(isinstance(item.event, StepCompleted | RunPlanned) for item in batch):
            self._show_run_on(self._window.pages.current)

    @Slot(str)
    def _show_run_on(self, key: str) -> None:
        """Show on page ``key`` what the run has done, if it is a page that does so."""
        if key == "schedule":
            self._show_applied()
        elif key == "timesteps":
            self._show_drawn()

    def _show_drawn(self) -> None:
        page = self._page("timesteps")
        if page is not None:
            page.show_progress(bars_of(self._window.host.keeper.history))

    def _show_applied(self) -> None:
        page = self._page("schedule")
        if page is not None:
            history = self._window.host.keeper.history
            # What came before a resume followed another curve, maybe over other steps.
            start = history.parts[-1].start_step if history.parts else 0
            places = history.steps.place("step")
            first = int(np.searchsorted(places, start, side="right"))
            rates = history.steps.mean("lr")[first:]
            steps, rates = thinned(places[first:], rates, _MOST_DOTS)
            total = history.plan.total_steps if history.plan is not None else history.last_step
            page.show_applied(steps.astype(int).tolist(), rates.tolist(), max(total, 1))

    @Slot()
    def _offer_rest(self) -> None:
        """Let the curve of a run that stopped half-way be planned from where it stopped."""
        page, host = self._page("schedule"), self._window.host
        if page is None:
            return
        status, step = host.status, host.status.last_saved_step
        steps = host.keeper.history.steps
        row = int(np.searchsorted(steps.place("step"), step, side="right")) - 1
        is_left = bool(status.state_file) and 0 < step < status.total_steps
        if status.is_active or status.is_engine_alive or not is_left or row < 0:
            page.offer_rest(None)
        else:
            page.offer_rest((step, float(steps.mean("lr")[row])))

    def _page(self, key: str) -> Any:
        pages = self._window.pages
        return pages.page(key) if pages.has(key) else None

    @Slot(object)
    def _resume_asked(self, state: Any) -> None:
        self.resume_from(Path(str(state)))

    def resume_from(self, state: Path) -> None:
        """Show what resuming from ``state`` would mean, and do it if the user wants."""
        from gui.engine.resume_wizard import resume_with_wizard

        window = self._window
        if window.host.status.is_free:
            resume_with_wizard(window.document, window.host, state, window)
        else:
            window.dialogs.tell(tr("The run cannot be resumed now"), window.host.hindrance)

    def show_run(self, folder: Path) -> None:
        """Show the run recorded in ``folder``."""
        self._window.show_page("runs")
        self._page("runs").show_run(folder)

    @Slot(object)
    def show_charts(self, folder: Path) -> None:
        """Show the charts of the run recorded in ``folder``."""
        self._window.show_page("run")
        self._page("run").show_run(folder)

    @Slot(object)
    def show_overlay(self, folder: Path) -> None:
        """Show the loss of the run recorded in ``folder`` beside that of the current one."""
        self._window.show_page("run")
        self._page("run").overlay.take(folder)


def _counts(estimate: Estimate | None) -> tuple[int, int]:
    """Return batches an epoch and samples of the run; 0 for what is not known."""
    if estimate is None:
        return 0, 0
    batches = estimate.number("batches_per_epoch")
    tickets = estimate.summary.get("ticket_counts")
    samples = sum(tickets) if isinstance(tickets, list) else 0
    return (round(batches) if batches == batches else 0), samples
