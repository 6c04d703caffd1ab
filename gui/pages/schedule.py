"""The page of the learning-rate curve."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Slot
from PySide6.QtWidgets import QWidget

from aozora.config.lr_schedule import LrSchedule
from gui.document import Document
from gui.editors.lr_edit import Run
from gui.editors.lr_editor import LrEditor
from gui.editors.run_length import PlannedRun, planned_run
from gui.forms.controls import picture_button
from gui.shell.form_page import FormPage
from gui.words import tr, whole

CURVE = "schedule.learning_rate"
_WATCHED = frozenset(
    {
        CURVE,
        "training.steps",
        "training.epochs",
        "training.accumulation_steps",
        "training.batch_size",
        "checkpoints.every_steps",
        "optimizer",
    }
)
# These divide by a running mean of squared gradients, which is unreliable in the first steps.
_ADAM_LIKE = frozenset({"raven_adamw", "adamw", "velo_rms"})


class Page(FormPage):
    """Shows and edits the curve of the document."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        purpose = tr(
            "The learning rate over the run. What is drawn is what is applied, step for step."
        )
        super().__init__(document, tr("Schedule"), purpose, parent, is_wide=True)
        self._batches_per_epoch = 0
        self._stopped_at: tuple[int, float] | None = None
        self.rest = picture_button("resume", "")
        self.rest.setCheckable(True)
        self.rest.setToolTip(
            tr("Locks what the stopped run has trained and shows where its rate goes on.")
        )
        self.rest.hide()
        self.rest.toggled.connect(self._refresh)
        self.head.buttons.addWidget(self.rest)
        self.editor = LrEditor()
        for widget in (self.editor.chart, self.editor.table):
            widget.setProperty("setting_path", CURVE)
        self.add(self.editor)
        self.editor.committed.connect(self._commit)
        document.changed.connect(self._document_changed)
        self._refresh()

    def set_batches_per_epoch(self, count: int) -> None:
        """Say how many batches one pass over the pictures has; 0 when it is not known."""
        self._batches_per_epoch = count
        self._refresh()

    def offer_rest(self, stopped_at: tuple[int, float] | None) -> None:
        """Offer to plan only what a stopped run has left.

        Args:
            stopped_at: Steps its newest save holds, and the rate of the last one; None if no run
                can be resumed.
        """
        self._stopped_at = stopped_at
        if stopped_at is None:
            self.rest.setChecked(False)
        else:
            words = tr("Plan the rest, from step {0}").format(whole(stopped_at[0]))
            self.rest.setText(f" {words}")
        self.rest.setVisible(stopped_at is not None)
        self._refresh()

    def compare(self, schedule: LrSchedule | None) -> None:
        """Show the curve of another configuration dashed."""
        self.editor.compare(schedule)

    def show_applied(self, steps: Sequence[int], rates: Sequence[float], total: int) -> None:
        """Show what a run has applied: 1-based steps of a run of ``total``, and their rates."""
        last = max(total - 1, 1)
        self.editor.show_applied([((s - 1) / last, r) for s, r in zip(steps, rates, strict=True)])

    def plan(self) -> PlannedRun:
        """Return what is known of the run's length."""
        return planned_run(self.document.value, self._batches_per_epoch)

    def _commit(self, schedule: LrSchedule, title: str, may_merge: bool) -> None:
        self.document.set_values({CURVE: schedule.to_json()}, title, may_merge=may_merge)

    def _document_changed(self, paths: frozenset[str]) -> None:
        if paths & _WATCHED:
            self._refresh()

    @Slot()
    def _refresh(self) -> None:
        value = self.document.value
        plan = self.plan()
        trained, stopped_at = None, self._stopped_at if self.rest.isChecked() else None
        if stopped_at is not None and plan.steps > 1:
            trained = min((stopped_at[0] - 1) / (plan.steps - 1), 1.0)
        saves = value("checkpoints.every_steps")
        saves = saves if isinstance(saves, int) else 0
        run = Run(plan.steps, plan.steps_per_epoch, saves, trained)
        self.editor.set_run(run, adam=value("optimizer.kind") in _ADAM_LIKE)
        self.editor.set_resume(*(stopped_at or (None, 0.0)))
        try:
            schedule = LrSchedule.from_json(value(CURVE))
        except (TypeError, ValueError):
            # A file with such a fault is listed among the problems; the curve stays as it was.
            return
        self.editor.show_schedule(schedule)
