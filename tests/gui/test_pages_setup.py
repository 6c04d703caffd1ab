"""The pages on which a run is set up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QImage
from PySide6.QtTest import QAbstractItemModelTester

from aozora.config.presets import shipped_presets
from gui import theme
from gui.document import Document
from gui.forms.settings_card import SettingsCard
from gui.forms.shapes import shapes
from gui.pages import data, model, optimizer, output, start
from gui.pages.bucket_chart import buckets_of
from gui.pages.memory_card import shown_parts
from gui.pages.picture_files import (
    PictureItem,
    is_small,
    list_pictures,
    passes,
    read_text,
    write_caption,
)
from gui.preferences import PreferenceKeeper
from gui.shell.estimate import memory_words, parse_estimate

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")


@pytest.fixture
def document(qapp):
    theme.apply(qapp, "dark")
    return Document()


@pytest.fixture
def make_page(qtbot, document):
    pages = []

    def make(cls):
        page = cls(document)
        pages.append(page)
        page.resize(900, 900)
        page.show()
        return page

    yield make
    for page in pages:
        close = getattr(page, "close_down", None)
        if close is not None:
            close()
        page.close()
        page.deleteLater()


def _picture(path, width=40, height=30, colour="#204060"):
    image = QImage(width, height, QImage.Format.Format_RGB32)
    image.fill(QColor(colour))
    assert image.save(str(path))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "inner").mkdir(parents=True)
    _picture(folder / "b.png")
    _picture(folder / "a.jpg", 2000, 1500)
    _picture(folder / "inner" / "c.png")
    (folder / "b.txt").write_text("first line\nsecond line\n", encoding="utf-8")
    (folder / "a.caption").write_text("  \n", encoding="utf-8")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "notes.md").write_text("x")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def _type(caption, text):
    """Put ``text`` in the place of all of ``caption``, as typing does."""
    caption.selectAll()
    caption.insertPlainText(text)


def _list(*folders, recursive=True):
    return list(list_pictures(folders, recursive=recursive, should_stop=lambda: False))


# Settings


def test_every_setting_with_a_field_is_on_a_page_of_cards(make_page):
    pages = [make_page(module.Page) for module in (model, data, optimizer, output)]
    here = {path for page in pages for card in page.cards() for path in card.paths}
    # Curve, bars, layers and length have pages of their own; folders have a list.
    elsewhere = {"schedule", "timesteps", "targets"}
    wanted = {
        shape.path
        for shape in shapes()
        if not shape.of_kind and shape.path.split(".")[0] not in elsewhere and shape.kind != "own"
    }
    assert wanted - here == {"training.steps", "training.epochs"}


@pytest.mark.parametrize("module", [model, data, optimizer, output, start])
@pytest.mark.parametrize("width", [560, 760, 1000])
def test_no_row_is_squeezed_or_cut(make_page, qtbot, module, width):
    page = make_page(module.Page)
    page.resize(width, 500)
    for card in page.findChildren(SettingsCard):
        for row in card.rows():
            if row.isVisible():
                assert row.height() >= row.minimumSizeHint().height()
                assert row.editor.geometry().right() <= row.width()
                assert row.reset.geometry().right() <= row.width()


# Pictures


def test_pictures_are_listed_in_order_with_size_and_caption(folder, qapp):
    found = _list(folder)
    assert [item.path.name for item in found] == ["a.jpg", "b.png", "broken.png", "c.png"]
    large, plain, broken, inner = found
    assert (large.width, large.height, large.has_caption) == (2000, 1500, False)
    assert large.caption_path == folder / "a.caption"
    assert plain.caption == "first line\nsecond line"
    assert broken.is_broken
    assert inner.caption_path is None
    assert [item.path.name for item in _list(folder, recursive=False)][-1] == "broken.png"
    assert len(_list(folder, folder)) == 4, "what is reached twice is there once"


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".gif", ".apng"])
def test_less_usual_pictures_are_shown_too(tmp_path, qapp, suffix):
    kind = {".gif": "GIF", ".apng": "PNG"}.get(suffix, "JPEG")
    Image.new("RGB", (40, 30)).save(tmp_path / f"a{suffix}", kind)
    (found,) = _list(tmp_path)
    assert (found.width, found.height) == (40, 30)


def test_a_caption_whose_name_differs_in_case_is_shown_and_written_where_it_is(tmp_path, qapp):
    _picture(tmp_path / "IMG_1.PNG")
    (tmp_path / "img_1.txt").write_text("a cat", encoding="utf-8")
    (found,) = _list(tmp_path)
    assert found.caption == "a cat"
    assert write_caption(found, "a dog") == tmp_path / "img_1.txt"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["IMG_1.PNG", "img_1.txt"]


def test_a_place_that_holds_no_folder_keeps_its_number(folder, qapp):
    found = _list(None, folder / "gone", Path("a\0b"), Path("a\ud800"), folder)
    assert {item.folder for item in found} == {4}


def test_a_folder_that_links_to_itself_ends(folder, qapp):
    try:
        (folder / "inner" / "up").symlink_to(folder, target_is_directory=True)
    except OSError:
        pytest.skip("links cannot be made here")
    assert len(_list(folder)) == 4


def test_the_filter_tells_pictures_apart(folder, qapp):
    by_name = {item.path.name: item for item in _list(folder)}
    assert passes(by_name["a.jpg"], "no_caption", "", 512)
    assert not passes(by_name["b.png"], "no_caption", "", 512)
    assert passes(by_name["b.png"], "small", "", 512)
    assert not is_small(by_name["a.jpg"], 512)
    assert passes(by_name["broken.png"], "broken", "", 512)
    assert not is_small(by_name["broken.png"], 512)
    assert passes(by_name["b.png"], "all", "SECOND first", 512)
    assert not passes(by_name["b.png"], "all", "third", 512)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_captions_are_read_in_any_usual_encoding(tmp_path, encoding):
    file = tmp_path / "a.txt"
    file.write_text("café <b>au lait</b>", encoding=encoding)
    assert read_text(file) == "café <b>au lait</b>"
    assert read_text(tmp_path / "none.txt") == ""


def test_a_caption_is_written_where_it_was_or_beside_the_picture(folder, qapp):
    by_name = {item.path.name: item for item in _list(folder)}
    assert write_caption(by_name["a.jpg"], "new").name == "a.caption"
    assert write_caption(by_name["c.png"], "new").name == "c.txt"
    again = {item.path.name: item for item in _list(folder)}
    assert again["a.jpg"].caption == again["c.png"].caption == "new"


# The Data page


def _scanned(page, qtbot, count):
    qtbot.waitUntil(lambda: not page.is_busy and len(page.model.items) == count, timeout=10_000)


@pytest.fixture
def gallery_page(make_page, document, qtbot, folder):
    """Return a function that makes the page with the pictures of ``folder`` read."""

    def make():
        page = make_page(data.Page)
        document.set_values({"data.folders": [{"path": str(folder)}]}, "folder")
        _scanned(page, qtbot, 4)
        return page

    return make


def test_the_gallery_shows_what_is_in_the_folders(make_page, document, qtbot, folder):
    page = make_page(data.Page)
    QAbstractItemModelTester(page.model, QAbstractItemModelTester.FailureReportingMode.Fatal)
    document.set_values({"data.folders": [{"path": str(folder)}]}, "folder")
    _scanned(page, qtbot, 4)
    assert page.model.rowCount() == 4
    row = page.folders.rows[0]
    assert "4 pictures, 3 without a caption" in row._words.text()
    page.gallery.filter.setCurrentIndex(3)
    page.gallery.filter.activated.emit(3)
    assert [page.model.item(n).path.name for n in range(page.model.rowCount())] == ["broken.png"]
    page.gallery.filter.setCurrentIndex(0)
    page.gallery.filter.activated.emit(0)
    page.gallery.words.setText("second")
    assert page.model.rowCount() == 1
    document.set_values({"data.folders": []}, "none")
    _scanned(page, qtbot, 0)


def test_thumbnails_are_made_for_what_is_seen(gallery_page, qtbot, folder):
    page = gallery_page()
    index = page.model.index(1)
    seen = Qt.ItemDataRole.DecorationRole
    qtbot.waitUntil(lambda: page.model.data(index, seen) is not None, timeout=10_000)
    assert page.model.data(index, seen).toImage().pixelColor(3, 3).name() == "#204060"
    assert page.model.data(page.model.index(2), seen) is None, "a broken file has none"


def test_a_caption_is_changed_in_the_window_as_plain_text(gallery_page, qtbot, folder):
    page = gallery_page()
    page.gallery.view.setCurrentIndex(page.model.index(1))
    caption = page.gallery.detail.caption
    assert caption.toPlainText() == "first line\nsecond line"
    caption.setFocus()
    _type(caption, "<b>bold?</b>")
    assert read_text(folder / "b.txt").startswith("first line"), "not while typing"
    qtbot.keyClick(caption, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    assert read_text(folder / "b.txt") == "<b>bold?</b>"
    assert page.model.item(1).caption == "<b>bold?</b>"
    _type(caption, "typed and left")
    page.gallery.view.setCurrentIndex(page.model.index(0))
    assert read_text(folder / "b.txt") == "typed and left"
    assert caption.toPlainText() == ""


def test_escape_gives_the_caption_back(gallery_page, qtbot, folder):
    page = gallery_page()
    page.gallery.view.setCurrentIndex(page.model.index(1))
    caption = page.gallery.detail.caption
    _type(caption, "never mind")
    qtbot.keyClick(caption, Qt.Key.Key_Escape)
    assert caption.toPlainText() == "first line\nsecond line"


def test_looking_at_captions_leaves_their_files_as_they_are(gallery_page, qtbot, folder):
    captions = {
        folder / "b.txt": b"first line\r\nsecond line\r\n",
        folder / "broken.txt": b"red\xc2\xa0dress",
        folder / "inner" / "c.txt": b"one\xe2\x80\xa8two\n",
    }
    for path, text in captions.items():
        path.write_bytes(text)
    page = gallery_page()
    caption = page.gallery.detail.caption
    for row in (0, 1, 2, 3, 0):
        page.gallery.view.setCurrentIndex(page.model.index(row))
        caption.commit()
    assert {path: path.read_bytes() for path in captions} == captions
    page.gallery.view.setCurrentIndex(page.model.index(2))
    _type(caption, "never mind")
    caption.undo()
    caption.commit()
    _type(caption, "never mind")
    qtbot.keyClick(caption, Qt.Key.Key_Escape)
    page.gallery.view.setCurrentIndex(page.model.index(0))
    assert {path: path.read_bytes() for path in captions} == captions


def test_what_undo_and_redo_make_of_a_written_caption_is_written_too(
    gallery_page, document, folder
):
    page = gallery_page()
    page.gallery.view.setCurrentIndex(page.model.index(1))
    caption = page.gallery.detail.caption
    _type(caption, "another")
    caption.commit()
    assert read_text(folder / "b.txt") == "another"
    while caption.document().isUndoAvailable():
        caption.undo()
    caption.commit()
    assert read_text(folder / "b.txt") == "first line\nsecond line"
    while caption.document().isRedoAvailable():
        caption.redo()
    caption.commit()
    assert read_text(folder / "b.txt") == "another"


def test_a_caption_that_is_being_typed_is_written_before_the_folders_are_read_anew(
    gallery_page, document, qtbot, folder
):
    page = gallery_page()
    page.gallery.view.setCurrentIndex(page.model.index(1))
    detail = page.gallery.detail
    _type(detail.caption, "half a word")
    with qtbot.captureExceptions() as faults:
        document.set_values({"data.recursive": False}, "recursive")
        _scanned(page, qtbot, 3)
    assert not faults
    assert read_text(folder / "b.txt") == "half a word"
    assert page.model.item(1).caption == "half a word"
    assert not detail.caption.isEnabled(), "no picture is chosen any more"
    assert detail.caption.toPlainText() == ""


def test_the_caption_of_a_picture_that_is_gone_from_the_list_is_read_all_the_same(
    gallery_page, document, qtbot, folder
):
    page = gallery_page()
    item = page.model.item(1)
    document.set_values({"data.folders": []}, "none")
    _scanned(page, qtbot, 0)
    with qtbot.waitSignal(page.model.edited) as edited:
        new = page.model.caption_changed(item, write_caption(item, "late"))
    assert new.caption == "late"
    assert edited.args == [item.path]
    assert page.model.items == []


@pytest.mark.parametrize("nothing", [{"path": ""}, {"repeats": 2}, {"path": 5}, {"path": "\0"}, 7])
def test_a_folder_without_a_place_does_not_keep_the_others_from_being_read(
    make_page, document, qtbot, folder, nothing
):
    page = make_page(data.Page)
    with qtbot.captureExceptions() as faults:
        document.set_values({"data.folders": [nothing, {"path": str(folder)}]}, "folders")
        _scanned(page, qtbot, 4)
    assert not faults
    assert {item.folder for item in page.model.items} == {1}
    empty, full = (row._words.text() for row in page.folders.rows)
    assert "4 pictures" in full
    assert "4 pictures" not in empty


def test_a_fault_while_folders_are_read_is_told_and_ends_the_reading(
    make_page, document, qtbot, folder, monkeypatch
):
    def list_some(folders, **how):
        yield from _list(folder, recursive=False)
        raise ZeroDivisionError

    monkeypatch.setattr("gui.pages.picture_model.list_pictures", list_some)
    page = make_page(data.Page)
    with qtbot.captureExceptions() as faults:
        document.set_values({"data.folders": [{"path": str(folder)}]}, "folder")
        _scanned(page, qtbot, 3)
    assert [kind for kind, *_ in faults] == [ZeroDivisionError]


def test_folders_are_added_changed_and_taken_out(make_page, document, qtbot, tmp_path):
    page = make_page(data.Page)
    folders = page.folders
    folders.add_folder(tmp_path / "gone")
    folders.add_folder(tmp_path)
    assert "stays in the list" in folders.rows[0]._words.text()
    field = folders.rows[1].repeats
    field.setFocus()
    field.selectAll()
    qtbot.keyClicks(field, "5")
    qtbot.keyClick(field, Qt.Key.Key_Return)
    assert document.value("data.folders")[1]["repeats"] == 5
    folders.rows[0]._remove()
    assert [f["path"] for f in document.value("data.folders")] == [str(tmp_path)]
    document.undo()
    assert len(folders.rows) == 2
    assert tmp_path.is_dir()


def test_an_offline_folder_is_never_dropped_from_the_settings(make_page, document, tmp_path):
    make_page(data.Page)
    gone = str(tmp_path / "unplugged")
    document.set_values({"data.folders": [{"path": gone, "repeats": 3}]}, "folder")
    document.save(tmp_path / "c.json")
    stored = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert stored["data"]["folders"][0]["path"] == gone


# Estimates on pages


def test_buckets_and_memory_come_from_the_engine_s_answer(make_page):
    bucket = {
        "width": 64,
        "height": 128,
        "num_images": 3,
        "num_samples": 6,
        "mean_crop_share": 0.02,
        "max_crop_share": 0.2,
    }
    memory = {
        "arrangement": "Fits.",
        "vram_parts": [["weights", 5 * 2**30]],
        "vram_range": [4 * 2**30, 6 * 2**30],
        "ram_parts": [],
    }
    summary = {"buckets": [bucket], "memory": memory}
    estimate = parse_estimate({"problems": [], "notes": [], "summary": summary})
    assert buckets_of(estimate.summary)[0].samples == 6
    page = make_page(data.Page)
    assert page.buckets.isHidden()
    page.show_estimate(estimate)
    assert not page.buckets.isHidden()
    assert "64 by 128: 3 pictures" in page.buckets.accessibleDescription()
    takes = make_page(optimizer.Page)
    takes.show_estimate(estimate)
    assert takes._takes.words.text() == "Fits."
    assert "weights 5.0 GiB" in takes._takes.vram.accessibleDescription()
    assert takes._takes.vram.accessibleDescription().startswith(memory_words(estimate, "vram"))
    assert takes._takes.ram.isHidden()


def test_small_parts_of_memory_are_one_part():
    parts = [(str(n), (20 - n) * 2**20) for n in range(12)] + [("tiny", 1)]
    shown = shown_parts(parts)
    assert len(shown) == 8
    assert sum(size for _, size in shown) == sum(size for _, size in parts)
    assert shown_parts([("a", 2**30), ("b", 5)]) == [("a", 2**30)]


# Model


def test_the_model_page_tells_what_the_model_is(make_page, document, qtbot, tmp_path):
    page = make_page(model.Page)
    assert "Choose a base model" in page.facts._words.text()
    document.set_values({"model.base": str(tmp_path / "none.safetensors")}, "model")
    assert "no such file" in page.facts._words.text()
    (tmp_path / "bad.safetensors").write_bytes(b"rubbish")
    document.set_values({"model.base": str(tmp_path / "bad.safetensors")}, "model")
    assert page.is_busy
    qtbot.waitUntil(lambda: not page.is_busy, timeout=60_000)
    assert page.facts._words.text().startswith(str(tmp_path / "bad.safetensors"))


def test_facts_are_shown_in_words():
    facts = {"kind": "model", "num_bytes": 6.9e9, "zero terminal SNR": True, "custom_thing": 3}
    assert model.fact_rows({**facts, "file": "left out", "empty": ""}) == [
        ("Kind", "model"),
        ("Size", "6.9 GB"),
        ("Zero terminal SNR", "yes"),
        ("Custom thing", "3"),
    ]


# Start


def test_a_chosen_preset_is_marked_also_after_undo(make_page, document, qtbot):
    page = make_page(start.Page)
    presets = shipped_presets()
    page.preset_chosen.connect(document.apply_preset)
    card = next(c for c in page.presets.cards if c.preset.name == "sdxl-v-prediction")
    qtbot.mouseClick(card, Qt.MouseButton.LeftButton)
    assert document.value("objective.prediction") == {"kind": "v_prediction"}
    assert [c.preset.name for c in page.presets.cards if c.isChecked()] == ["sdxl-v-prediction"]
    document.apply_preset(presets["smoke-test"])
    assert [c.preset.name for c in page.presets.cards if c.isChecked()] == ["smoke-test"]
    document.undo()
    assert [c.preset.name for c in page.presets.cards if c.isChecked()] == ["sdxl-v-prediction"]


def test_recent_files_are_listed_and_opened(make_page, qtbot, tmp_path):
    page = make_page(start.Page)
    keeper = PreferenceKeeper(tmp_path / "w.json")
    page.set_preferences(keeper)
    keeper.take(keeper.now.with_recent(tmp_path / "one.json"))
    opened = []
    page.file_chosen.connect(opened.append)
    button = page._recent.itemAt(0).widget()
    assert button.text().strip() == "one"
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert opened == [tmp_path / "one.json"]


def test_the_first_folder_can_be_given_on_the_start_page(make_page, document, tmp_path):
    make_page(start.Page)
    from gui.pages.start import _PicturesRow

    row = _PicturesRow(document)
    row._commit(str(tmp_path))
    assert document.value("data.folders")[0]["path"] == str(tmp_path)
    row._commit("")
    assert document.value("data.folders") == []


def test_an_item_without_a_size_is_broken(tmp_path):
    assert PictureItem(tmp_path, 0, 0, 5, "", None).is_broken
