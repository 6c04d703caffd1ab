from __future__ import annotations

import os
import random
import threading
import zlib

import pytest

from aozora.training import parallel_file
from aozora.training.parallel_file import ParallelFile
from aozora.training.zip_stream import join_crc32


@pytest.fixture
def content():
    return random.Random(0).randbytes(1_000_003)


def write(path, content, threads):
    with path.open("wb") as file, ParallelFile(file, threads=threads) as parallel:
        view = memoryview(content)
        # Two runs with a hole between them that is filled in last, as an archive's heads are.
        finish = parallel.begin([(0, view[:400_000]), (400_100, view[400_100:])])
        parallel.write_small(400_000, content[400_000:400_100])
        return finish()


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_file_is_the_same_however_many_threads_write(tmp_path, monkeypatch, content, threads):
    monkeypatch.setattr(parallel_file, "_PART_BYTES", 4096)
    sums = write(tmp_path / "a", content, threads)
    assert (tmp_path / "a").read_bytes() == content
    for parts, run in zip(sums, (content[:400_000], content[400_100:]), strict=True):
        total = 0
        for crc32, num_bytes in parts:
            total = join_crc32(total, crc32, num_bytes)
        assert total == zlib.crc32(run)


def test_several_threads_do_write_at_once(tmp_path, monkeypatch, content):
    monkeypatch.setattr(parallel_file, "_PART_BYTES", 250_000)
    together = threading.Barrier(4, timeout=30)
    original = parallel_file._write

    def meet(handle, position, data):
        if len(data) > 1000:
            together.wait()
        original(handle, position, data)

    monkeypatch.setattr(parallel_file, "_write", meet)
    with (tmp_path / "a").open("wb") as file, ParallelFile(file, threads=4) as parallel:
        parallel.begin([(0, memoryview(content)[:1_000_000])])()
    assert (tmp_path / "a").read_bytes() == content[:1_000_000]


def test_an_error_of_a_thread_is_told_and_nothing_stays_open(tmp_path, monkeypatch, content):
    monkeypatch.setattr(parallel_file, "_PART_BYTES", 4096)
    original, calls = parallel_file._write, []

    def fail(handle, position, data):
        calls.append(position)
        if len(calls) == 20:
            raise OSError(28, "No space left on device")
        original(handle, position, data)

    monkeypatch.setattr(parallel_file, "_write", fail)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "a", content, 3)
    assert not [t for t in threading.enumerate() if t.name.startswith("state-part")]
    if before:
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_thread_that_cannot_open_the_file_says_so(tmp_path, monkeypatch, content):
    original, calls = ParallelFile._open, []

    def fail(parallel):
        calls.append(parallel)
        if len(calls) > 1:
            raise OSError(24, "Too many open files")
        return original(parallel)

    monkeypatch.setattr(ParallelFile, "_open", fail)
    with pytest.raises(OSError, match="Too many open files"):
        write(tmp_path / "a", content, 2)


def test_a_disk_that_takes_less_at_a_time_gets_it_all(tmp_path, content):
    class Slow:
        def __init__(self):
            self.got, self.position = bytearray(len(content)), 0

        def seek(self, position):
            self.position = position

        def write(self, data):
            part = bytes(data[:1000])
            self.got[self.position : self.position + len(part)] = part
            self.position += len(part)
            return len(part)

    slow = Slow()
    parallel_file._write(slow, 0, memoryview(content))
    assert bytes(slow.got) == content


def test_some_processors_are_left_to_training():
    assert 1 <= parallel_file.default_threads() <= max(1, (os.cpu_count() or 1) // 2)
