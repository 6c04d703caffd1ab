"""The demo as the window runs it; as a program it is the child of the window's try-it run.

``python -m gui.engine.demo_run FOLDER`` writes events to stdout and reads commands from stdin, as
``aozora train --events - --control -`` does.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

from aozora import api
from aozora.errors import AozoraError
from aozora.events import Event, EventSink, EventWriter, RunFailed, Warned
from aozora.runtime import guard_streams, let_go_of


def run_demo(folder: Path, on_event: EventSink, control: api.RunControl) -> None:
    """Run the demo in ``folder`` until its end, or until ``control`` asks to stop.

    Raises:
        AozoraError: when it cannot run; `RunFailed` was reported.
    """
    reports: list[Event] = []

    def receive(event: Event) -> None:
        if isinstance(event, RunFailed):
            reports.append(event)
        on_event(event)

    try:
        report = api.demo(folder, receive, control)
    except AozoraError as error:
        if not reports:
            on_event(RunFailed(message=error.message, hint=error.hint))
        raise
    if report is not None:
        on_event(Warned(text=report.to_text().strip()))


def main() -> int:
    """Run the demo for the window; return the exit code."""
    guard_streams()
    stream, sys.stdout = sys.stdout, sys.stderr
    control = api.RunControl()

    def listen() -> None:
        for line in sys.stdin:
            try:
                control.send(json.loads(line)["command"])
            except (ValueError, KeyError, TypeError):
                continue

    def lost(error: OSError) -> None:
        let_go_of(stream)
        let_go_of(sys.stderr)
        control.stop_and_save()

    threading.Thread(target=listen, name="control", daemon=True).start()
    try:
        run_demo(Path(sys.argv[1]), EventWriter(stream, lost), control)
    except AozoraError:
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
