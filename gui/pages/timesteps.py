"""The page of the timestep tickets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PySide6.QtWidgets import QWidget

from aozora.config.ticket_pool import rebin
from aozora.errors import ConfigError
from gui.charts.timestep_bars import TimestepBars
from gui.document import Document
from gui.editors.checked_run import CheckedRun
from gui.editors.run_length import PlannedRun, planned_run
from gui.editors.ticket_editor import TicketEditor
from gui.editors.ticket_view import TicketView
from gui.forms.settings_card import SettingsCard
from gui.shell.form_page import FormPage
from gui.words import tr

DISTRIBUTION, BINS = "timesteps.distribution", "timesteps.bins"
_MODEL = "model.base"
_WATCHED = ("timesteps", "training", "objective", "loss", "buckets.resolution", _MODEL)


class Page(FormPage):
    """Shows and edits the ticket pool of the document."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        purpose = tr(
            "How often each noise level is trained. Every sample draws one ticket, and the counts"
            " are met exactly."
        )
        super().__init__(document, tr("Timesteps"), purpose, parent, is_wide=True)
        self._batches_per_epoch = 0
        self._samples = 0
        self._checked = CheckedRun()
        self.editor = TicketEditor()
        self.card = SettingsCard(
            document,
            self.tr("Order and limits"),
            (
                "timesteps.coverage",
                "timesteps.on_resume",
                "timesteps.minimum",
                "timesteps.maximum",
            ),
        )
        for widget in (self.editor.chart, self.editor.table):
            widget.setProperty("setting_path", DISTRIBUTION)
        self.editor.bins.setProperty("setting_path", BINS)
        self.add(self.editor)
        self.add(self.card)
        self.editor.committed.connect(self._commit)
        self.editor.bins_chosen.connect(self._set_bins)
        document.changed.connect(self._document_changed)
        self._refresh()

    def set_batches_per_epoch(self, count: int) -> None:
        """Say how many batches one pass over the pictures has; 0 when it is not known."""
        self._batches_per_epoch = count
        self._refresh()

    def set_samples(self, count: int) -> None:
        """Say how many samples the run really draws, short batches included; 0 for not known."""
        self._samples = count
        self._refresh()

    def set_checked(self, checked: CheckedRun) -> None:
        """Say what a check found out about the run."""
        self._checked = checked
        self._refresh()

    def show_progress(self, bars: TimestepBars) -> None:
        """Show what a run has drawn so far, from its first start on."""
        self.editor.show_progress(bars.planned, bars.drawn, bars.losses)

    def plan(self) -> PlannedRun:
        """Return what is known of the run's length."""
        return planned_run(self.document.value, self._batches_per_epoch)

    def _commit(self, distribution: Mapping[str, Any], title: str, may_merge: bool) -> None:
        # Options of another kind would stay where only some are named, so the kind goes first.
        changes = {f"{DISTRIBUTION}.kind": distribution["kind"]}
        changes |= {f"{DISTRIBUTION}.{k}": v for k, v in distribution.items() if k != "kind"}
        self.document.set_values(changes, title, may_merge=may_merge)

    def _set_bins(self, bins: int) -> None:
        changes: dict[str, Any] = {BINS: bins}
        distribution = self.document.value(DISTRIBUTION)
        if distribution["kind"] == "custom":
            changes[f"{DISTRIBUTION}.weights"] = list(rebin(self.editor.view.weights, bins))
        self.document.set_values(changes, self.tr("number of bars"))

    def _document_changed(self, paths: frozenset[str]) -> None:
        if _MODEL in paths:
            self._checked = CheckedRun()
        if any(path.startswith(_WATCHED) for path in paths):
            self._refresh()

    def _refresh(self) -> None:
        value = self.document.value
        total = self._samples or self.plan().samples
        try:
            view = TicketView.of_settings(value, total, self._checked)
        except (ConfigError, ValueError):
            # Listed among the problems; the bars stay as they were.
            return
        self.editor.show_view(view)
