"""The program as a person uses it, in both engine hosts: what was drawn is what was applied."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from PySide6.QtGui import QImage

from aozora.config.codec import encode_config
from aozora.runtime import write_json_atomic

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
STEPS, RESUMED_STEPS, BINS = 6, 9, 20
HOSTS = ("process", "thread")
# What depends on the time, and what is named after it or after a folder.
OF_TIME = {"seconds", "data_wait_seconds", "stall_seconds", "folder", "run_id", "model", "state"}
OF_TIME |= {"resumed_from", "removed", "expected_step_seconds"}
BY_THE_CLOCK = {"MemorySampled", "Progressed"}
PICTURES = (
    *("1-start", "2-filled", "3-curve", "4-tickets", "5-before", "6-finished"),
    *("6-finished-middle", "6-finished-lower", "7-resume"),
    *("8-resumed", "8-resumed-middle", "8-resumed-lower", "9-schedule"),
    *("9-timesteps", "9-console", "9-runs", "9-leave"),
)


@contextmanager
def screen():
    """Give a screen of its own where there is an X server to be had."""
    if shutil.which("Xvfb") is None:
        yield {"QT_QPA_PLATFORM": "offscreen"}
        return
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1440x900x24", "-dpi", "96"]
    server = subprocess.Popen(
        [*command, "-nolisten", "tcp"],
        pass_fds=[writing],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as pipe:
            display = pipe.readline().strip()
        assert display, "Xvfb did not start"
        yield {"QT_QPA_PLATFORM": "xcb", "DISPLAY": f":{display}"}
    finally:
        server.terminate()
        server.wait(10)


def artifacts(tmp_path_factory):
    """Return where pictures go: where the environment says, else to pytest's own folder."""
    wanted = os.environ.get("AOZORA_ARTIFACTS")
    return Path(wanted, "whole-way") if wanted else tmp_path_factory.mktemp("pictures")


def write_preset(folder, demo):
    """Write the demo's settings as a preset of the user's: no paths, few steps."""
    settings = encode_config(demo.config)
    kept = {name: settings[name] for name in ("buckets", "training", "memory", "checkpoints")}
    kept["training"] |= {"steps": STEPS}
    kept["output"] = {"name": "small"}
    rates = [[0, 1e-4, "log"], [0.3, 1e-3, "hold"], [0.6, 1e-3, "cosine"], [1, 1e-4]]
    about = {"title": "Small", "description": "A run of a few seconds."}
    schedule = {"learning_rate": rates}
    preset = {"schema": 1, "about": about, "schedule": schedule, **kept}
    folder.mkdir(parents=True)
    write_json_atomic(folder / "small.json", preset)


def begin(host, demo, folder, pictures, display):
    """Start the program with a person before it."""
    write_preset(folder / "config" / "aozora" / "presets", demo)
    plan = {
        "host": host,
        "preset": "small",
        "fields": {
            "Base model": str(demo.folder / "base.safetensors"),
            "Folder with pictures": str(demo.folder / "pictures"),
            "Output folder": str(folder / "output"),
        },
        "steps": STEPS,
        "resumed_steps": RESUMED_STEPS,
        "pictures": str(pictures),
        "seen": str(folder / "seen.json"),
    }
    write_json_atomic(folder / "plan.json", plan)
    environment = os.environ | display
    environment |= {
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_CACHE_HOME": str(demo.cache_home),
        "QT_SCALE_FACTOR": "1",
        "PYTHONPATH": str(ROOT),
    }
    script = Path(__file__).with_name("whole_way.py")
    command = [sys.executable, str(script), str(folder / "plan.json")]
    with (folder / "said.txt").open("wb") as log:
        return subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)


def outcome(process, folder, cache_home):
    """Wait for the end; return what the person saw."""
    try:
        process.wait(240)
    finally:
        process.kill()
        process.wait()
    said = (folder / "said.txt").read_text(encoding="utf-8", errors="replace")
    seen_file = folder / "seen.json"
    if not seen_file.is_file():
        crashes = (cache_home / "aozora" / "window.crash.log").read_text(encoding="utf-8")
        pytest.fail(f"the window ended with {process.returncode}: {said}{crashes}")
    seen = json.loads(seen_file.read_text(encoding="utf-8"))
    assert not seen["fault"], f"{seen['fault']}\n{said}"
    assert "Traceback" not in said
    assert process.returncode == 0
    return seen


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return artifacts(tmp_path_factory)


@pytest.fixture(scope="module")
def both(small_demo, tmp_path_factory, pictures):
    """What was seen in either host; both at once, each on a screen of its own."""
    folders = {host: tmp_path_factory.mktemp(host) for host in HOSTS}
    with screen() as first, screen() as second:
        started = {
            host: begin(host, small_demo, folders[host], pictures, display)
            for host, display in zip(HOSTS, (first, second), strict=True)
        }
        try:
            return {
                host: outcome(started[host], folders[host], small_demo.cache_home) for host in HOSTS
            }
        finally:
            for process in started.values():
                process.kill()


@pytest.fixture(params=HOSTS)
def seen(both, request):
    return both[request.param]


def events_of(seen, run, name):
    return [event for kind, event in seen["events"][run] if kind == name]


def test_the_drawn_rates_are_applied(seen):
    steps = events_of(seen, 0, "StepCompleted")
    assert seen["drawn_rates"] != seen["preset_rates"]
    assert [step["lr"] for step in steps] == seen["drawn_rates"]


def test_the_painted_tickets_are_drawn(seen):
    (plan,) = events_of(seen, 0, "RunPlanned")
    counts = seen["drawn_counts"]
    assert sum(counts) == STEPS
    assert len(set(counts)) > 1
    assert plan["ticket_counts"] == counts
    drawn = Counter()
    for step in events_of(seen, 0, "StepCompleted"):
        drawn.update(int(t) * BINS // 1000 for t in step["timesteps"])
    assert [drawn[bar] for bar in range(BINS)] == counts


def test_the_resumed_run_goes_on_along_the_curve(seen):
    assert seen["resumed_steps"] == RESUMED_STEPS
    (start,) = events_of(seen, 1, "RunStarted")
    assert start["start_step"] == STEPS
    steps = events_of(seen, 1, "StepCompleted")
    assert [step["step"] for step in steps] == list(range(STEPS + 1, RESUMED_STEPS + 1))
    assert [step["lr"] for step in steps] == seen["drawn_longer"][STEPS:]
    drawn = Counter()
    for step in [*events_of(seen, 0, "StepCompleted"), *steps]:
        drawn.update(int(t) * BINS // 1000 for t in step["timesteps"])
    (plan,) = events_of(seen, 1, "RunPlanned")
    assert [drawn[bar] for bar in range(BINS)] == plan["ticket_counts"]


def test_the_window_says_that_it_is_finished(seen):
    assert all("Finished" in words for words in seen["state_words"]), seen["state_words"]
    assert [
        str(n) in w for n, w in zip((STEPS, RESUMED_STEPS), seen["progress_words"], strict=True)
    ]


def test_the_charts_are_filled(seen):
    for name, amounts in seen["charts"].items():
        assert len(amounts) == 2
        assert min(amounts) > 20, (name, amounts)


def test_both_hosts_report_the_same(both):
    def comparable(seen, run):
        return [
            (kind, {k: v for k, v in event.items() if k not in OF_TIME})
            for kind, event in seen["events"][run]
            if kind not in BY_THE_CLOCK
        ]

    for run in (0, 1):
        assert comparable(both["process"], run) == comparable(both["thread"], run)


@pytest.mark.parametrize("host", HOSTS)
def test_the_pictures_show_something(both, pictures, host):
    shots = {name: QImage(str(pictures / f"{host}-{name}.png")) for name in PICTURES}
    for name, shot in shots.items():
        colours = {
            shot.pixel(x, y)
            for x in range(0, shot.width(), 16)
            for y in range(0, shot.height(), 16)
        }
        assert len(colours) > 4, name
    assert shots["3-curve"] != shots["4-tickets"]
    assert shots["5-before"] != shots["6-finished"]
