"""A data server in memory, which speaks the real protocol to a node's links: for tests of whatever a node asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.test.iosim import FakeTransport, IOPump, connect
from zope.interface import implementer

from farmsyncd.core import ranges
from farmsyncd.core.chunks import digest_of
from farmsyncd.core.messages import Message, Side
from farmsyncd.core.messages.content import Chunk, Delta, GetChunks, GetDelta, GetManifest, ManifestIs, Sent
from farmsyncd.core.messages.greeting import PROTOCOL, Hello, No
from farmsyncd.core.messages.schedule import Datasets, DatasetsAre, Flipped, Noted, Pins, Plan, Schedule, Standing
from farmsyncd.core.snapshot import Entry, Kind, Manifest, encode_pieces
from farmsyncd.edges.link import Link

MTIME_NS = 1_700_000_000 * 10**9
PIECE = 1000
"""Files are cut into chunks of so many bytes where they are longer than a manifest lets whole files be."""


def entry(path: str, content: bytes) -> Entry:
    """A file of one chunk."""
    chunks = [content] if content else []
    return Entry(
        path.encode(),
        Kind.FILE,
        mtime_ns=MTIME_NS,
        size=len(content),
        chunks=tuple(map(digest_of, chunks)),
        lengths=tuple(map(len, chunks)),
    )


@attrs.frozen
class Published:
    """A version as the data server has it."""

    manifest: Manifest
    chunks: Mapping[bytes, bytes]

    @property
    def version(self) -> str:
        return self.manifest.version


def published(files: Mapping[str, bytes]) -> Published:
    """A version made of files, by name; all in one directory, or in others that are made."""
    parents = {name.rpartition("/")[0] for name in files} - {""}
    entries = [Entry(parent.encode(), Kind.DIR) for parent in parents]
    entries += [entry(name, content) for name, content in files.items()]
    return Published(Manifest.of(entries), {digest_of(content): content for content in files.values() if content})


@attrs.define(eq=False)
class FakeDataServer:
    """Everything may be changed between two messages. ``heard`` is all that came, in order, over all connections.

    ``damaged`` says how often a chunk is still sent wrong, ``cut_after`` after how many chunks a connection is cut.
    """

    clock: Clock
    versions: dict[str, Published] = attrs.Factory(dict)
    steps: dict[tuple[str, str], list[bytes]] = attrs.Factory(dict)
    plans: dict[str, Plan] = attrs.Factory(dict)
    pins: dict[str, tuple[str, ...]] = attrs.Factory(dict)
    damaged: dict[bytes, int] = attrs.Factory(dict)
    cut_after: int | None = None
    silent: bool = False
    up: bool = True
    heard: list[Message] = attrs.Factory(list)
    hellos: list[Hello] = attrs.Factory(list)
    links: list[Link] = attrs.Factory(list)
    _pumps: list[IOPump] = attrs.Factory(list)

    def publish(self, files: Mapping[str, bytes]) -> str:
        """Have a version; its name."""
        one = published(files)
        self.versions[one.version] = one
        return one.version

    def push(self, plan: Plan) -> None:
        """Change a dataset's plan and tell everybody."""
        self.plans[plan.dataset] = plan
        for link in self.links:
            link.send(plan)
        self.flush()

    def heard_of(self, kind: type[Any]) -> list[Any]:
        """All messages of one class that came."""
        return [message for message in self.heard if isinstance(message, kind)]

    # Connections

    def connected(self, client: Any) -> None:
        """Join a client's protocol with a new link of this server."""
        server = Link(_ServerSide(self), Hello(PROTOCOL, "data", "fake", ()), Side.SERVER, self.clock)
        client_end, server_end = FakeTransport(client, isServer=False), FakeTransport(server, isServer=True)
        self._pumps.append(connect(server, server_end, client, client_end, greet=False))

    def flush(self) -> None:
        """Move bytes, and let what waits for nothing happen, until nothing moves."""
        for _ in range(1000):
            moved = False
            for pump in list(self._pumps):
                moved = bool(pump.pump()) or moved
            due = [call for call in self.clock.getDelayedCalls() if call.getTime() <= self.clock.seconds()]
            if due:
                self.clock.advance(0)
            elif not moved:
                return
        raise AssertionError("the conversation does not end")

    def away(self) -> None:
        """The data server is gone; connections end, new ones are refused."""
        self.up = False
        for link in list(self.links):
            link.abort("gone")
        self.flush()

    # Answers

    def answer(self, link: Link, message: Message) -> None:
        """What a data server does."""
        self.heard.append(message)
        if self.silent:
            return
        match message:
            case Datasets():
                link.send(DatasetsAre(tuple(sorted(self.plans))))
            case Schedule(dataset):
                link.send(Pins(dataset, self.pins.get(dataset, ())))
                none = (None, None, None, None, None, None, None)
                link.send(self.plans.get(dataset, Plan(dataset, 0, *none)))
            case Flipped(dataset, cycle):
                link.send(Noted(dataset, cycle))
            case GetManifest(version) if version in self.versions:
                link.send(ManifestIs(version, tuple(encode_pieces(self.versions[version].manifest))))
            case GetManifest(version):
                link.send(No("gone", "MANIFEST", b"there is no such version"))
            case GetDelta(old, new) if (old, new) in self.steps:
                parts = self.steps[old, new]
                link.send(*(Delta(new, number, len(parts), part) for number, part in enumerate(parts)), Sent(new))
            case GetDelta():
                link.send(No("gone", "STEP", b"there is no such difference"))
            case GetChunks(version, numbers):
                self._send_chunks(link, version, numbers)
            case Standing():
                pass
            case _:
                raise AssertionError(f"{message} is not for a data server")

    def _send_chunks(self, link: Link, version: str, numbers: bytes) -> None:
        one = self.versions[version]
        distinct = one.manifest.distinct_chunks()
        for count, number in enumerate(ranges.read(numbers, len(distinct))):
            if self.cut_after is not None and count >= self.cut_after:
                link.close("cut in the middle")
                return
            digest, length = distinct[number]
            data = one.chunks[digest]
            if self.damaged.get(digest, 0):
                self.damaged[digest] -= 1
                data = bytes([data[0] ^ 1]) + data[1:]
            link.send(Chunk(digest, "raw", length, data))
        link.send(Sent(version))


class _ServerSide:
    def __init__(self, server: FakeDataServer) -> None:
        self._server = server

    def greeted(self, link: Link, hello: Hello) -> None:
        self._server.hellos.append(hello)
        self._server.links.append(link)

    def received(self, link: Link, message: Message) -> None:
        self._server.answer(link, message)

    def lost(self, link: Link, reason: str) -> None:
        del reason
        if link in self._server.links:
            self._server.links.remove(link)


@implementer(IStreamClientEndpoint)
@attrs.frozen
class FakeEndpoint:
    """Connects to a fake data server."""

    server: FakeDataServer
    attempted: Callable[[], None] = lambda: None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803 - IStreamClientEndpoint
        self.attempted()
        if not self.server.up:
            return fail(Refused())
        protocol = protocolFactory.buildProtocol(None)  # type: ignore[arg-type]
        assert protocol is not None
        self.server.connected(protocol)
        return succeed(protocol)
