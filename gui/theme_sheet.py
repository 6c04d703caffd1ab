"""The style sheet: radius, padding, outlines. Its only colours are the palette's."""

from __future__ import annotations

STYLE_SHEET = """
QFrame[card="true"] {
  background: palette(base); border: 1px solid palette(mid); border-radius: 8px;
}
QLineEdit, QPlainTextEdit, QTextEdit {
  background: palette(window); border: 1px solid palette(dark); border-radius: 6px;
  padding: 1px 7px; selection-background-color: palette(highlight);
  selection-color: palette(highlighted-text);
}
QLineEdit:focus, QPlainTextEdit:focus, QTextEdit:focus {
  border: 2px solid palette(highlight); padding: 0px 6px;
}
QLineEdit[invalid="true"], QPlainTextEdit[invalid="true"] {
  border: 2px solid palette(bright-text); padding: 0px 6px;
}
QLineEdit:disabled, QPlainTextEdit:disabled { border-color: palette(mid); }
QPushButton {
  background: palette(button); color: palette(button-text); border: 1px solid palette(mid);
  border-radius: 6px; padding: 3px 12px; min-height: 20px;
}
QPushButton:hover { border-color: palette(dark); }
QPushButton:pressed { background: palette(window); }
QPushButton:focus { border: 2px solid palette(highlight); padding: 2px 11px; }
QPushButton:disabled { color: palette(shadow); }
QPushButton[primary="true"] {
  background: palette(highlight); color: palette(highlighted-text);
  border: 1px solid palette(highlight); font-weight: 600;
}
QPushButton[primary="true"]:focus { border: 2px solid palette(window-text); }
QPushButton[primary="true"]:disabled {
  background: palette(button); color: palette(shadow); border-color: palette(mid);
}
QPushButton[danger="true"] { color: palette(bright-text); border-color: palette(bright-text); }
QPushButton::menu-indicator { width: 0px; }
QToolButton {
  background: transparent; border: 1px solid transparent; border-radius: 6px; padding: 3px;
}
QToolButton:hover { background: palette(button); }
QToolButton:pressed, QToolButton:checked {
  background: palette(button); border: 1px solid palette(highlight);
}
QToolButton[plain="true"], QToolButton[plain="true"]:checked {
  background: transparent; border-color: transparent;
}
QToolButton[plain="true"]:focus { border-color: palette(highlight); }
QToolButton:focus { border: 1px solid palette(highlight); }
QToolButton::menu-indicator { width: 0px; }
QSlider { min-height: 20px; }
QSlider::groove {
  height: 2px; border: 1px solid palette(mid); border-radius: 2px; background: palette(button);
}
QSlider::sub-page {
  border: 1px solid palette(highlight); border-radius: 2px; background: palette(highlight);
}
QSlider::handle {
  width: 12px; margin: -6px 0; border: 1px solid palette(highlight); border-radius: 7px;
  background: palette(highlight);
}
QSlider::handle:hover, QSlider::handle:focus { border-color: palette(window-text); }
QScrollBar:vertical { background: transparent; width: 12px; margin: 0; }
QScrollBar:horizontal { background: transparent; height: 12px; margin: 0; }
QScrollBar::handle { background: palette(mid); border-radius: 4px; margin: 2px; }
QScrollBar::handle:vertical { min-height: 28px; }
QScrollBar::handle:horizontal { min-width: 28px; }
QScrollBar::handle:hover { background: palette(dark); }
QScrollBar::add-line, QScrollBar::sub-line { width: 0px; height: 0px; }
QScrollBar::add-page, QScrollBar::sub-page { background: transparent; }
QToolTip {
  background: palette(alternate-base); color: palette(window-text);
  border: 1px solid palette(mid); padding: 4px;
}
QMenu { background: palette(alternate-base); border: 1px solid palette(mid); padding: 4px; }
QMenu::item { padding: 5px 24px 5px 12px; border-radius: 4px; }
QMenu::item:selected { background: palette(highlight); color: palette(highlighted-text); }
QMenu::item:disabled { color: palette(shadow); }
QMenu::separator { height: 1px; background: palette(mid); margin: 4px 8px; }
QScrollArea { border: none; background: transparent; }
QHeaderView::section {
  background: palette(base); color: palette(placeholder-text); border: none;
  border-bottom: 1px solid palette(mid); padding: 5px 8px;
}
QTableView, QListView, QTreeView {
  background: palette(base); border: none; outline: 0px;
  alternate-background-color: palette(window);
  selection-background-color: palette(highlight); selection-color: palette(highlighted-text);
}
QComboBox QAbstractItemView {
  background: palette(alternate-base); border: 1px solid palette(mid); padding: 4px;
}
QComboBox QAbstractItemView::item { min-height: 26px; padding: 0px 6px; border-radius: 4px; }
QComboBox QAbstractItemView::item:selected {
  background: palette(highlight); color: palette(highlighted-text);
}
QTableView::item { padding: 0px 5px; border: none; }
QTableView::item:selected { background: palette(highlight); color: palette(highlighted-text); }
QMessageBox QLabel#qt_msgbox_label { font-weight: 600; }
QSplitter::handle { background: palette(mid); }
QSplitter::handle:horizontal { width: 1px; }
QSplitter::handle:vertical { height: 1px; }
"""
