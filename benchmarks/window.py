"""What the window costs: start, heartbeat under a stream of events, processor time, memory.

    python -m benchmarks.window [--seconds 8] [--points 100000] [--million] [--json FILE]

A child process takes the engine's place and reports steps at a given rate; the window shows its Run
page over a history of many points meanwhile. The heartbeat is a moment posted every 10 ms from
another thread: how late the window takes it is how long it would let a user wait.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

BUDGETS = {
    "first paint, warm (s)": 0.8,
    "page switch, worst (ms)": 50.0,
    "theme switch (ms)": 150.0,
    "page switch, first after a theme switch, worst (ms)": 50.0,
    "configuration loaded and shown, worst (ms)": 100.0,
    "heartbeat p99 (ms)": 40.0,
    "heartbeat worst (ms)": 120.0,
    "window's processor share, run page seen": 0.35,
    "window's processor share, another page seen": 0.08,
    "memory of the window, idle (MB)": 150.0,
    "memory of the window, long run (MB)": 200.0,
    "memory of the window, console full (MB)": 230.0,
    "force quit (s)": 1.0,
}

_FIRST_PAINT = """
import sys, time, psutil
from gui.app import make_application, open_window
from gui.preferences import PreferenceKeeper
preferences = PreferenceKeeper()
app = make_application(preferences, [])
window = open_window(preferences, [])
window.show()
app.processEvents()
window.grab()
print(time.time(), psutil.Process().memory_info().rss / 1e6, "torch" in sys.modules)
window.checker.stop()
import os; os._exit(0)
"""


def engine(rate: float, seconds: float, first: int, total: int) -> None:
    """Report steps at ``rate`` a second, as the engine's process does."""
    from aozora.events import MemorySampled, PhaseStarted, RunFinished, RunStarted, to_json

    tests = Path(__file__).parent.parent / "tests" / "gui"
    sys.path.insert(0, str(tests))
    from fake_engine import step_event

    def write(event: Any) -> None:
        sys.stdout.write(to_json(event, "bench") + "\n")

    write(RunStarted(run_id="bench", folder="/nowhere/runs/bench"))
    write(PhaseStarted(phase="train"))
    started, step, sampled = time.monotonic(), first, 0.0
    while (now := time.monotonic() - started) < seconds and step < total:
        while step < min(total, first + now * rate):
            step += 1
            write(step_event(step, total, loss=0.1 + 0.05 * ((step * 7919) % 101) / 101))
        if now - sampled >= 1.0:
            sampled = now
            used = {"device_used": 9 << 30, "device_reserved": 0, "device_peak": 0}
            write(
                MemorySampled(**used, device_total=12 << 30, process_rss=1, host_available=8 << 30)
            )
        sys.stdout.flush()
        time.sleep(min(0.01, 1 / rate))
    write(RunFinished(reason="completed", step=step, skipped_steps=0, seconds=seconds))
    sys.stdout.flush()


def first_paint(environment: dict[str, str]) -> tuple[float, float, bool]:
    """Return seconds from the start of a process to the painted window, its MB, whether torch."""
    best = (float("inf"), 0.0, False)
    for _ in range(4):
        started = time.time()
        output = subprocess.run(
            [sys.executable, "-c", _FIRST_PAINT],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        ).stdout.split()
        best = min(best, (float(output[0]) - started, float(output[1]), output[2] == "True"))
    return best


class Bench:
    """The window with the fake engine."""

    def __init__(self, points: int) -> None:
        from gui.app import make_application, open_window
        from gui.collector import GarbageCollector
        from gui.engine.child import ChildEngine
        from gui.preferences import PreferenceKeeper

        preferences = PreferenceKeeper()
        self.app = make_application(preferences, [])
        GarbageCollector(self.app).__enter__()
        self.window = open_window(preferences, [])
        self.window.checker.pause(True)
        self.window.resize(1440, 900)
        self.window.show()
        self.points = points
        self.host = self.window.host
        self.rate, self.seconds, self.total = 200.0, 5.0, points * 4

        def make(job: Any, mode: str) -> Any:
            command = [sys.executable, "-m", "benchmarks.window", "--engine"]
            command += [str(v) for v in (self.rate, self.seconds, self.points, self.total)]
            return ChildEngine((command, ""))

        self.host._make_body = make

    def wait(self, seconds: float) -> None:
        from PySide6.QtCore import QEventLoop, QTimer  # noqa: TID251 - this one is of the window

        loop = QEventLoop()
        QTimer.singleShot(round(seconds * 1000), loop.quit)
        loop.exec()

    def fill(self) -> None:
        """Give the history its points."""
        sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "gui"))
        from fake_engine import step_event

        history = self.host.keeper.history
        history.run_id = "bench"
        for step in range(1, self.points + 1):
            loss = 0.1 + 0.05 * ((step * 7919) % 101) / 101
            history.feed(step * 0.01, step_event(step, self.total, loss=loss))

    def stream(self, rate: float, page: str, seconds: float) -> dict[str, float]:
        """Run a stream of events with ``page`` seen; return what it cost."""
        from PySide6.QtCore import QObject, Signal, Slot  # noqa: TID251

        class Heart(QObject):
            beaten = Signal(float)

            def __init__(self) -> None:
                super().__init__()
                self.late: list[float] = []
                self.beaten.connect(self.take)

            @Slot(float)
            def take(self, moment: float) -> None:
                self.late.append((time.perf_counter() - moment) * 1000)

        heart, is_over = Heart(), threading.Event()

        def beat() -> None:
            while not is_over.wait(0.01):
                heart.beaten.emit(time.perf_counter())

        self.rate, self.seconds = rate, seconds + 3
        # A resumed run keeps the history that is there; the points are its earlier part.
        keeper = self.host.keeper
        keeper._started = lambda event: None
        # The empty document is not to blame: nothing of it is trained.
        self.window.desk.problems = lambda: ()
        self.host.set_problems(0)
        assert self.host.start({})
        self.window.show_page(page)
        self.wait(2.0)
        thread = threading.Thread(target=beat, daemon=True)
        before, wall, steps = time.thread_time(), time.perf_counter(), self.host.status.step
        thread.start()
        self.wait(seconds)
        used = (time.thread_time() - before) / (time.perf_counter() - wall)
        taken = (self.host.status.step - steps) / (time.perf_counter() - wall)
        is_over.set()
        thread.join()
        self.wait(0.2)
        started = time.perf_counter()
        self.host.force_quit()
        self.host.wait(10)
        late = sorted(heart.late)
        return {
            "events a second": taken,
            "p50": late[len(late) // 2],
            "p99": late[int(len(late) * 0.99)],
            "worst": late[-1],
            "share": used,
            "force quit": time.perf_counter() - started,
        }

    def page_switches(self) -> float:
        """Show every page once; return how long the slowest took."""
        from gui.shell.page_list import page_specs

        return max(self.timed(self.window.show_page, spec.key) for spec in page_specs())

    def theme_switch(self) -> float:
        self.window.show_page("run")
        self.wait(0.5)
        change = self.window.preferences.change
        return max(self.timed(partial(change, theme=name)) for name in ("light", "dark"))

    def loads(self) -> float:
        """Load each preset, seen on the page with most fields; return how long the slowest took."""
        presets = (Path(__file__).parent.parent / "presets").glob("*.json")
        self.window.show_page("optimizer")
        self.wait(0.5)
        return max(self.timed(self.window.files.open, path) for path in sorted(presets))

    def timed(self, change: Callable[..., Any], *arguments: Any) -> float:
        """Return the milliseconds until ``change`` is painted."""
        started = time.perf_counter()
        change(*arguments)
        self.app.processEvents()
        return (time.perf_counter() - started) * 1000

    def fill_console(self) -> None:
        for number in range(20_000):
            self.host.console.add(time.time(), "output", f"line {number} " + "x" * 80)
        self.window.show_page("console")
        self.wait(1.5)


def rss() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss) / 1e6


def million() -> list[tuple[int, float]]:
    """Return the memory of a history while a million points go into it."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "gui"))
    from fake_engine import step_event

    from gui.charts.run_history import RunHistory

    history, marks = RunHistory(), []
    for step in range(1, 1_000_001):
        history.feed(step * 0.01, step_event(step, 1_000_000))
        if step % 200_000 == 0:
            len(history.steps)
            marks.append((step, rss()))
    return marks


def measure(seconds: float, points: int) -> tuple[dict[str, float], list[str]]:
    results: dict[str, float] = {}
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
            os.environ[name] = folder
        warm, idle, has_torch = first_paint(dict(os.environ))
        results["first paint, warm (s)"] = warm
        results["memory of the window, idle (MB)"] = idle
        notes.append(f"torch loaded at the first paint: {has_torch}")
        bench = Bench(points)
        bench.page_switches()
        results["page switch, worst (ms)"] = bench.page_switches()
        results["theme switch (ms)"] = bench.theme_switch()
        after = "page switch, first after a theme switch, worst (ms)"
        results[after] = bench.page_switches()
        results["configuration loaded and shown, worst (ms)"] = bench.loads()
        bench.fill()
        for rate in (200.0, 2000.0):
            seen = bench.stream(rate, "run", seconds)
            notes.append(
                f"{rate:.0f} events/s asked, {seen['events a second']:.0f} taken: heartbeat p50 "
                f"{seen['p50']:.1f}, p99 {seen['p99']:.1f}, worst {seen['worst']:.1f} ms, "
                f"window's thread {seen['share']:.0%}"
            )
            if rate == 200.0:
                results["heartbeat p99 (ms)"] = seen["p99"]
                results["heartbeat worst (ms)"] = seen["worst"]
                results["window's processor share, run page seen"] = seen["share"]
                results["force quit (s)"] = seen["force quit"]
        other = bench.stream(200.0, "model", seconds)
        results["window's processor share, another page seen"] = other["share"]
        results["memory of the window, long run (MB)"] = rss()
        bench.fill_console()
        results["memory of the window, console full (MB)"] = rss()
        bench.window.checker.stop()
    return results, notes


def main() -> None:
    parser = argparse.ArgumentParser(description="measure what the window costs")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--million", action="store_true", help="only the memory of a long history")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--engine", nargs=4, type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        rate, seconds, first, total = options.engine
        engine(rate, seconds, int(first), int(total))
        return
    if options.million:
        for step, megabytes in million():
            print(f"{step:>9,} points  {megabytes:7.1f} MB")
        return
    results, notes = measure(options.seconds, options.points)
    width = max(map(len, BUDGETS))
    print(f"{'':{width}}  {'budget':>9} {'measured':>9}")
    for name, budget in BUDGETS.items():
        word = "" if results[name] <= budget else "  over"
        print(f"{name:{width}}  {budget:9.2f} {results[name]:9.2f}{word}")
    print("\n".join(notes))
    if options.json:
        facts = {
            "processors": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
        }
        options.json.write_text(
            json.dumps({"machine": facts, "results": results, "notes": notes}, indent=2) + "\n",
            encoding="utf-8",
        )
    # Qt's objects would go in the order of the interpreter's end, which is not theirs.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
