from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PySide6.QtCore import QEvent, QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDropEvent, QWheelEvent
from PySide6.QtWidgets import QApplication

from aozora.config.describe import iterate_settings
from aozora.config.fields import SettingInfo
from gui.document import Document
from gui.forms.editors import LinesField, NumberField, SetField, SwitchField, line_of
from gui.forms.numbers import format_number, nudged, parse_number
from gui.forms.path_field import PathField
from gui.forms.settings_card import SettingsCard, concerns
from gui.forms.shapes import options_of, shape_of, shapes

# Said of any window with a smallest size by the platform that has no screen.
pytestmark = pytest.mark.qt_log_ignore("does not support propagateSizeHints")

ANY = SettingInfo(label="", help="")
EDITABLE = [shape for shape in shapes() if shape.kind != "own" and not shape.of_kind]


@pytest.fixture
def document(qapp):
    return Document()


def _card(qtbot, document, *paths):
    card = SettingsCard(document, "Title", paths)
    qtbot.addWidget(card)
    # Without a parent it lives as long as something in Python holds it; qtbot does not.
    document.card = card
    card.show()
    return card


def _type(qtbot, editor, text, key=Qt.Key.Key_Return):
    line = line_of(editor)
    line.setFocus()
    line.selectAll()
    qtbot.keyClicks(line, text)
    if key is not None:
        qtbot.keyClick(line, key)


# Numbers


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("1e-6", "float", 1e-6),
        ("1.0E-06", "float", 1e-6),
        ("0,5", "float", 0.5),
        (" 2 000 ", "int", 2000),
        ("1,000,000", "int", 1_000_000),
        ("9007199254740991", "int", 9007199254740991),
        ("5.0", "int", 5),
        ("\u22123", "int", -3),
    ],
)
def test_numbers_are_read_as_people_write_them(text, kind, value):
    read = parse_number(text, kind, ANY)
    assert read == value
    assert type(read) is (int if kind == "int" else float)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("", "int"), ("abc", "float"), ("1.5", "int"), ("nan", "float"), ("1e999", "float")],
)
def test_what_is_no_number_is_refused(text, kind):
    with pytest.raises(ValueError, match=r"number|possible"):
        parse_number(text, kind, ANY)


def test_the_range_is_kept():
    info = SettingInfo(label="", help="", minimum=0, maximum=1, exclusive_minimum=True)
    with pytest.raises(ValueError, match="above 0 to 1"):
        parse_number("0", "float", info)
    assert nudged(0.1, "float", -50, info) == 0.1
    assert nudged(1.0, "float", 3, info) == 1.0


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**15), 10**15))
def test_a_shown_number_reads_back_as_itself(value):
    kind = "int" if isinstance(value, int) else "float"
    assert parse_number(format_number(value), kind, ANY) == value


# Every setting


def test_every_setting_has_a_shape():
    rows = {(row.path, row.kind) for row in iterate_settings() if "[]" not in row.path}
    assert {(shape.path, shape.of_kind) for shape in shapes()} == rows


def _other_value(shape, now):
    """Return a value that is possible for ``shape`` and not the one it has."""
    if shape.kind == "switch":
        return not now
    if shape.values:
        kind = now["kind"] if shape.kind == "choice" else now
        return next(value for value, _ in shape.values if value != kind)
    if shape.kind in ("int", "float"):
        low, high = shape.info.minimum, shape.info.maximum
        step = 1 if shape.kind == "int" else 0.25
        value = now + step
        return value if high is None or value <= high else (low or 0) + step
    return ["mid_block"] if shape.kind == "texts" else "other"


@pytest.mark.parametrize("shape", EDITABLE, ids=lambda shape: shape.path)
def test_every_field_writes_its_setting_and_shows_it_again(qtbot, document, shape):
    card = _card(qtbot, document, shape.path)
    row = card.reveal(shape.path)
    now = document.value(shape.path)
    value = _other_value(shape, now)
    editor = row.editor
    match editor:
        case SwitchField():
            qtbot.mouseClick(editor, Qt.MouseButton.LeftButton)
        case SetField():
            index = [v for v, _ in shape.values].index(value)
            editor.setCurrentIndex(index)
            editor.activated.emit(index)
        case LinesField():
            editor.setFocus()
            editor.setPlainText("\n".join(value))
            qtbot.keyClick(editor, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
        case _:
            _type(qtbot, editor, format_number(value))
    held = document.value(shape.path)
    assert (held["kind"] if shape.kind == "choice" else held) == value
    assert document.decoded() is not None or document.problems()
    assert row.reset.isVisibleTo(row)
    assert row.mark.is_on
    qtbot.mouseClick(row.reset, Qt.MouseButton.LeftButton)
    assert document.value(shape.path) == now
    assert not row.reset.isVisibleTo(row)
    assert document.overlay().get(shape.path.split(".")[0]) is None


@pytest.mark.parametrize("shape", EDITABLE, ids=lambda shape: shape.path)
def test_every_field_has_a_name_and_help(qtbot, document, shape):
    row = _card(qtbot, document, shape.path).reveal(shape.path)
    target = line_of(row.editor)
    assert target.accessibleName()
    assert target.accessibleDescription()
    assert row.label.text()
    assert target.focusPolicy() & Qt.FocusPolicy.TabFocus


def test_options_follow_their_choice_and_keep_their_own_ranges(qtbot, document):
    card = _card(qtbot, document, "loss.weighting")
    assert card.row("loss.weighting.gamma") is None
    document.set_values({"loss.weighting": "min_snr"}, "weighting")
    row = card.row("loss.weighting.gamma")
    _type(qtbot, row.editor, "3")
    assert document.value("loss.weighting.gamma") == 3.0
    document.undo()
    assert card.row("loss.weighting.gamma").editor.text() == "5"
    document.undo()
    assert card.row("loss.weighting.gamma") is None
    for kind in ("raven_adamw", "lion"):
        assert {s.of_kind for s in options_of("optimizer", kind)} == {kind}


# Committing


def test_typing_changes_nothing_before_enter(qtbot, document):
    row = _card(qtbot, document, "training.steps").row("training.steps")
    _type(qtbot, row.editor, "25", key=None)
    assert document.value("training.steps") == 2000
    assert document.undo_title == ""
    qtbot.keyClick(row.editor, Qt.Key.Key_Return)
    assert document.value("training.steps") == 25


def test_leaving_a_field_commits_it(qtbot, document):
    card = _card(qtbot, document, "training.steps", "training.epochs")
    qtbot.waitUntil(card.isActiveWindow)
    _type(qtbot, card.row("training.steps").editor, "25", key=None)
    card.row("training.epochs").editor.setFocus()
    assert document.value("training.steps") == 25


def test_escape_brings_the_value_back(qtbot, document):
    row = _card(qtbot, document, "training.steps").row("training.steps")
    _type(qtbot, row.editor, "25", key=Qt.Key.Key_Escape)
    assert row.editor.text() == "2000"
    assert document.undo_title == ""


def test_a_refused_number_is_marked_and_leaves_the_document_alone(qtbot, document):
    row = _card(qtbot, document, "training.steps").row("training.steps")
    _type(qtbot, row.editor, "0")
    assert document.value("training.steps") == 2000
    assert "Allowed: 1 to" in row.message.text()
    assert row.message.isVisible()
    assert row.editor.property("invalid") == "true"
    _type(qtbot, row.editor, "7")
    assert row.message.isHidden()
    assert document.value("training.steps") == 7


def test_the_arrow_keys_nudge_as_one_step_of_undo(qtbot, document):
    row = _card(qtbot, document, "training.steps").row("training.steps")
    for _ in range(3):
        qtbot.keyClick(row.editor, Qt.Key.Key_Up)
    qtbot.keyClick(row.editor, Qt.Key.Key_Down, Qt.KeyboardModifier.ShiftModifier)
    assert document.value("training.steps") == 1993
    document.undo()
    assert document.value("training.steps") == 2000


def test_the_wheel_changes_no_drop_down(qtbot, document):
    row = _card(qtbot, document, "training.precision").row("training.precision")
    place = QPointF(5, 5)
    event = QWheelEvent(
        place,
        place,
        QPoint(),
        QPoint(0, -120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(row.editor, event)
    assert document.value("training.precision") == "bf16"
    assert row.editor.currentIndex() == 0


def test_a_path_can_be_dropped_where_it_fits(qtbot, document, tmp_path):
    row = _card(qtbot, document, "output.folder").row("output.folder")
    assert isinstance(row.editor, PathField)
    file = tmp_path / "file.txt"
    file.write_text("")

    def drop(path):
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(path))])
        event = QDropEvent(
            QPointF(4, 4),
            Qt.DropAction.CopyAction,
            data,
            Qt.MouseButton.LeftButton,
            Qt.KeyboardModifier.NoModifier,
            QEvent.Type.Drop,
        )
        row.editor.dropEvent(event)

    drop(file)
    assert document.value("output.folder") == "output"
    drop(tmp_path)
    assert document.value("output.folder") == str(tmp_path)


# Problems and marks


def test_a_problem_stands_under_the_field_it_is_about(qtbot, document):
    card = _card(qtbot, document, "model.base", "model.vae", "buckets.step")
    assert "No base model is chosen" in card.row("model.base").message.text()
    assert card.row("model.vae").message.isHidden()
    document.set_values({"buckets.step": 33}, "step")
    assert "multiple of 32" in card.row("buckets.step").message.text()
    document.set_values({"model.base": "x", "buckets.step": 64}, "mend")
    assert card.row("model.base").message.isHidden()
    assert card.row("buckets.step").message.isHidden()


def test_a_problem_behind_more_settings_opens_them(qtbot, document):
    card = _card(qtbot, document, "buckets.resolution", "buckets.step")
    assert not card.row("buckets.step").isVisible()
    document.set_values({"buckets.step": 33}, "step")
    assert card.row("buckets.step").isVisible()


def test_problems_of_parts_belong_to_the_whole():
    assert concerns("data.folders[0].path", "data.folders")
    assert concerns("loss.weighting.gamma", "loss.weighting")
    assert not concerns("loss.weightings", "loss.weighting")


def test_a_text_with_markup_is_shown_as_text(qtbot, document):
    card = _card(qtbot, document, "output.name")
    document.set_values({"output.name": "<b>x</b>"}, "name")
    row = card.row("output.name")
    assert row.editor.text() == "<b>x</b>"
    assert row.message.textFormat() == Qt.TextFormat.PlainText


def test_undo_keys_reach_the_document_once_a_field_is_committed(qtbot, document):
    row = _card(qtbot, document, "training.steps").row("training.steps")
    assert isinstance(row.editor, NumberField)
    assert shape_of("training.steps").kind == "int"
    _type(qtbot, row.editor, "25")
    assert not row.editor.keeps_undo()
    _type(qtbot, row.editor, "26", key=None)
    assert row.editor.keeps_undo()
