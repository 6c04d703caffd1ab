"""A run on a terminal: messages as lines, progress as a bar."""

from __future__ import annotations

import sys
from typing import Any, TextIO, assert_never

from tqdm import tqdm

from aozora.events import (
    CheckpointSaved,
    Event,
    ItemSkipped,
    MemorySampled,
    OptimizerDiagnostics,
    PhaseFinished,
    PhaseStarted,
    Progressed,
    RunFailed,
    RunFinished,
    RunPlanned,
    RunStarted,
    StepCompleted,
    StepSkipped,
    ValidationCompleted,
    Warned,
)

_PHASES = {
    "scan": "Reading pictures",
    "encode_text": "Encoding captions",
    "encode_pictures": "Encoding pictures",
    "load_model": "Loading the model",
    "train": "Training",
    "validate": "Validating",
    "save": "Saving",
}
_UNITS = {"scan": "pictures", "encode_text": "captions", "encode_pictures": "pictures"}
_SHOWN_SKIPS = 20


def gibibytes(count: int) -> str:
    """Return a number of bytes in GiB."""
    return f"{count / 2**30:.2f} GiB"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


class ConsolePrinter:
    """Prints events for a person; the bar shows only where there is a terminal to redraw it."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._bar: Any = None
        self._skipped_items = 0
        self._memory = ""

    def __call__(self, event: Event) -> None:  # noqa: C901 - one line for each event
        """Show ``event``."""
        match event:
            case RunStarted():
                self._line(f"Run {event.run_id}, recorded in {event.folder}")
                if event.resumed_from:
                    self._line(f"Resuming {event.resumed_from} at step {event.start_step}")
            case RunPlanned():
                self._planned(event)
            case PhaseStarted():
                if event.phase not in ("train", "save", "validate"):
                    self._line(f"{_PHASES[event.phase]} ...")
            case PhaseFinished():
                self._close_bar()
                if event.summary:
                    self._line(f"{_PHASES[event.phase]}: {event.summary} ({event.seconds:.1f} s)")
            case Progressed():
                self._advance(
                    _PHASES[event.phase], event.done, event.total, _UNITS.get(event.phase, "it")
                )
            case StepCompleted():
                self._step(event)
            case StepSkipped():
                self._line(f"Step {event.step} skipped: {event.reason} ({event.in_a_row} in a row)")
            case ItemSkipped():
                self._item_skipped(event)
            case MemorySampled():
                if event.device_total:
                    self._memory = f", VRAM {gibibytes(event.device_used)}"
            case OptimizerDiagnostics():
                self._line(
                    f"Step {event.step}: update rms {event.update_rms:.3e}, weight rms "
                    f"{event.weight_rms:.3e}, {event.share_moved:.1%} of stored weights moved"
                )
            case ValidationCompleted():
                self._line(f"Step {event.step}: validation loss {event.loss:.5f}")
            case CheckpointSaved():
                self._line(f"Step {event.step}: saved {event.model} ({gibibytes(event.bytes)})")
            case Warned():
                self._line(f"Note: {event.text}")
            case RunFinished():
                self._finished(event)
            case RunFailed():
                self._close_bar()
            case _:
                assert_never(event)

    def close(self) -> None:
        """Leave the terminal in order."""
        self._close_bar()

    def _planned(self, event: RunPlanned) -> None:
        share = event.trained_parameters / max(event.total_parameters, 1)
        snr = ", zero terminal SNR" if event.zero_terminal_snr else ""
        self._line(
            f"{event.pictures} pictures ({event.held_out} held out), "
            f"{_count(len(event.buckets), 'size')}, {event.batches_per_epoch} batches an epoch"
        )
        self._line(
            f"{event.trained_parameters:,} of {event.total_parameters:,} parameters trained "
            f"({share:.1%}); {event.prediction}{snr}; {event.optimizer}, {event.precision} on "
            f"{event.device}, attention: {event.attention}"
        )

    def _step(self, event: StepCompleted) -> None:
        self._advance("Training", event.step, event.total_steps, "steps")
        if self._bar is not None:
            self._bar.set_postfix_str(
                f"loss {event.loss:.4f}, lr {event.lr:.2e}{self._memory}", refresh=False
            )
        elif event.step == event.total_steps or event.step % 10 == 0:
            self._line(
                f"Step {event.step}/{event.total_steps}: loss {event.loss:.4f}, "
                f"lr {event.lr:.2e}, {event.seconds:.2f} s"
            )

    def _item_skipped(self, event: ItemSkipped) -> None:
        self._skipped_items += 1
        if self._skipped_items <= _SHOWN_SKIPS:
            self._line(f"Left out {event.path}: {event.reason}")
        elif self._skipped_items == _SHOWN_SKIPS + 1:
            self._line("More pictures are left out; the log lists them all")

    def _finished(self, event: RunFinished) -> None:
        self._close_bar()
        words = "Finished" if event.reason == "completed" else "Stopped"
        skipped = f", {_count(event.skipped_steps, 'step')} skipped" if event.skipped_steps else ""
        self._line(f"{words} at step {event.step} after {event.seconds:.1f} s{skipped}")
        if event.model:
            self._line(f"Model: {event.model}")
        if event.state:
            self._line(f"State: {event.state}")

    def _advance(self, title: str, done: int, total: int, unit: str) -> None:
        if not self._stream.isatty():
            return
        if self._bar is None or self._bar.desc != title:
            self._close_bar()
            self._bar = tqdm(total=total, desc=title, unit=unit, file=self._stream, initial=done)
            self._bar.desc = title
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._close_bar()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _line(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            self._stream.write(text + "\n")
            self._stream.flush()
