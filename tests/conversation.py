"""The conversation in ``docs/protocol.md``: read from the document, and held with a real data server's parts.

Connections are in memory, and farm time stands still but where the document says how much of it passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import attrs
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from farmsyncd.core.chunks import digest_of
from farmsyncd.core.entries import Entry, Kind
from farmsyncd.core.messages import Side
from farmsyncd.core.messages.greeting import PROTOCOL, Hello
from farmsyncd.core.snapshot import Manifest, encode_pieces
from farmsyncd.data.config import DataConfig
from farmsyncd.data.wiring import Parts, assemble
from farmsyncd.edges.link import Link
from farmsyncd.edges.timing.farmclock import FarmClock
from tests.eventually import eventually_async

DOCUMENT = Path(__file__).parent.parent / "docs" / "protocol.md"
EPOCH = "0123456789abcdef"
BEGINS_NS = 1_767_247_200_000_000_000  # 2026-01-01T06:00:00Z
PRICES = b"espresso 2.40\n"
_PEER = IPv4Address("TCP", "127.0.0.1", 50000)
_LINE = re.compile(r"(?P<who>[a-z0-9-]+) *(?P<way>[<>]) (?P<bytes>.*)")
_PAUSE = re.compile(r"-- (?P<seconds>[0-9]+) s pass --")


def prices() -> Manifest:
    """The tree that the conversation is about: one file."""
    entry = Entry(
        path=b"prices.txt",
        kind=Kind.FILE,
        mtime_ns=BEGINS_NS,
        size=len(PRICES),
        chunks=(digest_of(PRICES),),
        lengths=(len(PRICES),),
    )
    return Manifest.of([entry])


@attrs.frozen
class Line:
    """One line of the conversation: bytes to (``>``) or from (``<``) the data server, on the connection ``who``."""

    who: str
    way: str
    data: bytes


def read_line(text: str) -> Line | int:
    """A line of the document: what is said, or how many seconds pass."""
    if pause := _PAUSE.fullmatch(text):
        return int(pause["seconds"])
    found = _LINE.fullmatch(text)
    assert found is not None, text
    data = found["bytes"].replace("\\n", "\n").encode("ascii")
    (manifest,) = encode_pieces(prices())
    return Line(found["who"], found["way"], data.replace(b"(manifest)", b"%d:%b," % (len(manifest), manifest)))


def conversation() -> Iterator[Line | int]:
    """All lines of the document's conversation."""
    blocks = re.findall(r"```conversation\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert blocks
    for text in "".join(blocks).splitlines():
        yield read_line(text)


@attrs.define
class StoppedClock:
    """A raw clock that the conversation moves."""

    ns: int = 1_000_000_000_000

    def now_ns(self) -> int:
        return self.ns

    def machine_ns(self, local_ns: int) -> int:
        return local_ns


class Stage:
    """A data server without ports, and its connections."""

    def __init__(self, state: Path) -> None:
        self._raw = StoppedClock()
        began = self._raw.ns
        clock = FarmClock(state / "farmtime", self._raw, lambda: BEGINS_NS + self._raw.ns - began)
        clock.epoch = EPOCH
        self._parts: Parts = assemble(DataConfig(state=state, listen="tcp:0"), reactor, clock)
        self._connections: dict[str, tuple[Link, StringTransport]] = {}

    def pass_time(self, seconds: int) -> None:
        """Let farm time pass."""
        self._raw.ns += seconds * 1_000_000_000

    def say(self, line: Line) -> None:
        """Say a line to the data server; the first one opens its connection."""
        if line.who not in self._connections:
            me = Hello(PROTOCOL, "data", "data", ("software=farmsync-1.0", f"epoch={EPOCH}"))
            gate = self._parts.links.new_gate()
            link, transport = Link(gate, me, Side.SERVER, Clock()), StringTransport(peerAddress=_PEER)
            link.makeConnection(transport)
            self._connections[line.who] = link, transport
        self._connections[line.who][0].dataReceived(line.data)

    async def hear(self, line: Line) -> None:
        """Wait until the data server has said ``line``, next and exactly."""
        transport = self._connections[line.who][1]
        await eventually_async(lambda: len(transport.value()) >= len(line.data), what=repr(line))
        heard = transport.value()
        assert heard[: len(line.data)] == line.data
        transport.clear()
        transport.write(heard[len(line.data) :])

    def unheard(self) -> dict[str, bytes]:
        """What the data server said beyond all that was waited for."""
        said = {who: transport.value() for who, (_link, transport) in self._connections.items()}
        return {who: data for who, data in said.items() if data}

    async def close(self) -> None:
        """Take everything apart."""
        for link, _transport in self._connections.values():
            link.connectionLost(Failure(ConnectionDone()))
        await self._parts.housekeeping.idle()
        for thread in (self._parts.delta_thread, self._parts.content_thread, self._parts.catalog_thread):
            await thread.stop()
        self._parts.catalog.close()
