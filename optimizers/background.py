"""One piece of work in a thread of its own, whose progress others can wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """Starts ``work`` at once.

    Args:
        work: What to do; it calls `notify` when something that others wait for has come true.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._is_done = False
        self._work = work
        self._thread = threading.Thread(target=self._run, name="optimizer-pass", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """Wake up those who wait."""
        with self._changed:
            self._changed.notify_all()

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Return when ``holds()`` or the work has ended.

        Raises:
            BaseException: what ended the work, if it failed.
        """
        with self._changed:
            self._changed.wait_for(lambda: holds() or self._is_done)
            if self._error is not None:
                raise self._error

    def join(self) -> None:
        """Return when the work has ended.

        Raises:
            BaseException: what ended it, if it failed.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._error = error
        finally:
            with self._changed:
                self._is_done = True
                self._changed.notify_all()
