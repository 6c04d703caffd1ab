from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aozora.data.captions import read_caption
from aozora.errors import DatasetError
from aozora.file_names import index_captions

CAFE = "a photo of a cat, café"


@pytest.fixture
def read(tmp_path):
    def read_bytes(data: bytes, name="picture.txt"):
        (tmp_path / name).write_bytes(data)
        return read_caption(tmp_path / "picture.png", index_captions([name]))

    return read_bytes


def test_txt_comes_before_caption_and_both_before_the_name(tmp_path):
    image = tmp_path / "a_red_house.png"
    assert read_caption(image, index_captions([])).text == "a red house"
    (tmp_path / "a_red_house.caption").write_text("from caption", encoding="utf-8")
    found = read_caption(image, index_captions(["a_red_house.caption"]))
    assert (found.text, found.source) == ("from caption", "caption")
    (tmp_path / "a_red_house.TXT").write_text("from txt", encoding="utf-8")
    found = read_caption(image, index_captions(["a_red_house.caption", "a_red_house.TXT"]))
    assert (found.text, found.source) == ("from txt", "txt")


def test_of_two_spellings_of_the_extension_lower_case_is_taken():
    assert list(index_captions(["a.TXT", "a.txt", "a.Txt"]).beside("a")) == ["a.txt"]


@pytest.mark.parametrize(
    ("stem", "names", "expected"),
    [
        ("IMG_1", ["img_1.txt"], ["img_1.txt"]),
        ("caf\u00e9", ["cafe\u0301.txt"], ["cafe\u0301.txt"]),
        ("CAFE\u0301", ["caf\u00e9.TXT"], ["caf\u00e9.TXT"]),
        ("IMG_1", ["img_1.txt", "IMG_1.txt"], ["IMG_1.txt"]),
        ("IMG_1", ["img_1.txt", "IMG_1.caption"], ["IMG_1.caption", "img_1.txt"]),
        ("IMG_1", ["img_1.txt", "Img_1.txt", "img_1.caption"], ["img_1.caption"]),
        ("IMG_1", ["img_1.txt", "Img_1.txt"], []),
        ("IMG_1", ["img_11.txt"], []),
    ],
)
def test_a_caption_is_found_by_the_very_name_or_else_by_the_only_one_alike(stem, names, expected):
    assert list(index_captions(names).beside(stem)) == expected


def test_the_caption_of_a_name_that_differs_in_case_is_read(tmp_path):
    (tmp_path / "img_1.txt").write_text("a cat", encoding="utf-8")
    found = read_caption(tmp_path / "IMG_1.PNG", index_captions(["IMG_1.PNG", "img_1.txt"]))
    assert (found.text, found.source) == ("a cat", "txt")


@pytest.mark.parametrize(
    ("data", "expected"), [(b"one\ntwo", True), (b"\n one\n \n", False), (b"", False)]
)
def test_further_lines_are_noticed(read, data, expected):
    assert read(data).has_more_lines is expected


@pytest.mark.parametrize("data", [b"", b" \r\n\t \n", b"\xef\xbb\xbf"])
def test_an_empty_file_means_unconditional(read, data):
    found = read(data)
    assert (found.text, found.source) == ("", "txt")


@pytest.mark.parametrize(
    "data", [b"line one\r\nline two\r\n", b"line one\rline two", b"\n\nline one\n", b" line one "]
)
def test_the_first_line_that_is_not_blank_counts(read, data):
    found = read(data)
    assert found.text == "line one"
    assert not found.notes


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marked_encodings_are_read_without_a_note(read, encoding):
    found = read(CAFE.encode(encoding))
    assert found.text == CAFE
    assert not found.notes


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "cp1252"])
def test_other_encodings_are_read_with_a_note(read, encoding):
    found = read(CAFE.encode(encoding))
    assert found.text == CAFE
    assert "save it as UTF-8" in found.notes[0]


def test_bytes_that_are_no_text_are_said(read):
    found = read("猫の写真".encode("shift_jis"))
    assert any("Windows-1252" in note for note in found.notes)
    assert any("no text" in note for note in found.notes)


def test_controls_and_direction_marks_are_removed_with_a_note(read):
    found = read("a\x00b \u202ecat\u202c \x07red".encode())
    assert found.text == "a b cat  red"
    assert "control characters" in found.notes[0]


@pytest.mark.parametrize("text", ["cat 😀👩\u200d👩\u200d👧 🏳️\u200d🌈", "全角　空白", "<b>x</b>"])
def test_other_characters_are_kept(read, text):
    found = read(text.encode())
    assert found.text == text
    assert not found.notes


def test_long_captions_are_kept(read):
    assert len(read(b"tag, " * 20000).text) == 99_999


def test_a_caption_that_is_a_folder_is_said_and_the_name_taken(tmp_path):
    (tmp_path / "picture.txt").mkdir()
    found = read_caption(tmp_path / "picture.png", index_captions(["picture.txt"]))
    assert (found.text, found.source) == ("picture", "name")
    assert "not a regular file" in found.notes[0]


def test_an_enormous_caption_file_is_refused(read, monkeypatch):
    monkeypatch.setattr("aozora.data.captions._MAX_BYTES", 100)
    with pytest.raises(DatasetError, match="larger than"):
        read(b"x" * 101)


def test_names_that_are_no_unicode_can_be_shown(tmp_path):
    found = read_caption(tmp_path / "caf\udce9_noir.png", index_captions([]))
    assert found.text.isprintable()
    assert found.text.encode("utf-8")


@given(st.binary(max_size=200))
def test_any_bytes_give_one_clean_line(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("captions")
    (folder / "x.txt").write_bytes(data)
    text = read_caption(folder / "x.png", index_captions(["x.txt"])).text
    assert text == text.strip()
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text)
    text.encode("utf-8")
