"""Stand-ins for the people and engines that the window talks to."""

from __future__ import annotations

import threading
from pathlib import Path

from gui.engine.states import EngineEnded


class FakeDialogs:
    """Answers as it was told to, and remembers what was asked."""

    def __init__(self):
        self.asked = []
        self.answers = {}

    def _answer(self, name, default, *details):
        self.asked.append((name, *details))
        return self.answers.get(name, default)

    def unsaved(self, name):
        return self._answer("unsaved", "cancel", name)

    def stopping(self, unsaved_steps, *, is_closing):
        return self._answer("stopping", "keep", unsaved_steps, is_closing)

    def open_path(self, start):
        return self._answer("open_path", None)

    def save_path(self, suggestion):
        return self._answer("save_path", None, Path(suggestion).name)

    def state_path(self, start):
        return self._answer("state_path", None)

    def folder(self, title, start):
        return self._answer("folder", None)

    def tell(self, title, text, detail=""):
        self.asked.append(("tell", title, text, detail))

    def confirm(self, title, text, button):
        return self._answer("confirm", True, title)


class FakeBody:
    """An engine that says what it is told to and ends when it is stopped."""

    can_kill = True

    def __init__(self, job, mode, events=()):
        self.job, self.mode, self.events = job, mode, events
        self.commands = []
        self.over = threading.Event()

    def run(self, post):
        for event in self.events:
            post(event)
        assert self.over.wait(20)
        return EngineEnded()

    def send(self, command):
        self.commands.append(command)
        if command in ("stop", "stop_and_save"):
            self.over.set()

    def kill(self):
        self.over.set()
