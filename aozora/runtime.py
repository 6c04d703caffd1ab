"""Where things live on this computer, and how files are written so that none is ever half there."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import psutil
from platformdirs import user_cache_path, user_config_path

log = logging.getLogger(__name__)

_REPLACE_ATTEMPTS = 8
_PARTIAL = re.compile(r"\.(\d+)\.partial$")
_RESERVED_NAMES = {"con", "prn", "aux", "nul"} | {
    f"{d}{i}" for d in ("com", "lpt") for i in range(10)
}


def cache_folder() -> Path:
    """Return the folder for caches of this user."""
    return user_cache_path("aozora", appauthor=False)


def config_folder() -> Path:
    """Return the folder for settings and presets of this user."""
    return user_config_path("aozora", appauthor=False)


def is_safe_name(name: str) -> bool:
    """Return whether ``name`` can be part of a file name on every system."""
    plain = re.fullmatch(r"[A-Za-z0-9_.\- ]{1,100}", name) is not None
    stem = name.split(".", 1)[0].strip().lower()
    return plain and stem not in _RESERVED_NAMES and not name.endswith((".", " ")) and bool(stem)


def long_path(path: Path, room: int = 0) -> Path:
    r"""Return ``path`` so that Windows accepts more than 260 characters (``\\?\`` form there).

    Args:
        path: A file or folder.
        room: Most characters of what is added to it without coming here again.
    """
    text = str(path)
    if sys.platform != "win32" or text.startswith("\\\\?\\"):
        return path
    absolute = os.path.abspath(text)
    if len(absolute) + room < 240:
        return path
    if absolute.startswith("\\\\"):
        return Path("\\\\?\\UNC\\" + absolute[2:])
    return Path("\\\\?\\" + absolute)


def _fsync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(source: Path, target: Path) -> None:
    """Rename over ``target``; on Windows wait for readers such as virus scanners."""
    for attempt in range(_REPLACE_ATTEMPTS):
        try:
            os.replace(source, target)
        except PermissionError:
            if sys.platform != "win32" or attempt == _REPLACE_ATTEMPTS - 1:
                raise
            time.sleep(0.05 * 2**attempt)
        else:
            return


def _partial_path(target: Path) -> Path:
    """Return a name beside ``target`` that fits file systems limited to 255 bytes a name."""
    suffix = f".{os.getpid()}.partial"
    stem = target.name.encode("utf-8")[: 250 - len(suffix)].decode("utf-8", errors="ignore")
    return target.with_name(stem + suffix)


def set_up_with(options: str = "", on_windows: str = "") -> str:
    """Return what users type to set up Aozora, perhaps with ``options``."""
    command = f"python3 bootstrap.py setup {options}".rstrip()
    return f"{command} (on Windows: {f'setup.bat {on_windows}'.rstrip()})"


@contextlib.contextmanager
def atomic_path(target: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``target``; rename it to ``target`` at the end.

    When the body raises, the temporary file is removed and ``target`` is as it was.

    Args:
        target: The file to write; its folder is made if missing.
        sync: Flush to the disk before renaming. False only for what can be made again.

    Raises:
        OSError: if the folder cannot be made or the file not be written or renamed.
    """
    target = long_path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_path(target)
    try:
        yield partial
        if sync:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        _replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if sync:
        _fsync_folder(target.parent)


def write_text_atomic(target: Path, text: str, *, sync: bool = True) -> None:
    """Write ``text`` to ``target`` as UTF-8 with line feeds."""
    with atomic_path(target, sync=sync) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json_atomic(target: Path, value: Any, *, sync: bool = True) -> None:
    """Write ``value`` to ``target`` as indented JSON; refuses NaN and infinity."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text_atomic(target, text + "\n", sync=sync)


def remove_stale_partials(folder: Path) -> int:
    """Remove temporary files left in ``folder`` by processes that are gone; return how many."""
    removed = 0
    if not folder.is_dir():
        return removed
    for path in folder.iterdir():
        match = _PARTIAL.search(path.name)
        if match and not psutil.pid_exists(int(match[1])):
            path.unlink(missing_ok=True)
            removed += 1
    if removed:
        log.info("Removed %d unfinished files in %s", removed, folder)
    return removed


def free_run_folder(output: Path, name: str) -> Path:
    """Return ``output/runs/NAME-YYYYmmdd-HHMMSS``, numbered if that is there; makes nothing."""
    base = output / "runs" / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, number = base, 2
    while folder.exists():
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder


def log_to_file(path: Path) -> logging.Handler:
    """Send every log record to ``path`` as well; remove the handler when the run ends."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    if root.level > logging.INFO or root.level == logging.NOTSET:
        root.setLevel(logging.INFO)
    return handler


class _LogStream(io.TextIOBase):
    """A text stream that writes to the log; stands in where the program has no streams."""

    # By thread, and for all streams together: what a log that fails says of it comes back here.
    _own = threading.local()

    def __init__(self, level: int) -> None:
        self._level = level

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if getattr(self._own, "is_writing", False):
            return len(text)
        self._own.is_writing = True
        try:
            for line in text.splitlines():
                if line.strip():
                    log.log(self._level, "%s", line)
        finally:
            self._own.is_writing = False
        return len(text)


def guard_streams() -> None:
    """Give the program streams where it has none, as under ``pythonw``, and make them UTF-8."""
    if sys.stdout is None:
        sys.stdout = _LogStream(logging.INFO)
    if sys.stderr is None:
        sys.stderr = _LogStream(logging.ERROR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def let_go_of(stream: TextIO) -> None:
    """Let ``stream``, whose reader is gone, lead nowhere: what is still in it fails nobody."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def awake_flags(is_wanted: bool) -> int:
    """Return the execution state to set in Windows: ES_CONTINUOUS, with ES_SYSTEM_REQUIRED."""
    return 0x80000000 | (0x00000001 if is_wanted else 0)


def stay_awake(is_wanted: bool) -> None:
    """Keep the computer awake, or no longer; the screen may go dark.

    In Windows the request is that of the calling thread, and ends with it. Other systems have no
    way that needs no further program; there nothing happens.
    """
    if sys.platform == "win32":
        ctypes.windll.kernel32.SetThreadExecutionState(ctypes.c_uint32(awake_flags(is_wanted)))


@contextlib.contextmanager
def kept_awake() -> Iterator[None]:
    """Keep the computer awake while this thread is in the context."""
    stay_awake(True)
    try:
        yield
    finally:
        stay_awake(False)


class _Garbage:
    """How objects in cycles are searched for; a program with a window has its own way."""

    collect: Callable[[], object] = staticmethod(gc.collect)


def collect_garbage() -> None:
    """Free the objects that only refer to each other, in the thread where that is allowed."""
    _Garbage.collect()


@contextlib.contextmanager
def garbage_collected_by(collect: Callable[[], object]) -> Iterator[None]:
    """Let ``collect`` search for garbage, and nothing else: not Python by itself either.

    For a program whose objects must be destroyed in one certain thread, as Qt's must.
    """
    before, was_enabled = _Garbage.collect, gc.isenabled()
    _Garbage.collect = staticmethod(collect)
    gc.disable()
    try:
        yield
    finally:
        _Garbage.collect = staticmethod(before)
        if was_enabled:
            gc.enable()
