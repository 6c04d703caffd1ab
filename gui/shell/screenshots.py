"""Every page as a picture, without a screen: for documents, reviews and tests."""

from __future__ import annotations

import time
from pathlib import Path

from PySide6.QtCore import QCoreApplication, QEventLoop
from PySide6.QtWidgets import QWidget

from gui.shell.page_list import page_specs
from gui.shell.window import MainWindow

_SETTLE_SECONDS = 0.15
_ANSWER_SECONDS = 60.0


def settle(seconds: float = _SETTLE_SECONDS) -> None:
    """Let the window do what it has to do for a moment."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QCoreApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 20)


def save_picture(widget: QWidget, target: Path) -> None:
    """Write what ``widget`` looks like to ``target``.

    Raises:
        OSError: if it cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if not widget.grab().save(str(target)):
        raise OSError(f"{target} cannot be written")


def take_screenshots(
    window: MainWindow,
    folder: Path,
    *,
    width: int,
    height: int,
    run_folder: Path | None,
) -> list[Path]:
    """Write one picture of each page into ``folder``; return their paths.

    Args:
        window: The window; it is shown.
        folder: Where the pictures go.
        width: Width of the window, in pixels before scaling.
        height: Height of it.
        run_folder: A recorded run the Run page shows.
    """
    window.resize(width, height)
    window.show()
    settle()
    # Pictures tell more once the engine has answered about model and run.
    end = time.monotonic() + _ANSWER_SECONDS
    while window.checker.is_checking and time.monotonic() < end:
        settle(0.05)
    if run_folder is not None:
        window.links.show_run(run_folder)
        window.links.show_charts(run_folder)
        settle(1.0)
    written = []
    for number, spec in enumerate(page_specs(), 1):
        window.show_page(spec.key)
        settle()
        _wait_for_facts(window, spec.key)
        target = folder / f"{number:02}-{spec.key}.png"
        save_picture(window, target)
        written.append(target)
    window.show_page("start")
    window.preflight.toggle()
    settle()
    target = folder / f"{len(written) + 1:02}-preflight.png"
    save_picture(window, target)
    return [*written, target]


def _wait_for_facts(window: MainWindow, key: str) -> None:
    """Wait while a page waits for an answer itself."""
    page = window.pages.page(key)
    end = time.monotonic() + _ANSWER_SECONDS
    while getattr(page, "is_busy", False) and time.monotonic() < end:
        settle(0.05)
    settle()
