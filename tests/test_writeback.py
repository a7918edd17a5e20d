"""Large files on their way to the disk: it works in time, and what passes through memory does not stay there."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from farmsyncd.edges.content import durable, writeback
from farmsyncd.edges.content.writeback import Writeback


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """What the disk was told, with windows of 100 bytes."""
    made: list[tuple[str, int, int]] = []
    monkeypatch.setattr(writeback, "WINDOW", 100)
    monkeypatch.setattr(durable, "start_writing", lambda _fd, at, length: made.append(("write", at, length)))
    monkeypatch.setattr(durable, "give_back", lambda _fd, at, length: made.append(("give back", at, length)))
    return made


def test_the_disk_is_set_to_work_with_each_window_and_at_the_end(calls: list[tuple[str, int, int]]) -> None:
    file = Writeback(5, passing=False)
    assert [file.wrote(0, at, 60) for at in range(0, 300, 60)] == [False, False, False, False, True]
    assert calls == [("write", 0, 120), ("write", 120, 120), ("write", 240, 60)]


def test_memory_is_given_back_once_the_disk_has_had_a_window_s_time(calls: list[tuple[str, int, int]]) -> None:
    file = Writeback(5, passing=True)
    for at in range(0, 300, 60):
        file.wrote(0, at, 60)
    assert calls == [
        ("write", 0, 120),
        ("write", 120, 120),
        ("give back", 0, 120),
        ("write", 240, 60),
        ("give back", 120, 120),
    ]


def test_a_window_spans_chunks_in_any_order(calls: list[tuple[str, int, int]]) -> None:
    file = Writeback(3, passing=False)
    for at in (180, 60, 120):
        file.wrote(0, at, 60)
    assert calls == [("write", 60, 180), ("write", 120, 60)]


@pytest.mark.usefixtures("calls")
def test_exactly_one_of_many_threads_is_told_that_its_chunk_was_the_last() -> None:
    file = Writeback(400, passing=True)
    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(lambda at: file.wrote(0, at * 10, 10), range(400))) == 1


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def test_what_was_given_back_can_be_read_again(fd: int) -> None:
    content = random.Random(1).randbytes(1_000_000)
    os.pwrite(fd, content, 0)
    durable.start_writing(fd, 0, len(content))
    durable.give_back(fd, 0, len(content))
    assert os.pread(fd, len(content), 0) == content


def test_what_cannot_be_given_back_is_no_fault() -> None:
    read, write = os.pipe()
    try:
        durable.give_back(write, 0, 100)
    finally:
        os.close(read)
        os.close(write)
