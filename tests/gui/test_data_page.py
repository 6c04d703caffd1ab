"""Lengths of captions and what is encoded already, as the Data page shows them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PySide6.QtCore import QEvent, QPoint, Qt
from PySide6.QtGui import QColor, QImage
from PySide6.QtTest import QTest

from gui import theme
from gui.document import Document
from gui.engine.host import EngineHost
from gui.pages import data
from gui.pages.data_counter import DataCounter
from gui.pages.data_facts import (
    CacheCounts,
    counting_words,
    encoded_words,
    fact_lines,
    folder_words,
    length_words,
    parse_facts,
    path_key,
    whole_words,
)
from gui.pages.picture_delegate import badges_of
from gui.pages.picture_files import list_pictures, passes
from gui.pages.token_chart import TokenChart, bar_words, histogram, tick_step
from gui.preferences import PreferenceKeeper
from gui.shell.checker import ConfigQuestion
from gui.shell.window import MainWindow
from tests.gui.shell_fakes import FakeBody, FakeDialogs

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")

COUNTS = {"pictures": 3, "captions": 4, "new_pictures": 1, "new_captions": 2}


def _row(path, num_tokens=5, *, same_as="", encoded=True, caption_encoded=True):
    return {
        "path": str(path),
        "num_tokens": num_tokens,
        "same_as": str(same_as),
        "is_encoded": encoded,
        "is_caption_encoded": caption_encoded,
    }


def _answer(rows, **changes):
    return {
        "token_limit": 75,
        "tokens_per_chunk": 75,
        "pictures": rows,
        "left_out": [],
        "folders": [COUNTS],
        "whole": COUNTS,
        **changes,
    }


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in "abcd":
        image = QImage(40, 30, QImage.Format.Format_RGB32)
        image.fill(QColor("#204060"))
        assert image.save(str(folder / f"{name}.png"))
        (folder / f"{name}.txt").write_text(f"words of {name}", encoding="utf-8")
    return folder


@pytest.fixture
def answer(folder):
    """What the engine would say: a is long, b is a copy of it, c is new, d is left out."""
    rows = [
        _row(folder / "a.png", 80),
        _row(folder / "b.png", 7, same_as=folder / "a.png"),
        _row(folder / "c.png", 75, encoded=False),
    ]
    return _answer(rows, left_out=[[str(folder / "d.png"), "too small"]])


# The histogram


@given(
    st.lists(st.integers(0, 2000), max_size=60),
    st.sampled_from([75, 150, 225]),
)
def test_every_caption_is_in_the_bar_of_its_length(lengths, limit):
    shown = histogram(lengths, limit, 75)
    assert sum(bar.count for bar in shown.bars) == len(lengths)
    for bar in shown.bars:
        last = bar.last if bar.last is not None else 10**9
        assert bar.count == sum(bar.first <= length <= last for length in lengths)
        assert all(not bar.first <= mark < last for mark in shown.marks), "a mark inside a bar"
    assert shown.marks[-1] == limit <= shown.end
    assert len(shown.bars) <= 60
    assert shown.end % tick_step(shown.end, 75) == 0


def test_75_tokens_stand_before_the_mark_and_76_behind_it():
    shown = histogram([0, 75, 76], 75, 75)
    spans = [(bar.first, bar.last) for bar in shown.bars if bar.count]
    assert spans == [(0, 5), (71, 75), (76, 80)]
    assert histogram([10], 225, 75).marks == (75, 150, 225)
    assert "76 to 80 tokens: 1 caption" in map(bar_words, shown.bars)
    assert bar_words(histogram([900], 75, 75).bars[-1]).endswith("tokens and more: 1 caption")


def test_the_chart_tells_cut_captions_by_colour_and_says_its_bars(qtbot, qapp):
    theme.apply(qapp, "dark")
    chart = TokenChart()
    qtbot.addWidget(chart)
    chart.resize(500, chart.sizeHint().height())
    chart.show_lengths([3, 3, 80], 75, 75)
    chart.show()
    assert chart.accessibleDescription() == "0 to 5 tokens: 2 captions; 76 to 80 tokens: 1 caption"
    picture = chart.grab().toImage()

    def colour(x):
        return picture.pixelColor(round(x), chart.height() - 42)

    assert chart.bar_at(0) == -1
    number = {chart.bar_at(x): x for x in range(500)}
    blue, orange = colour(number[0] - 5), colour(number[15] - 5)
    assert blue.blue() > blue.red()
    assert orange.red() > orange.blue()
    QTest.mouseMove(chart, QPoint(number[0] - 5, 100))
    qtbot.waitUntil(lambda: chart.grab().toImage() != picture)


# Words


def test_words_say_how_much_is_encoded_and_what_the_next_start_does():
    done = CacheCounts(pictures=3, captions=4, new_pictures=0, new_captions=0)
    none = CacheCounts(pictures=3, captions=4, new_pictures=3, new_captions=4)
    some = CacheCounts(**COUNTS)
    one = CacheCounts(pictures=3, captions=4, new_pictures=0, new_captions=1)
    assert folder_words(done) == "all encoded"
    assert folder_words(none) == "not encoded yet"
    assert folder_words(some) == "not encoded yet: 1 picture and 2 captions"
    assert folder_words(one) == "not encoded yet: 1 caption"
    assert whole_words(done).startswith("Encoded already: all, 3 different pictures")
    assert whole_words(some) == (
        "Encoded already: 2 of 3 different pictures and 2 of 4 different captions."
        " The next start encodes 1 picture and 2 captions."
    )


def test_words_say_what_is_still_being_counted(answer):
    facts = parse_facts(answer)
    assert "Counting" in counting_words(None, "now", "")[0]
    assert "again" in counting_words(facts, "now", "")[0]
    assert counting_words(None, "no", "broken")[1] == "warn"
    assert "folder" in counting_words(None, "no", "")[0]
    assert "once the run has ended" in counting_words(None, "after the run", "")[0]
    assert "Counting" in encoded_words(facts, "now")
    assert "once the run has ended" in encoded_words(facts, "after the run")
    unknown = parse_facts({**answer, "whole": None, "folders": []})
    assert "base model" in encoded_words(unknown, "no")
    assert "1 picture and 2 captions" in encoded_words(facts, "no")


def test_words_say_how_many_captions_are_cut(answer, folder):
    assert "longest has 80" in length_words(parse_facts(answer))
    assert "One is cut after 75 tokens" in length_words(parse_facts(answer))
    assert "read in full" in length_words(parse_facts({**answer, "token_limit": 150}))
    two = _answer([_row(folder / "a.png", 80), _row(folder / "b.png", 90)])
    assert "2 of 2 are cut after 75 tokens" in length_words(parse_facts(two))


def test_a_picture_is_told_what_the_engine_says_of_it(answer, folder):
    facts = parse_facts(answer)
    lines = {name: " ".join(fact_lines(folder / f"{name}.png", facts)) for name in "abcde"}
    assert "80 tokens, cut after 75" in lines["a"]
    assert "encoded already" in lines["a"]
    assert "The same file as a.png" in lines["b"]
    assert "caption is encoded; the picture will be" in lines["c"]
    assert lines["d"] == "Left out of training: too small."
    assert lines["e"] == ""
    assert fact_lines(folder / "a.png", None) == []


def test_an_answer_of_another_kind_is_refused():
    for wrong in (None, [], {"token_limit": 75}, _answer([{"path": "a"}])):
        with pytest.raises(ValueError, match="no answer about a dataset"):
            parse_facts(wrong)


def test_a_path_that_is_no_text_has_a_name_all_the_same():
    assert path_key(Path("a\udcff.png")) == "a\\xff.png"


# Filters and badges


def test_what_only_the_engine_knows_can_be_filtered_once_it_has_said_so(answer, folder, qapp):
    facts = parse_facts(answer)
    items = {
        item.path.stem: item
        for item in list_pictures([folder], recursive=False, should_stop=lambda: False)
    }
    for wanted, name in (("cut", "a"), ("repeated", "b"), ("new", "c"), ("left_out", "d")):
        assert [n for n, item in items.items() if passes(item, wanted, "", 1, facts)] == [name]
        assert not any(passes(item, wanted, "", 1) for item in items.values())
    assert not passes(items["a"], "cut", "other", 1, facts)
    assert badges_of(items["a"], 1, facts) == ["scissors"]
    assert badges_of(items["b"], 1, facts) == ["copies"]
    assert badges_of(items["c"], 1, facts) == []
    assert badges_of(items["d"], 100, facts) == ["warning", "close"]


# Asking


class Asked:
    """Stands in for the child process: remembers questions and answers when it is told to."""

    def __init__(self, patch):
        self.configs = []
        self.question = None
        self.is_asking = False
        patch.setattr(ConfigQuestion, "ask", lambda question, *what: self._ask(question, *what))
        patch.setattr(ConfigQuestion, "drop", lambda question: self._drop())
        patch.setattr(ConfigQuestion, "is_asking", property(lambda question: self.is_asking))

    def _ask(self, question, verb, config):
        assert verb == "dataset"
        self.question, self.is_asking = question, True
        self.configs.append(config)

    def _drop(self):
        self.is_asking = False

    def answer(self, data, failure=""):
        self.is_asking = False
        self.question.answered.emit(data, failure)


@pytest.fixture
def asked(monkeypatch):
    monkeypatch.setattr("gui.pages.data_counter._SETTLE_MS", 0)
    return Asked(monkeypatch)


@pytest.fixture
def document(qapp, folder):
    theme.apply(qapp, "dark")
    document = Document()
    document.set_values({"data.folders": [{"path": str(folder)}]}, "folder")
    return document


@pytest.fixture
def counter(document, asked):
    counter = DataCounter(document)
    yield counter
    counter.stop()
    counter.deleteLater()


def _asks(qtbot, asked, number):
    qtbot.waitUntil(lambda: len(asked.configs) == number)


def test_the_engine_is_asked_once_the_page_is_seen_and_the_engine_free(
    counter, asked, qtbot, answer
):
    assert counter.counting == "now"
    counter.set_engine(is_checking=True, is_running=False)
    counter.set_seen(True)
    assert not counter.is_busy
    counter.set_engine(is_checking=False, is_running=False)
    _asks(qtbot, asked, 1)
    assert set(asked.configs[0]) == {"schema", "data"}
    asked.answer(answer)
    assert counter.facts.token_limit == 75
    assert counter.counting == "no"
    counter.set_seen(False)
    counter.set_seen(True)
    assert not counter.is_busy, "the answer still holds"


def test_only_what_concerns_the_pictures_is_counted_again(counter, asked, qtbot, document, answer):
    counter.set_seen(True)
    counter.set_engine(is_checking=False, is_running=False)
    _asks(qtbot, asked, 1)
    asked.answer(answer)
    document.set_values({"training.steps": 7}, "steps")
    assert counter.facts is not None
    assert not counter.is_busy
    document.set_values({"captions.tokens": 150}, "tokens")
    assert counter.facts is None
    _asks(qtbot, asked, 2)
    assert asked.configs[1]["captions"] == {"tokens": 150}
    assert "training" not in asked.configs[1], "a fault elsewhere would keep the answer back"
    document.set_values({"data.folders": []}, "none")
    assert not asked.is_asking
    assert counter.counting == "no"


def test_a_run_is_not_disturbed_and_what_it_encoded_is_counted(counter, asked, qtbot, answer):
    counter.set_seen(True)
    counter.set_engine(is_checking=False, is_running=False)
    _asks(qtbot, asked, 1)
    counter.set_engine(is_checking=False, is_running=True)
    assert not asked.is_asking
    assert not counter.is_busy
    assert counter.counting == "after the run"
    counter.set_engine(is_checking=False, is_running=False)
    _asks(qtbot, asked, 2)
    asked.answer(answer)
    assert counter.facts is not None


def test_a_failure_is_told_and_the_next_change_asks_again(counter, asked, qtbot, document):
    counter.set_seen(True)
    counter.set_engine(is_checking=False, is_running=False)
    _asks(qtbot, asked, 1)
    asked.answer(None, "Error: there is no such folder")
    assert counter.failure == "there is no such folder"
    document.set_values({"data.recursive": False}, "recursive")
    assert counter.failure == ""
    _asks(qtbot, asked, 2)
    asked.answer({"unlike": 1})
    assert "no answer" in counter.failure


def test_the_engine_answers_about_a_real_folder(qapp, qtbot, document, folder, tmp_path):
    (folder / "a.txt").write_text("sky " * 80, encoding="utf-8")
    (folder / "broken.png").write_bytes(b"no picture")
    document.set_values({"cache.folder": str(tmp_path / "cache"), "buckets.upscale": True}, "cache")
    counter = DataCounter(document)
    counter.set_seen(True)
    counter.set_engine(is_checking=False, is_running=False)
    qtbot.waitUntil(lambda: counter.counting == "no", timeout=60_000)
    assert counter.failure == ""
    facts = counter.facts
    assert facts.of(folder / "a.png").num_tokens == 80
    assert [facts.of(folder / f"{n}.png").same_as != "" for n in "abcd"] == [
        False,
        True,
        True,
        True,
    ]
    assert facts.reason_for(folder / "broken.png")
    assert facts.whole is None
    counter.stop()


# The page


@pytest.fixture
def page(document, asked, qtbot):
    page = data.Page(document)
    page.resize(900, 900)
    page.show()
    page.set_engine(is_checking=False, is_running=False)
    _asks(qtbot, asked, 1)
    qtbot.waitUntil(lambda: not page.model.is_scanning and len(page.model.items) == 4)
    yield page
    page.close_down()
    page.close()
    page.deleteLater()


def test_the_page_shows_lengths_and_what_is_encoded(page, asked, answer):
    assert page.lengths.isHidden()
    assert "Counting" in page._length_words.text()
    assert "Counting" in page.folders._whole.text()
    asked.answer(answer)
    assert not page.lengths.isHidden()
    assert "One is cut" in page._length_words.text()
    assert "76 to 80 tokens: 1 caption" in page.lengths.accessibleDescription()
    assert "not encoded yet: 1 picture and 2 captions" in page.folders.rows[0]._words.text()
    assert "The next start encodes" in page.folders._whole.text()
    counts = page.gallery._counts.text().replace("\u00a0", " ")
    assert "1 cut" in counts
    assert "1 repeated" in counts


def test_the_cut_ones_are_shown_at_a_press(page, asked, answer, qtbot):
    page.gallery.show_only("cut")
    assert "not counted these yet" in page.gallery._nothing.text()
    page.gallery.show_only("all")
    asked.answer(answer)
    qtbot.mouseClick(page.cut_button, Qt.MouseButton.LeftButton)
    names = [page.model.item(row).path.name for row in range(page.model.rowCount())]
    assert names == ["a.png"]
    page.gallery.view.setCurrentIndex(page.model.index(0))
    assert "cut after 75" in page.gallery.detail._engine.text()
    asked.answer({**answer, "token_limit": 150})
    assert page.cut_button.isHidden()
    assert page.model.rowCount() == 0


def test_no_count_widens_the_page(page, asked, answer, monkeypatch):
    narrowest = page.widget().minimumSizeHint().width()
    monkeypatch.setattr(page.model, "count", lambda wanted: 123_456)
    asked.answer(answer)
    page.gallery.view.setCurrentIndex(page.model.index(0))
    assert "123456 repeated" in page.gallery._counts.text().replace("\u00a0", " ")
    assert page.widget().minimumSizeHint().width() == narrowest


def test_a_changed_caption_is_counted_again(page, asked, answer, qtbot, folder):
    asked.answer(answer)
    page.gallery.view.setCurrentIndex(page.model.index(0))
    caption = page.gallery.detail.caption
    caption.selectAll()
    caption.insertPlainText("short now")
    caption.commit()
    assert page.counter.facts.of(folder / "a.png") is None, "what was said is no longer true"
    assert page.gallery.detail._engine.isHidden()
    assert "again" in page._length_words.text()
    _asks(qtbot, asked, 2)
    asked.answer(_answer([_row(folder / "a.png", 2, caption_encoded=False)]))
    assert "Caption of 2 tokens." in page.gallery.detail._engine.text()


def test_thumbnails_carry_marks_and_tips(page, asked, answer, qapp):
    asked.answer(answer)
    index = page.model.index(0)
    assert "cut after 75" in page.model.data(index, Qt.ItemDataRole.ToolTipRole)
    place = page.gallery.view.visualRect(index)
    marked = page.gallery.view.viewport().grab(place).toImage()
    page.counter.forget(Path(page.model.item(0).path))
    qapp.sendPostedEvents(None, QEvent.Type.UpdateRequest)
    assert page.gallery.view.viewport().grab(place).toImage() != marked


# The window


def test_the_window_tells_the_page_when_the_engine_is_free(qtbot, asked, document, tmp_path):
    host = EngineHost(make_body=lambda job, mode: FakeBody(job, mode, ()))
    window = MainWindow(
        PreferenceKeeper(tmp_path / "window.json"),
        document=document,
        host=host,
        dialogs=FakeDialogs(),
    )
    window.checker.pause(True)
    window.show()
    window.show_page("data")
    page = window.pages.page("data")
    assert not page.counter.is_busy, "a run goes on"
    window.checker.pause(False)
    _asks(qtbot, asked, 1)
    window.dialogs.answers.update(unsaved="discard")
    window.close()
    window.deleteLater()


def test_the_file_that_hands_the_settings_over_is_removed(qtbot, qapp, monkeypatch):
    monkeypatch.setattr("gui.engine.program.engine_program", lambda: "no-such-program")
    question = ConfigQuestion()
    with qtbot.waitSignal(question.answered) as answered:
        question.ask("dataset", {"schema": 1})
        file = question._file
        assert json.loads(file.read_text(encoding="utf-8")) == {"schema": 1}
    assert answered.args[0] is None
    assert not file.exists()
    assert not question.is_asking


def test_a_file_that_is_still_open_elsewhere_does_not_keep_the_next_question_back(
    qtbot, qapp, monkeypatch, caplog
):
    monkeypatch.setattr("gui.engine.program.engine_program", lambda: "no-such-program")
    question = ConfigQuestion()
    left = []

    def refuse(path, missing_ok=False):
        left.append(path)
        raise PermissionError(13, "The process cannot access the file")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        for _ in range(2):
            with qtbot.waitSignal(question.answered) as answered:
                question.ask("dataset", {"schema": 1})
            assert answered.args[0] is None
    assert len(left) == 2
    assert caplog.text.count("is left behind") == 2
    for path in left:
        path.unlink()


def test_a_question_that_cannot_be_written_down_is_answered_with_the_reason(
    qtbot, qapp, monkeypatch, tmp_path
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def refuse(config, file):
        raise OSError(28, "No space left on device")

    question = ConfigQuestion()
    monkeypatch.setattr("gui.shell.checker.json.dump", refuse)
    with qtbot.waitSignal(question.answered) as answered:
        question.ask("dataset", {"schema": 1})
    assert answered.args[0] is None
    assert "No space left" in answered.args[1]
    assert not list(tmp_path.iterdir())
    assert not question.is_asking
