"""The demo with a way to stop it; as a program it is the child of the window's try-it run.

``python -m gui.engine.demo_run FOLDER`` writes events to stdout and reads commands from stdin, as
``aozora train --events - --control -`` does.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from aozora import api
from aozora.errors import AozoraError
from aozora.events import Event, EventSink, RunFailed, RunStarted, Warned, to_json
from aozora.runtime import guard_streams


class DemoStopped(KeyboardInterrupt):
    """The person stopped the demo; as with Ctrl+C the engine cleans up and reports no failure."""


def run_demo(folder: Path, on_event: EventSink, should_stop: Callable[[], bool]) -> None:
    """Run the demo in ``folder`` until its end, or until ``should_stop`` says so.

    Raises:
        DemoStopped: when it was stopped.
        AozoraError: when it cannot run; `RunFailed` was reported.
    """
    caller = threading.get_ident()
    reports: list[Event] = []

    def receive(event: Event) -> None:
        if isinstance(event, RunFailed):
            reports.append(event)
        on_event(event)
        # Events also come from threads of the engine, which must not die of this.
        if should_stop() and threading.get_ident() == caller:
            raise DemoStopped

    try:
        report = api.demo(folder, receive)
    except AozoraError as error:
        if not reports:
            on_event(RunFailed(message=error.message, hint=error.hint))
        raise
    on_event(Warned(text=report.to_text().strip()))


def main() -> int:
    """Run the demo for the window; return the exit code."""
    guard_streams()
    stream, sys.stdout = sys.stdout, sys.stderr
    stop = threading.Event()
    lock = threading.Lock()
    run_id = ""

    def listen() -> None:
        for line in sys.stdin:
            try:
                command = json.loads(line)["command"]
            except (ValueError, KeyError, TypeError):
                continue
            if command in ("stop", "stop_and_save"):
                stop.set()

    def write(event: Event) -> None:
        nonlocal run_id
        with lock:
            if isinstance(event, RunStarted):
                run_id = event.run_id
            stream.write(to_json(event, run_id) + "\n")
            stream.flush()

    threading.Thread(target=listen, name="control", daemon=True).start()
    try:
        run_demo(Path(sys.argv[1]), write, stop.is_set)
    except AozoraError:
        return 2
    except DemoStopped:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
