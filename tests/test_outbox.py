"""What is sent, in which order, and how much of it waits where: messages, and pours of bytes and of file ranges."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from farmsyncd.core.messages.content import Sent
from farmsyncd.core.wire import encode
from farmsyncd.edges.link import Extent, LinkSettings
from farmsyncd.edges.link.outbox import Outbox, PourEnded
from tests.wire_pair import Recorder, WirePair

FRAME = encode(Sent("a" * 40).frame())


@attrs.frozen
class Range:
    fd: int
    offset: int
    length: int


@pytest.fixture
def pack(tmp_path: Path) -> Iterator[Callable[[bytes], int]]:
    """Makes files, open for as long as the test lasts."""
    opened: list[int] = []

    def make(content: bytes) -> int:
        path = tmp_path / f"pack-{len(opened)}"
        path.write_bytes(content)
        opened.append(os.open(path, os.O_RDONLY))
        return opened[-1]

    yield make
    for fd in opened:
        os.close(fd)


class Tap:
    """An outlet that takes as many bytes as the test lets it."""

    def __init__(self) -> None:
        self.taken = b""
        self.room = 0
        self.waiting = False

    def write(self, data: memoryview) -> int:
        part = bytes(data[: self.room])
        self.taken += part
        self.room -= len(part)
        return len(part)

    def write_file(self, fd: int, offset: int, count: int) -> int:
        if not self.room:
            return 0
        part = os.pread(fd, min(count, self.room), offset)
        if not part:
            raise EOFError
        return self.write(memoryview(part))

    def wait(self) -> None:
        self.waiting = True

    def detach(self) -> None:
        pass


class Sending:
    def __init__(self) -> None:
        self.tap = Tap()
        self.moves = 0
        self.emptied = 0
        self.torn: list[str] = []
        self.outbox = Outbox(self._moved, self._empty, self._torn)
        self.outbox.attach(self.tap)

    def _moved(self) -> None:
        self.moves += 1

    def _empty(self) -> None:
        self.emptied += 1

    def _torn(self, reason: str) -> None:
        self.torn.append(reason)
        self.outbox.close(reason)

    def let(self, count: int) -> bytes:
        self.tap.room, self.tap.taken = count, b""
        self.outbox.pump()
        return self.tap.taken


def test_messages_leave_in_order_as_far_as_there_is_room() -> None:
    sending = Sending()
    for part in (b"one ", b"two ", b"three "):
        sending.outbox.put(part)
    assert sending.outbox.unsent == 14
    assert sending.let(6) == b"one tw"
    assert sending.outbox.unsent == 8
    assert not sending.outbox.idle
    assert sending.let(100) == b"o three "
    assert sending.outbox.idle
    assert sending.outbox.unsent == 0


def test_messages_go_between_the_pieces_of_a_pour() -> None:
    sending = Sending()
    poured = sending.outbox.pour(iter([b"AAAA", b"BBBB"]))
    assert sending.let(2) == b"AA"
    sending.outbox.put(b"msg")
    assert sending.let(100) == b"AAmsgBBBB"
    assert poured.called
    assert sending.outbox.idle


def test_a_pour_is_asked_for_no_more_than_the_peer_takes() -> None:
    asked = []

    def source() -> Iterator[bytes]:
        for number in range(1000):
            asked.append(number)
            yield b"x" * 1000

    sending = Sending()
    poured = sending.outbox.pour(source())
    for turn in range(1, 6):
        sending.let(2000)
        assert len(asked) <= 2 * turn + 1
    assert sending.outbox.unsent <= 1000
    assert not poured.called
    poured.addErrback(lambda failure: failure.trap(PourEnded))
    sending.outbox.close("over")


def test_an_endless_source_lets_others_have_their_turn() -> None:
    def source() -> Iterator[bytes]:
        while True:
            yield b"x" * 100_000

    sending = Sending()
    sending.outbox.pour(source()).addErrback(lambda failure: failure.trap(PourEnded))
    assert len(sending.let(1 << 30)) < 4 * 1024 * 1024
    assert sending.tap.waiting
    sending.outbox.close("over")


def test_ranges_of_files_are_poured(pack: Callable[[bytes], int]) -> None:
    fd = pack(b"0123456789" * 10)
    sending = Sending()
    poured = sending.outbox.pour(iter([Range(fd, 5, 10), b"--", Range(fd, 0, 3), Range(fd, 98, 2)]))
    assert sending.let(4) == b"5678"
    assert sending.outbox.unsent == 0
    assert sending.let(100) == b"901234--01289"
    assert poured.called


@pytest.mark.parametrize("faulty", [Range(-1, 0, 10), "past the end"])
def test_a_range_that_cannot_be_read_fails_the_pour_and_not_the_connection(
    faulty: Range | str, pack: Callable[[bytes], int]
) -> None:
    extent = faulty if isinstance(faulty, Range) else Range(pack(b"short"), 50, 10)
    sending = Sending()
    failures: list[object] = []
    sending.tap.room = 100
    sending.outbox.pour(iter([b"whole", extent])).addErrback(failures.append)
    sending.outbox.put(b" still here")
    assert sending.tap.taken == b"whole still here"
    assert len(failures) == 1
    assert sending.torn == []


def test_a_file_that_ends_too_soon_tears_the_connection(pack: Callable[[bytes], int]) -> None:
    sending = Sending()
    sending.tap.room = 100
    failures: list[object] = []
    sending.outbox.pour(iter([Range(pack(b"short"), 0, 10)])).addErrback(failures.append)
    assert sending.tap.taken == b"short"
    assert len(sending.torn) == 1
    assert len(failures) == 1


def test_a_source_that_fails_fails_the_pour_and_not_the_connection() -> None:
    def source() -> Iterator[bytes]:
        yield b"first "
        raise LookupError

    sending = Sending()
    sending.tap.room = 100
    failures: list[object] = []
    sending.outbox.pour(source()).addErrback(lambda failure: failures.append(failure.check(LookupError)))
    sending.outbox.put(b"then")
    assert sending.tap.taken == b"first then"
    assert failures == [LookupError]


def test_one_pour_follows_another_but_two_at_once_are_a_mistake() -> None:
    sending = Sending()
    sending.outbox.pour(iter([b"one"]))
    with pytest.raises(RuntimeError):
        sending.outbox.pour(iter([b"two"]))
    sending.let(10)
    assert sending.outbox.pour(iter([])).called


def test_what_is_sent_when_a_pour_ends_follows_it() -> None:
    sending = Sending()
    sending.tap.room = 100
    sending.outbox.pour(iter([b"data "])).addCallback(lambda _none: sending.outbox.put(b"done"))
    assert sending.tap.taken == b"data done"


def test_a_pour_that_is_ended_leaves_no_frame_torn() -> None:
    sending = Sending()
    endings: list[object] = []
    sending.outbox.pour(iter([b"AAAA", b"BBBB"])).addErrback(lambda failure: endings.append(failure.check(PourEnded)))
    sending.let(1)
    sending.outbox.end_pour("enough")
    assert endings == [PourEnded]
    assert sending.let(100) == b"AAA"


def test_a_closed_outbox_takes_and_sends_nothing() -> None:
    sending = Sending()
    sending.outbox.put(b"lost")
    sending.outbox.close("over")
    sending.outbox.put(b"too late")
    endings: list[object] = []
    sending.outbox.pour(iter([b"x"])).addErrback(lambda failure: endings.append(failure.check(PourEnded)))
    assert sending.let(100) == b""
    assert sending.outbox.unsent == 0
    assert endings == [PourEnded]


def test_a_link_pours_through_its_transport_a_window_at_a_time(pack: Callable[[bytes], int]) -> None:
    fd = pack(FRAME * 5000)
    client, server = Recorder(), Recorder()
    pair = WirePair(client, server, settings=LinkSettings(heartbeat=1000))
    pair.flush()
    sources: list[bytes | Extent] = [Range(fd, 0, len(FRAME) * 5000), FRAME * 5000]
    poured = pair.server.pour(iter(sources))
    pair.pump.pump()
    assert 0 < len(client.messages) <= 2 * 64 * 1024 // len(FRAME) + 1
    pair.flush()
    assert poured.called
    assert client.messages == [Sent("a" * 40)] * 10_000


def test_a_frame_that_was_begun_is_finished_before_goodbye() -> None:
    client, server = Recorder(), Recorder()
    pair = WirePair(client, server)
    pair.flush()
    pair.server.pour(iter([FRAME * 10_000, FRAME])).addErrback(lambda failure: failure.trap(PourEnded))
    pair.server.close("stopping")
    pair.flush()
    assert client.messages == [Sent("a" * 40)] * 10_000
    assert client.losses == server.losses == ["stopping"]
