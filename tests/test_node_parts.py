"""A node's smaller parts: its record, checks of its disk, the pointer, hooks, and its status pages."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from treq.client import HTTPClient
from treq.testing import RequestTraversalAgent
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import Site

from farmsyncd.core.pointer import Pointer
from farmsyncd.core.snapshot import Manifest
from farmsyncd.core.standing import Turn
from farmsyncd.edges.webclient import web_client
from farmsyncd.errors import LocalError
from farmsyncd.node.checking import by_hash, by_stat
from farmsyncd.node.hooks import Flip, Hooks
from farmsyncd.node.pointing import HOLD_NS, Pointing
from farmsyncd.node.record import FlipNote, Record, RecordFile, Served
from tests.trees import file_entry

A, B = "a" * 40, "b" * 40
the_reactor: Any = reactor
S = 1_000_000_000


# The record


def test_a_record_is_what_was_saved_last(tmp_path: Path) -> None:
    records = RecordFile(tmp_path / "record")
    assert records.load() == Record()
    note = FlipNote(cycle=3, version=B, activated_at_ns=5, error_bound_ns=6, detail="é")
    record = Record(highest=2, pending=Served.of(Turn(3, B, 9))).activated(Turn(2, A, 7)).with_flips([note])
    assert record.pending is not None
    records.save(record)
    assert RecordFile(tmp_path / "record").load() == record
    assert record.noted(3).flips == ()
    assert record.activated(Turn(3, B, 9)).pending is None
    assert sorted(os.listdir(tmp_path)) == ["record"]  # noqa: PTH208


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"highest": "x"}', b'{"pins": ["../../etc"]}'])
def test_a_file_that_is_no_record_is_an_error_that_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "record").write_bytes(content)
    with pytest.raises(LocalError, match="remove the file to start anew"):
        RecordFile(tmp_path / "record").load()


# Checks of the disk


def test_what_is_wrong_with_a_tree_is_told_in_a_line(tmp_path: Path) -> None:
    top = tmp_path / "tree"
    top.mkdir()
    entries = []
    for name in ("a", "b", "c", "d", "e"):
        (top / name).write_bytes(b"content")
        os.utime(top / name, ns=(5, 5))
        (top / name).chmod(0o444)
        entries.append(file_entry(name.encode(), b"con", b"tent", mtime_ns=5))
    manifest = Manifest.of(entries)
    assert (by_stat(top, manifest), by_hash(top, manifest)) == ("", "")
    (top / "a").chmod(0o644)
    (top / "a").write_bytes(b"CONTENT")
    os.utime(top / "a", ns=(5, 5))
    (top / "a").chmod(0o444)
    assert by_stat(top, manifest) == ""
    assert by_hash(top, manifest) == "a: missing, changed, or not part of it"
    for name in ("b", "c", "d", "e"):
        (top / name).unlink()
    assert by_stat(top, manifest) == "b, c, d and 1 more: missing, changed, or not part of it"
    assert by_stat(tmp_path / "none", manifest) == "the tree: missing, changed, or not part of it"


# The pointer


class StoppedClock:
    """A clock that the test sets."""

    local_ns = 0

    def now_ns(self) -> int:
        return self.local_ns

    def machine_ns(self, local_ns: int) -> int:
        return local_ns + 7 * S


class Pages:
    """Keeps what was written."""

    def __init__(self) -> None:
        self.written: list[Pointer] = []

    def write(self, pointer: Pointer) -> None:
        self.written.append(pointer)


class Offset:
    """A comparison by which farm time is ahead by so much."""

    def __init__(self, ahead_ns: int) -> None:
        self._ahead_ns = ahead_ns

    def local_ns(self, farm_ns: int) -> int:
        return farm_ns - self._ahead_ns


def test_the_active_turn_changes_with_the_clock_and_does_not_change_back() -> None:
    clock, pages = StoppedClock(), Pages()
    pointing = Pointing(clock, pages, bytes(16))
    one, two = Turn(1, A, 0), Turn(2, B, 100 * S)
    pointing.serve(one)
    assert pointing.arm(two, Offset(40 * S))
    assert pages.written[-1] == Pointer(A, 1, B, 2, 67 * S, bytes(16))
    clock.local_ns = 60 * S - 1
    assert pointing.current() == one
    clock.local_ns = 60 * S
    assert pointing.current() == two
    pointing.arm(two, Offset(39 * S))  # a comparison that comes now would put it off by a second
    assert pointing.current() == two
    pointing.serve(two)
    assert (pointing.active, pointing.armed, pointing.deadline_ns()) == (two, None, None)
    assert pages.written[-1] == Pointer(B, 2, None, None, None, bytes(16))


def test_shortly_before_its_time_an_appointment_does_not_move_but_a_new_turn_does_count() -> None:
    clock, pages = StoppedClock(), Pages()
    pointing = Pointing(clock, pages, bytes(16))
    pointing.serve(Turn(1, A, 0))
    pointing.arm(Turn(2, B, 100 * S), Offset(0))
    clock.local_ns = 100 * S - HOLD_NS
    pointing.arm(Turn(2, B, 100 * S), Offset(S))
    assert pointing.deadline_ns() == 100 * S
    assert pointing.arm(Turn(3, A, 300 * S), Offset(S))
    assert pointing.deadline_ns() == 299 * S
    assert pointing.arm(None, None)
    assert pointing.deadline_ns() is None
    assert not pointing.arm(None, None)


# Hooks

TOLD = Flip("shop", A, 4, "/")


def hooks(*command: str, url: str | None = None, http: HTTPClient | None = None, timeout_s: float = 30.0) -> Hooks:
    return Hooks(reactor, the_reactor, http or HTTPClient(RequestTraversalAgent(Resource())), command, url, timeout_s)


@pytest_twisted.ensureDeferred
async def test_a_command_finds_the_flip_in_its_environment(tmp_path: Path) -> None:
    script = f'echo "$FARMSYNC_DATASET $FARMSYNC_VERSION $FARMSYNC_CYCLE $FARMSYNC_PATH" > {tmp_path}/told'
    assert await hooks("/bin/sh", "-c", script).run(TOLD) == ""
    assert (tmp_path / "told").read_text() == f"shop {A} 4 /\n"


@pytest_twisted.ensureDeferred
async def test_a_command_that_fails_is_told_with_its_last_words() -> None:
    # All on one stream: of two, nobody knows which is read first.
    script = "import sys; print('first', file=sys.stderr); sys.exit('no such cache')"
    detail = await hooks(sys.executable, "-c", script).run(TOLD)
    assert detail == f"command {sys.executable}: ended with status 1: first / no such cache"


@pytest_twisted.ensureDeferred
async def test_a_command_that_is_not_there_is_told() -> None:
    detail = await hooks("/no/such/command").run(TOLD)
    assert detail == "command /no/such/command: there is no such program that may be run"


@pytest_twisted.ensureDeferred
async def test_a_command_that_takes_too_long_is_ended() -> None:
    detail = await hooks("/bin/sh", "-c", "exec sleep 600", timeout_s=0.2).run(TOLD)
    assert detail == "command /bin/sh: not done within 0.2 s"


class Receiver(Resource):
    """An address that is posted to."""

    isLeaf = True  # noqa: N815

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code
        self.bodies: list[bytes] = []

    def render_POST(self, request: Any) -> bytes:  # noqa: N802
        self.bodies.append(request.content.read())
        request.setResponseCode(self.code)
        return b""


@pytest.mark.parametrize(("code", "fault"), [(204, ""), (500, "answered with status 500")])
@pytest_twisted.ensureDeferred
async def test_a_url_is_posted_the_flip_as_json(code: int, fault: str) -> None:
    receiver = Receiver(code)
    port = the_reactor.listenTCP(0, Site(receiver), interface="127.0.0.1")
    url = f"http://127.0.0.1:{port.getHost().port}/hook"
    http = web_client(reactor)
    detail = await hooks(url=url, http=http).run(TOLD)
    await port.stopListening()
    assert detail == (f"POST {url}: {fault}" if fault else "")
    [body] = receiver.bodies
    assert json.loads(body) == {"dataset": "shop", "version": A, "cycle": 4, "path": "/"}


@pytest_twisted.ensureDeferred
async def test_a_url_that_cannot_be_reached_is_told() -> None:
    port = the_reactor.listenTCP(0, Site(Receiver(200)), interface="127.0.0.1")
    url = f"http://127.0.0.1:{port.getHost().port}/hook"
    await port.stopListening()
    http = web_client(reactor)
    detail = await hooks(url=url, http=http).run(TOLD)
    assert detail.startswith(f"POST {url}: ")
