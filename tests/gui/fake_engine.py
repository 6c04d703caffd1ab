"""An engine that trains nothing: for the host's tests, as a child process or in a thread.

    python fake_engine.py HABIT [STEPS]

It reports as the real one does and reads the same commands; HABIT says how it misbehaves.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

from aozora.errors import AozoraError
from aozora.events import (
    CheckpointSaved,
    MemorySampled,
    PhaseFinished,
    PhaseStarted,
    Progressed,
    RunFailed,
    RunFinished,
    RunStarted,
    StepCompleted,
    to_json,
)


def step_event(step, total, *, loss=None):
    return StepCompleted(
        step=step,
        total_steps=total,
        epoch=step / 10,
        loss=1.0 / step if loss is None else loss,
        lr=1e-6 * step,
        grad_norm=0.5,
        timesteps=[float(step * 37 % 1000)],
        tickets=[step * 37 % 1000],
        sample_losses=[1.0 / step],
        items=[step % 4],
        samples=step,
        seconds=0.01,
        data_wait_seconds=0.0,
    )


def run(on_event, control, habit, steps=20):
    """Report a run; ask ``control`` between steps."""
    on_event(RunStarted(run_id="fake", folder="/nowhere/runs/fake"))
    on_event(PhaseStarted(phase="scan"))
    on_event(Progressed(phase="scan", done=4, total=4))
    on_event(PhaseFinished(phase="scan", seconds=0.1, summary="4 pictures"))
    on_event(PhaseStarted(phase="train"))
    used = {"device_used": 3, "device_reserved": 0, "device_peak": 0, "device_total": 8}
    on_event(MemorySampled(**used, process_rss=5, host_available=9))
    for step in range(1, steps + 1):
        on_event(step_event(step, steps))
        if step == 3:
            misbehave(habit, on_event)
        time.sleep(0.02 if habit in ("slow", "hang_on_stop") else 0.0)
        if control.take_save_request():
            save(on_event, step)
        if control.should_stop and habit != "hang_on_stop":
            if control.should_save_at_stop:
                save(on_event, step)
            on_event(RunFinished(reason="stopped", step=step, skipped_steps=0, seconds=1.0))
            return
    save(on_event, steps)
    on_event(RunFinished(reason="completed", step=steps, skipped_steps=0, seconds=1.0))


def save(on_event, step):
    on_event(PhaseStarted(phase="save"))
    files = {"model": f"m{step}.safetensors", "state": f"m{step}.pt"}
    on_event(CheckpointSaved(step=step, **files, bytes=10, seconds=0.1, removed=[]))
    on_event(PhaseFinished(phase="save", seconds=0.1))


def misbehave(habit, on_event):
    if habit == "raise":
        raise RuntimeError("a bug in the engine")
    if habit == "refuse":
        on_event(RunFailed(message="the device is out of memory", hint="train fewer layers"))
        raise AozoraError("the device is out of memory", "train fewer layers")
    if habit == "hang":
        time.sleep(600)
    if habit == "garbage":
        garbage()
    if habit == "die":
        os._exit(17)


def garbage():
    pipe = os.fdopen(os.dup(1), "wb", buffering=0)
    for piece in (
        b"\xff\xfe\x00 not text\n",
        b"[1, 2, 3]\n",
        b'{"event": "NoSuchEvent"}\n',
        b'{"event": "StepCompleted", "step": "seven"}\n',
        b'{"event": "Warned", "text": 5}\n',
        b"[" * 100_000 + b"\n",
        b"x" * 6_000_000 + b"\n",
        b"\r10%\r20%\r30%\n",
        b"\n\n",
    ):
        pipe.write(piece)


def main():
    habit = sys.argv[1]
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    from aozora.api import RunControl

    if habit == "no_start":
        sys.stderr.write("Error: model.base: there is no such file\nWhat to do: choose one\n")
        return 2
    control, lock = RunControl(), threading.Lock()

    def listen():
        for line in sys.stdin:
            control.send(json.loads(line)["command"])

    def write(event):
        with lock:
            sys.stdout.write(to_json(event, "fake", 1.0) + "\n")
            sys.stdout.flush()

    threading.Thread(target=listen, daemon=True).start()
    if habit == "grandchild":
        sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
        print(json.dumps({"grandchild": subprocess.Popen(sleeper).pid}), file=sys.stderr)
    try:
        run(write, control, habit, steps)
    except AozoraError:
        return 3
    if habit == "linger":
        time.sleep(600)
    return 0


if __name__ == "__main__":
    sys.exit(main())
