from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import aozora
from aozora.data import scan_index
from aozora.data.scan import scan_folders
from aozora.errors import DatasetError
from aozora.file_names import OTHER_PICTURES, PICTURES

posix_only = pytest.mark.skipif(os.name == "nt", reason="needs POSIX files")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "set"
    made.mkdir()
    return made


def names(report):
    return [record.relative for record in report.records]


def reasons(report):
    return {Path(item.path).name: item.reason for item in report.skipped}


def scan(*folders, **options):
    pairs = [f if isinstance(f, tuple) else (f, 1) for f in folders]
    return scan_folders(pairs, workers=2, **options)


def test_pictures_are_found_whatever_the_case_in_a_fixed_order(folder, photo):
    (folder / "b" / "deep").mkdir(parents=True)
    for name in ("Z.PNG", "a.JPeG", "b/c.webp", "b/deep/d.BMP", "e.tif", "f.jpg", "g.tiff"):
        photo().save(folder / name)
    report = scan(folder)
    assert names(report) == sorted(names(report))
    assert len(report.records) == 7
    assert all((r.height, r.width) == (64, 96) for r in report.records)
    assert names(scan(folder, recursive=False)) == ["Z.PNG", "a.JPeG", "e.tif", "f.jpg", "g.tiff"]


def test_hidden_and_unfinished_files_and_other_kinds_are_ignored(folder, photo):
    photo().save(folder / "a.png")
    (folder / ".hidden").mkdir()
    for name in ("._a.png", ".hidden/b.png", "c.png.123.partial", "Thumbs.db", "d.mp4"):
        (folder / name).write_bytes(b"x")
    report = scan(folder)
    assert names(report) == ["a.png"]
    assert not report.skipped


def test_bad_files_are_listed_with_a_reason_and_the_rest_goes_on(folder, photo):
    photo().save(folder / "good.png")
    data = (folder / "good.png").read_bytes()
    (folder / "cut.png").write_bytes(data[: len(data) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_bytes(b"hello" * 20)
    (folder / "folder.png").mkdir()
    report = scan(folder)
    assert names(report) == ["good.png"]
    assert set(reasons(report)) == {"cut.png", "empty.png", "text.png"}
    assert "cannot be decoded" in reasons(report)["cut.png"]


@posix_only
def test_pipes_links_in_a_circle_and_dangling_links_do_no_harm(folder, photo):
    photo().save(folder / "a.png")
    os.mkfifo(folder / "fifo.png")
    (folder / "dangling.png").symlink_to("/nowhere/x.png")
    (folder / "loop").symlink_to(".")
    report = scan(folder)
    assert names(report) == ["a.png"]
    assert not any("more than once" in w for w in report.warnings)
    assert reasons(report)["fifo.png"] == "not a regular file"
    assert "no such file" in reasons(report)["dangling.png"]


@posix_only
def test_names_that_are_no_unicode_are_used(folder, photo):
    photo().save(folder / "a.png")
    os.rename(folder / "a.png", os.fsencode(folder) + b"/caf\xe9.png")
    index = folder.parent / "index.json"
    for decoded in (1, 0):
        report = scan(folder, index=index)
        assert report.decoded == decoded
        report.records[0].relative.encode("utf-8")


@posix_only
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read all")
def test_a_file_without_permission_is_listed_and_tried_again(folder, photo):
    photo().save(folder / "a.png")
    photo().save(folder / "b.png")
    (folder / "b.png").chmod(0)
    index = folder.parent / "index.json"
    assert reasons(scan(folder, index=index)) == {"b.png": "permission denied"}
    (folder / "b.png").chmod(0o600)
    assert len(scan(folder, index=index).records) == 2


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.jfif", "JPEG"), ("a.JPE", "JPEG"), ("a.gif", "GIF"), ("a.apng", "PNG")],
)
def test_less_usual_extensions_are_read_too(folder, photo, name, kind):
    photo().save(folder / name, kind)
    report = scan(folder)
    assert names(report) == [name]
    assert not any("first is used" in text for text in report.warnings)


@pytest.mark.parametrize(("name", "kind"), [("a.gif", "GIF"), ("a.apng", "PNG")])
def test_of_a_moving_picture_the_first_frame_is_used_with_a_note(folder, photo, name, kind):
    photo().save(folder / name, kind, save_all=True, append_images=[photo(tint=50)])
    report = scan(folder)
    assert names(report) == [name]
    assert any("the first is used" in text for text in report.warnings)


def test_pictures_of_kinds_that_cannot_be_read_are_told_once_a_folder(folder, photo):
    photo().save(folder / "a.png")
    (folder / "inner").mkdir()
    for name in ("b.heic", "c.HEIC", "inner/d.psd"):
        (folder / name).write_bytes(b"x")
    (folder / "b.txt").write_text("a cat", encoding="utf-8")
    report = scan(folder)
    assert names(report) == ["a.png"]
    (text,) = [w for w in report.warnings if "left out" in w]
    assert "3 pictures are left out" in text
    assert "(2 .heic, 1 .psd)" in text
    assert "save them as PNG or JPEG" in text
    assert not any("have no picture" in w for w in report.warnings)


def test_captions_with_more_lines_are_counted(folder, photo):
    for name, text in (("a", "one\ntwo\nthree"), ("b", "one\n\n"), ("c", "\none\ntwo")):
        photo().save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    report = scan(folder)
    assert [r.caption for r in report.records] == ["one"] * 3
    text = "2 of 3 captions have more lines; only the first is trained"
    assert report.warnings == (text,)


def test_a_caption_whose_name_differs_in_case_or_accents_is_used(folder, photo):
    photo().save(folder / "IMG_1.PNG")
    photo().save(folder / "caf\u00e9.png")
    (folder / "img_1.txt").write_text("first", encoding="utf-8")
    (folder / "cafe\u0301.txt").write_text("second", encoding="utf-8")
    report = scan(folder)
    assert [r.caption for r in report.records] == ["first", "second"]
    assert not report.warnings


def test_captions_are_found_and_counted(folder, photo):
    for name in ("a", "b", "c"):
        photo().save(folder / f"{name}.png")
    (folder / "a.txt").write_text("first", encoding="utf-8")
    (folder / "b.TXT").write_text("", encoding="utf-8")
    (folder / "orphan.txt").write_text("x", encoding="utf-8")
    report = scan(folder)
    assert [r.caption for r in report.records] == ["first", "", "c"]
    text = "\n".join(report.warnings)
    assert "1 of 3 pictures have no caption file" in text
    assert "1 of 3 pictures have an empty caption" in text
    assert "1 caption files have no picture" in text


def test_a_caption_that_cannot_be_decoded_as_utf8_names_the_file(folder, photo):
    photo().save(folder / "a.png")
    (folder / "a.txt").write_bytes(b"it\x92s a cat")
    report = scan(folder)
    assert report.records[0].caption == "it\u2019s a cat"
    assert any("a.png" in w and "Windows-1252" in w for w in report.warnings)


def test_pictures_that_share_a_stem_are_kept_apart(folder, photo):
    photo().save(folder / "a.png")
    photo().save(folder / "a.jpg")
    (folder / "a.txt").write_text("both", encoding="utf-8")
    report = scan(folder)
    assert [(r.relative, r.caption) for r in report.records] == [
        ("a.jpg", "both"),
        ("a.png", "both"),
    ]
    assert any("differ in the extension" in w for w in report.warnings)


@posix_only
def test_pictures_that_share_a_caption_file_whatever_its_case_are_told(folder, photo):
    for name in ("IMG.png", "img.jpg", "TWO.png", "two.png"):
        photo().save(folder / name)
    for name in ("img", "TWO", "two"):
        (folder / f"{name}.txt").write_text(name, encoding="utf-8")
    report = scan(folder)
    assert {r.relative: r.caption for r in report.records} == {
        "IMG.png": "img",
        "img.jpg": "img",
        "TWO.png": "TWO",
        "two.png": "two",
    }
    (text,) = report.warnings
    assert "1 names are shared" in text
    assert text.endswith(": img")


def test_equal_names_in_two_folders_are_told_apart(tmp_path, photo):
    for name in ("one", "two", "other/two"):
        (tmp_path / name).mkdir(parents=True)
        photo().save(tmp_path / name / "a.png")
    report = scan((tmp_path / "one", 1), (tmp_path / "two", 5), tmp_path / "other" / "two")
    assert names(report) == ["a.png", "two/a.png", "two/a.png (2)"]
    assert [r.repeats for r in report.records] == [1, 5, 1]
    assert any("same name" in w for w in report.warnings)


def test_a_file_in_two_folders_counts_once_with_the_deeper_one(folder, photo):
    (folder / "sub").mkdir()
    photo().save(folder / "a.png")
    photo().save(folder / "sub" / "b.png")
    for order in ([(folder, 1), (folder / "sub", 4)], [(folder / "sub", 4), (folder, 1)]):
        report = scan(*order)
        assert {r.path.name: r.repeats for r in report.records} == {"a.png": 1, "b.png": 4}
        assert any("more than once" in w for w in report.warnings)
    assert len(scan(folder, folder).records) == 2


def test_missing_folders_and_empty_ones_are_errors_with_a_remedy(folder, tmp_path):
    with pytest.raises(DatasetError, match="no such folder") as caught:
        scan(tmp_path / "nothing")
    assert "data.folders" in caught.value.hint
    with pytest.raises(DatasetError, match="there are no pictures in"):
        scan(folder)
    (folder / "a.png").write_bytes(b"rubbish")
    with pytest.raises(DatasetError, match=r"a\.png: not a picture"):
        scan(folder)
    with pytest.raises(DatasetError, match="is not a folder"):
        scan(folder / "a.png")
    with pytest.raises(DatasetError, match="repeats must be at least 1"):
        scan((folder, 0))
    with pytest.raises(DatasetError, match="no folder"):
        scan()


def test_the_index_saves_decoding_what_has_not_changed(folder, tmp_path, photo):
    index = tmp_path / "cache" / "index.json"
    for number in range(4):
        photo(tint=number).save(folder / f"{number}.png")
    (folder / "bad.png").write_bytes(b"rubbish")
    first = scan(folder, index=index)
    assert first.decoded == 5
    again = scan(folder, index=index)
    assert again.decoded == 0
    assert (again.records, again.skipped) == (first.records, first.skipped)
    photo(tint=99).save(folder / "2.png")
    changed = scan(folder, index=index)
    assert changed.decoded == 1
    assert changed.records[2].content_hash != first.records[2].content_hash


def test_another_limit_of_pixels_decodes_nothing_that_is_known(folder, tmp_path, photo):
    index = tmp_path / "index.json"
    photo(64, 64).save(folder / "small.png")
    photo(96, 64).save(folder / "large.png")
    strict = scan(folder, index=index, max_pixels=64 * 64)
    assert names(strict) == ["small.png"]
    assert "more than the limit" in reasons(strict)["large.png"]
    raised = scan(folder, index=index)
    assert (names(raised), raised.decoded) == (["large.png", "small.png"], 1)
    again = scan(folder, index=index, max_pixels=64 * 64)
    assert (names(again), again.decoded) == (["small.png"], 0)
    assert reasons(again) == reasons(strict)
    assert scan(folder, index=index).decoded == 0


def test_folders_inside_are_not_forgotten_while_they_are_left_out(folder, tmp_path, photo):
    index = tmp_path / "index.json"
    (folder / "inner").mkdir()
    for name in ("a.png", "inner/b.png", "inner/gone.png"):
        photo().save(folder / name)
    assert scan(folder, index=index).decoded == 3
    (folder / "inner" / "gone.png").unlink()
    assert scan(folder, index=index, recursive=False).decoded == 0
    assert len(json.loads(index.read_text(encoding="utf-8"))["files"]) == 2
    assert scan(folder, index=index).decoded == 0


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.EACCES])
def test_what_could_not_be_read_for_a_while_is_tried_again(
    folder, tmp_path, photo, monkeypatch, code
):
    photo().save(folder / "a.png")
    photo().save(folder / "b.png")
    index = tmp_path / "index.json"
    real = Path.open

    def failing(path, *arguments, **options):
        if path.name == "b.png":
            raise OSError(code, os.strerror(code))
        return real(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", failing)
        assert reasons(scan(folder, index=index)) == {"b.png": os.strerror(code).lower()}
    assert names(scan(folder, index=index)) == ["a.png", "b.png"]


@posix_only
def test_a_file_replaced_with_one_of_the_same_size_and_time_is_decoded(folder, tmp_path, photo):
    index = tmp_path / "index.json"
    photo(tint=1).save(folder / "a.bmp")
    earlier = scan(folder, index=index).records[0]
    times = (folder / "a.bmp").stat()
    photo(tint=2).save(folder / "new.bmp")
    os.utime(folder / "new.bmp", ns=(times.st_atime_ns, times.st_mtime_ns))
    os.replace(folder / "new.bmp", folder / "a.bmp")
    later = scan(folder, index=index)
    assert later.decoded == 1
    assert later.records[0].content_hash != earlier.content_hash


def test_forgotten_files_are_decoded_again_and_the_rest_is_not(folder, tmp_path, photo):
    index = tmp_path / "index.json"
    for name in ("a.png", "b.png"):
        photo().save(folder / name)
    scan(folder, index=index)
    scan_index.forget_files(index, [folder / "b.png", folder / "unknown.png"])
    assert scan(folder, index=index).decoded == 1
    scan_index.forget_files(tmp_path / "none.json", [folder / "a.png"])
    assert not (tmp_path / "none.json").exists()


def test_the_index_keeps_other_folders_and_forgets_what_is_gone(tmp_path, photo):
    index = tmp_path / "index.json"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for number in range(2):
            photo().save(tmp_path / name / f"{number}.png")
        scan(tmp_path / name, index=index)
    (tmp_path / "two" / "1.png").unlink()
    scan(tmp_path / "two", index=index)
    assert len(json.loads(index.read_text(encoding="utf-8"))["files"]) == 3
    assert scan(tmp_path / "one", index=index).decoded == 0


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[" * 100_000, '{"made_with": 1}', "\x00", '{"files": {"a": 3}}']
)
def test_a_damaged_index_is_made_anew(folder, tmp_path, photo, text):
    photo().save(folder / "a.png")
    index = tmp_path / "index.json"
    index.write_text(text, encoding="utf-8")
    assert scan(folder, index=index).decoded == 1
    assert scan(folder, index=index).decoded == 0


@pytest.mark.parametrize("inside", ["index.json", "missing/index.json"])
def test_an_index_that_cannot_be_written_is_told_and_costs_only_time(
    folder, tmp_path, photo, inside, caplog
):
    photo().save(folder / "a.png")
    (tmp_path / "taken").write_text("x", encoding="utf-8")
    index = tmp_path / "taken" / inside
    assert names(scan(folder, index=index)) == ["a.png"]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"{index} cannot be written" in record.getMessage()


def test_an_index_refused_in_the_middle_is_tried_again_at_the_end_only(
    folder, tmp_path, photo, monkeypatch, caplog
):
    for number in range(4):
        photo().save(folder / f"{number}.png")
    (tmp_path / "taken").write_text("x", encoding="utf-8")
    monkeypatch.setattr("aozora.data.scan._INDEX_SAVE_SECONDS", -1.0)
    assert len(scan(folder, index=tmp_path / "taken" / "index.json").records) == 4
    assert len(caplog.records) == 2


def test_an_index_nobody_may_look_at_is_told(folder, tmp_path, photo, monkeypatch, caplog):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    photo().save(folder / "a.png")
    monkeypatch.setattr("aozora.data.scan.load_index", refuse)
    assert scan(folder, index=tmp_path / "index.json").decoded == 1
    assert "index.json cannot be read" in caplog.text


def test_a_forged_index_entry_is_not_believed(folder, tmp_path, photo):
    photo().save(folder / "a.png")
    index = tmp_path / "index.json"
    scan(folder, index=index)
    stored = json.loads(index.read_text(encoding="utf-8"))
    next(iter(stored["files"].values()))["height"] = "64"
    index.write_text(json.dumps(stored), encoding="utf-8")
    assert scan(folder, index=index).records[0].height == 64


def test_an_index_entry_that_is_no_name_of_a_file_makes_it_anew(folder, tmp_path, photo):
    photo().save(folder / "a.png")
    index = tmp_path / "index.json"
    scan(folder, index=index)
    stored = json.loads(index.read_text(encoding="utf-8"))
    stored["files"] = {f"{key}\u732b": facts for key, facts in stored["files"].items()}
    index.write_text(json.dumps(stored), encoding="utf-8")
    assert scan(folder, index=index).decoded == 1


def test_progress_is_told_and_a_stop_is_obeyed(folder, tmp_path, photo):
    for number in range(6):
        photo().save(folder / f"{number}.png")
    told = []
    scan(folder, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(n, 6) for n in range(1, 7)]
    index = tmp_path / "index.json"
    report = scan(folder, index=index, should_stop=lambda: True)
    assert report.stopped
    assert len(report.records) == 1
    assert scan(folder, index=index).decoded == 5


def test_the_scan_needs_no_torch():
    code = (
        "import sys; import aozora.data.scan, aozora.data.captions, aozora.data.buckets, "
        "aozora.data.dataset; sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(aozora.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], check=False, env=environment)
    assert done.returncode == 0


def test_every_extension_is_written_in_lower_case():
    extensions = PICTURES | OTHER_PICTURES
    assert all(e == e.lower() and e.startswith(".") for e in extensions)
    assert not PICTURES & OTHER_PICTURES
