"""Committing what is still being typed when a key or button acts that takes no focus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QWidget
from shiboken6 import isValid


@runtime_checkable
class Settling(Protocol):
    """A widget that waits with a change for something else than the focus to leave."""

    def settle(self) -> None:
        """Make the change now."""


def settle(window: QWidget) -> None:
    """Commit what is being typed in ``window``, as leaving the field would; the focus stays.

    Fields do with it what they do when they are left: what cannot be taken is marked or dropped.
    """
    field = QApplication.focusWidget()
    # Menus, popups and dialogs are windows of their own, and take care of themselves.
    if field is None or not window.isAncestorOf(field):
        return
    if isinstance(field, Settling):
        field.settle()
    around = list(_parents(field))
    field.clearFocus()
    # A field over a chart closes when it is left, and gives the focus on by itself.
    if QApplication.focusWidget() is not None:
        return
    if _is_there(field):
        field.setFocus()
        return
    # A field in a table closes too, and leaves the focus to nobody.
    for widget in around:
        if _is_there(widget) and widget.focusPolicy() != Qt.FocusPolicy.NoFocus:
            widget.setFocus()
            return


def _parents(widget: QWidget) -> Iterator[QWidget]:
    parent = widget.parentWidget()
    while parent is not None:
        yield parent
        parent = parent.parentWidget()


def _is_there(widget: QWidget) -> bool:
    return isValid(widget) and widget.isVisible() and widget.isEnabled()
