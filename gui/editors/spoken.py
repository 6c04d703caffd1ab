"""What screen readers are told about the charts: that they are charts, and what is chosen."""

from __future__ import annotations

from functools import cache

from PySide6.QtCore import QObject
from PySide6.QtGui import QAccessible, QAccessibleInterface, QAccessibleValueChangeEvent
from PySide6.QtWidgets import QAccessibleWidget, QWidget


class SpokenWidget(QWidget):
    """A widget that can say what is chosen in it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        # Before the widget exists: Qt asks once, at the first thing it has to tell of it.
        let_charts_speak()
        super().__init__(parent)

    def spoken_value(self) -> str:
        """Return what is chosen, in words."""
        raise NotImplementedError


class _ChartInterface(QAccessibleWidget):
    """Adds role and value to what Qt tells of a widget by itself."""

    def __init__(self, widget: SpokenWidget) -> None:
        super().__init__(widget, QAccessible.Role.Chart)
        self._widget = widget

    def text(self, kind: QAccessible.Text) -> str:
        """Return the value; the rest is the widget's own."""
        if kind == QAccessible.Text.Value and self.isValid():
            return self._widget.spoken_value()
        return super().text(kind)


# Qt deletes an interface with its widget but counts no references, so they are kept here; there
# are as many as charts were ever made, which is two a window.
_interfaces: list[QAccessibleInterface] = []


def _interface(key: str, target: QObject | None) -> QAccessibleInterface | None:
    if not isinstance(target, SpokenWidget):
        return None
    interface = _ChartInterface(target)
    _interfaces.append(interface)
    return interface


@cache
def let_charts_speak() -> None:
    """Tell Qt how charts speak; once is enough."""
    QAccessible.installFactory(_interface)


def announce(widget: QWidget, text: str) -> None:
    """Tell screen readers that the value of ``widget`` became ``text``."""
    if text == widget.accessibleDescription():
        return
    widget.setAccessibleDescription(text)
    if QAccessible.isActive():
        QAccessible.updateAccessibility(QAccessibleValueChangeEvent(widget, text))
