"""Start of the window: ``python -m gui``; with ``--check`` only says whether it could open."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import traceback
from importlib.metadata import version
from pathlib import Path

# PySide6 6.12 loses a reference to None with every call on Python 3.11 and older and then aborts.
_BAD_QT = (6, 12)
# As `gui.preferences` calls it, which needs Qt.
_PREFERENCES = "window.json"


def check() -> list[str]:
    """Return one line about each thing the window needs.

    Raises:
        ImportError: when torch or Qt cannot be loaded, or this Qt must not be used.
        OSError: when one of their libraries cannot be.
    """
    # torch first: on Windows its libraries may fail to load once Qt's are there.
    import torch

    _refuse_bad_qt()
    from PySide6 import QtWidgets

    has_card = torch.cuda.is_available()
    card = torch.cuda.get_device_name() if has_card else "none that torch can use"
    return [
        f"torch {torch.__version__}",
        f"Qt {version('PySide6-Essentials')} ({QtWidgets.__name__} loads)",
        f"graphics card: {card}",
    ]


def _refuse_bad_qt() -> None:
    found = version("PySide6-Essentials")
    numbers = tuple(int(part) for part in found.split(".")[:2])
    if numbers >= _BAD_QT and sys.version_info < (3, 12):
        raise ImportError(f"PySide6 {found} fails on this Python; 6.11 is needed")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gui", description="The window of Aozora.")
    parser.add_argument("paths", nargs="*", type=Path, help="a configuration, model or folder")
    parser.add_argument("--check", action="store_true", help="only say whether it could open")
    pictures = parser.add_argument_group("pictures of the pages")
    pictures.add_argument("--screenshots", type=Path, metavar="DIR", help="write them and exit")
    pictures.add_argument("--theme", choices=["dark", "light", "contrast"], default="dark")
    pictures.add_argument("--scale", type=float, default=1.0, help="pixels a unit, such as 1.5")
    pictures.add_argument("--width", type=int, default=1280)
    pictures.add_argument("--height", type=int, default=800)
    pictures.add_argument("--run", type=Path, metavar="RUN_FOLDER", help="a recorded run to show")
    return parser


def _check() -> int:
    try:
        lines = check()
    except (ImportError, OSError) as error:
        sys.stderr.write(f"Error: {error}\nWhat to do: run setup again.\n")
        return 3
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _screenshots(options: argparse.Namespace) -> int:
    import tempfile

    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    os.environ["QT_SCALE_FACTOR"] = f"{options.scale:g}"
    from gui.app import make_application
    from gui.collector import GarbageCollector
    from gui.preferences import PreferenceKeeper
    from gui.shell.screenshots import take_screenshots
    from gui.shell.window import MainWindow

    with tempfile.TemporaryDirectory() as folder:
        # The user's own files stay out of the pictures, and the pictures out of them.
        preferences = PreferenceKeeper(Path(folder, "window.json"))
        app = make_application(preferences, [])
        preferences.change(theme=options.theme)
        with GarbageCollector(app):
            window = MainWindow(preferences)
            for path in options.paths:
                window.intake.take(path)
            written = take_screenshots(
                window,
                options.screenshots,
                width=options.width,
                height=options.height,
                run_folder=options.run,
            )
            window.close_unasked()
            app.processEvents()
    sys.stdout.write("".join(f"{path}\n" for path in written))
    return 0


def wants_torch_first(preferences: Path) -> bool:
    """Return whether the engine is to be a thread of the window, by the file ``preferences``.

    On Windows torch must be loaded before Qt then. Hence the file is looked into without Qt, and
    one that cannot be read is told of by whoever reads all of it.
    """
    if sys.platform != "win32":
        return False
    try:
        found = json.loads(preferences.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("engine_host") == "thread"


def _window(options: argparse.Namespace) -> int:
    _refuse_bad_qt()
    from aozora.runtime import config_folder, guard_streams

    guard_streams()
    if wants_torch_first(config_folder() / _PREFERENCES):
        import torch  # noqa: F401 - for its libraries
    from gui.app import run_application

    return run_application(options.paths)


def _tell(text: str, *, has_console: bool) -> None:
    """Say why there is no window: on the console, or under ``pythonw`` in a box of the system."""
    if has_console:
        sys.stderr.write(text)
    elif sys.platform == "win32":
        icon_of_an_error = 0x10
        ctypes.windll.user32.MessageBoxW(None, text, "Aozora", icon_of_an_error)


def main(arguments: list[str] | None = None) -> int:
    """Run the check, take pictures or open the window; return the exit code."""
    has_console = sys.stderr is not None
    options = _parser().parse_args(arguments)
    if options.check:
        return _check()
    try:
        return _screenshots(options) if options.screenshots else _window(options)
    except (ImportError, OSError) as error:
        _tell(f"Error: {error}\nWhat to do: run setup again.\n", has_console=has_console)
        return 3
    except Exception:
        # A bug, which Python tells of itself where that can be read.
        if not has_console:
            _tell(traceback.format_exc(), has_console=False)
        raise


if __name__ == "__main__":
    sys.exit(main())
