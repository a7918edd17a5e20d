"""Links over real sockets: bulk, half-close, TLS, Unix sockets, peers that read nothing, probes that leave at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    wrapClientTLS,
)
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread

from farmsyncd.core.messages import Message, Side
from farmsyncd.core.messages.clock import Now, Probe, Time
from farmsyncd.core.messages.content import Sent
from farmsyncd.core.messages.greeting import Hello
from farmsyncd.core.messages.operating import Answer
from farmsyncd.core.wire import encode
from farmsyncd.edges.link import Link, LinkSettings
from farmsyncd.edges.link.outbox import PourEnded
from tests.certificates import Authority
from tests.eventually import eventually_async
from tests.wire_pair import DATA, NODE, Recorder

reactor: Any = _reactor
EPOCH = "0123456789abcdef"
FRAME = encode(Sent("a" * 40).frame())


def answer_time(link: Link, message: Message) -> None:
    if isinstance(message, Time):
        link.send(Now(17, EPOCH, "1970-01-01T00:00:00Z"))


@attrs.define
class Counter:
    """A session that counts messages."""

    count: int = 0
    losses: list[str] = attrs.Factory(list)

    def greeted(self, _link: Link, _hello: Hello) -> None:
        pass

    def received(self, _link: Link, _message: Message) -> None:
        self.count += 1

    def lost(self, _link: Link, reason: str) -> None:
        self.losses.append(reason)


class Listening:
    """A server whose links are kept, closed with the test."""

    def __init__(self, session: Callable[[], Any], settings: LinkSettings | None = None) -> None:
        self.links: list[Link] = []
        self._session = session
        self._settings = settings
        self._port: Any = None
        self.factory = Factory.forProtocol(self._build)
        self.factory.noisy = False

    def _build(self) -> Link:
        self.links.append(Link(self._session(), DATA, Side.SERVER, reactor, self._settings))
        return self.links[-1]

    async def listen(self, endpoint: Any = None) -> int:
        self._port = await (endpoint or TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")).listen(self.factory)
        return int(getattr(self._port.getHost(), "port", 0))

    async def stop(self, *clients: Link) -> None:
        everyone = [*self.links, *clients]
        gone = gatherResults([link.when_lost() for link in everyone])
        for link in everyone:
            link.abort("the test is over")
        await gone
        await self._port.stopListening()


async def dial(port: int, session: Any, me: Hello = NODE, settings: LinkSettings | None = None) -> Link:
    return await connect(TCP4ClientEndpoint(reactor, "127.0.0.1", port), session, me, settings)


async def connect(endpoint: Any, session: Any, me: Hello = NODE, settings: LinkSettings | None = None) -> Link:
    factory = Factory.forProtocol(lambda: Link(session, me, Side.CLIENT, reactor, settings))
    factory.noisy = False
    link: Link = await endpoint.connect(factory)
    return link


def talk(port: int, said: bytes, *, half_close: bool) -> bytes:
    """What a program like netcat is answered, until the server ends the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as peer:
        peer.sendall(said)
        if half_close:
            peer.shutdown(socket.SHUT_WR)
        answer = b""
        while part := peer.recv(65536):
            answer += part
        return answer


def in_thread(call: Callable[..., bytes], *arguments: Any, **keywords: Any) -> Deferred[bytes]:
    return deferToThread(call, *arguments, **keywords)


@pytest_twisted.ensureDeferred
async def test_netcat_is_answered_although_it_sends_no_more() -> None:
    server = Listening(lambda: Recorder(answer_time))
    port = await server.listen()
    assert await in_thread(talk, port, b"TIME\nTIME\n", half_close=True) == (
        b"NOW 17 0123456789abcdef 1970-01-01T00:00:00Z\n" * 2
    )
    await server.stop()


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"HELLO 2 node web-1\n", b"speaks 2"),
        (b"A" * 200_000, b"a line of at most 4096 bytes"),
        (b"HELLO 1 node web-1\nSTANDING +1\n3:abcdef" + b"x" * 100_000, b"not as long as it says"),
        (b"POST /upload HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000, b"HTTP/1.1 400 Bad Request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", b"expected a verb in capitals"),
    ],
    ids=["version", "line", "netstring", "http", "tls"],
)
@pytest.mark.parametrize("half_close", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_bad_peer_reads_our_last_words_however_much_it_still_sends(
    said: bytes, answer: bytes, half_close: bool
) -> None:
    server = Listening(Recorder)
    port = await server.listen()
    assert answer in await in_thread(talk, port, said, half_close=half_close)
    await server.stop()


@attrs.frozen
class Range:
    fd: int
    offset: int
    length: int


@pytest.fixture
def pack(tmp_path: Path) -> Iterator[int]:
    """An open file of 60,000 frames."""
    path = tmp_path / "pack"
    path.write_bytes(FRAME * 60_000)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest_twisted.ensureDeferred
async def test_files_and_bytes_are_poured_whole_and_messages_between(pack: int) -> None:
    server = Listening(Recorder)
    session = Counter()
    client = await dial(await server.listen(), session, settings=LinkSettings(read_size=1024 * 1024))
    await eventually_async(lambda: client.peer is not None)
    source: Iterator[bytes | Range] = iter(
        [Range(pack, 0, 60_000 * len(FRAME)), FRAME * 1000, Range(pack, len(FRAME), len(FRAME))]
    )
    poured = server.links[0].pour(source)
    server.links[0].send(Sent("b" * 40))
    await poured
    server.links[0].send(Sent("c" * 40))
    await eventually_async(lambda: session.count >= 61_003)
    assert session.count == 61_003
    await server.stop(client)


@pytest_twisted.ensureDeferred
async def test_a_paused_peer_stops_a_pour_and_its_going_on_goes_on_with_it() -> None:
    server = Listening(Recorder)
    session = Counter()
    client = await dial(await server.listen(), session)
    await eventually_async(lambda: client.peer is not None)
    client.pause()
    asked: list[int] = []
    answer = encode(Answer.of("STATUS", b"x" * 100_000).frame())

    def source() -> Iterator[bytes]:
        for number in range(400):
            asked.append(number)
            yield answer

    poured = server.links[0].pour(source())
    await eventually_async(lambda: asked)
    assert len(asked) < 400
    assert session.count < 400
    client.resume()
    await poured
    await eventually_async(lambda: session.count == 400)
    await server.stop(client)


@pytest_twisted.ensureDeferred
async def test_a_peer_that_reads_nothing_is_dropped_and_its_pour_ended() -> None:
    session = Recorder()
    server = Listening(lambda: session, LinkSettings(heartbeat=0.1, silent_beats=10_000, stuck_beats=5))
    port = await server.listen()
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.sendall(b"HELLO 1 stager web-1\n")
        await eventually_async(lambda: session.hello is not None)
        ended: list[object] = []
        poured = server.links[0].pour(iter([b"x" * 64_000_000]))
        poured.addErrback(lambda failure: ended.append(failure.check(PourEnded)))
        await eventually_async(lambda: session.losses)
    assert "does not take them" in session.losses[0]
    assert ended == [PourEnded]
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_peer_that_dies_in_a_pour_ends_it(pack: int) -> None:
    session = Recorder()
    server = Listening(lambda: session)
    port = await server.listen()
    ended: list[object] = []
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.sendall(b"HELLO 1 stager web-1\n")
        await eventually_async(lambda: session.hello is not None)
        poured = server.links[0].pour(Range(pack, 0, 60_000 * len(FRAME)) for _ in range(30))
        poured.addErrback(lambda failure: ended.append(failure.check(PourEnded)))
    await eventually_async(lambda: session.losses)
    assert ended == [PourEnded]
    assert len(session.losses) == 1
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_probe_leaves_before_the_call_returns() -> None:
    class Prober(Recorder):
        def stamp(self) -> int:
            return 5

    server = Listening(Recorder)
    port = await server.listen()
    client = await dial(port, Prober(), Hello(1, "probe", "web-1"))
    await eventually_async(lambda: client.peer is not None and server.links[0].peer is not None)
    serving: Any = server.links[0].transport
    serving.pauseProducing()
    client.send_now(Probe)
    serving.socket.setblocking(True)  # no reactor turns between here and there
    serving.socket.settimeout(30)
    assert serving.socket.recv(100) == b"PROBE 5\n"
    serving.socket.setblocking(False)
    await server.stop(client)


@pytest_twisted.ensureDeferred
async def test_both_sides_end_in_order_and_learn_why() -> None:
    for closing in ("client", "server"):
        heard, session = Recorder(), Recorder()
        server = Listening(lambda session=session: session)  # type: ignore[misc]
        client = await dial(await server.listen(), heard)
        await eventually_async(lambda client=client: client.peer is not None)  # type: ignore[misc]
        (client if closing == "client" else server.links[0]).close("that was all")
        await gatherResults([client.when_lost(), server.links[0].when_lost()])
        assert heard.losses == session.losses == ["that was all"]
        await server.stop()


@pytest_twisted.ensureDeferred
async def test_both_sides_may_close_at_once() -> None:
    heard, session = Recorder(), Recorder()
    server = Listening(lambda: session)
    client = await dial(await server.listen(), heard)
    await eventually_async(lambda: client.peer is not None)
    client.close("client")
    server.links[0].close("server")
    await gatherResults([client.when_lost(), server.links[0].when_lost()])
    assert heard.losses == ["client"]
    assert session.losses == ["server"]
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_transport_that_is_closed_over_our_head_is_closed() -> None:
    heard, session = Recorder(), Recorder()
    server = Listening(lambda: session)
    client = await dial(await server.listen(), heard)
    await eventually_async(lambda: client.peer is not None)
    transport: Any = client.transport
    transport.loseConnection()
    await gatherResults([client.when_lost(), server.links[0].when_lost()])
    assert len(heard.losses) == len(session.losses) == 1
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_links_run_over_unix_sockets(pack: int, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    server = Listening(lambda: Recorder(answer_time))
    await server.listen(UNIXServerEndpoint(reactor, path))
    session = Counter()
    client = await connect(UNIXClientEndpoint(reactor, path), session)
    await eventually_async(lambda: client.peer is not None)
    client.send(Time())
    await server.links[0].pour(iter([Range(pack, 0, 50_000 * len(FRAME)), FRAME * 1000]))
    await eventually_async(lambda: session.count == 51_001)
    assert client.address == "a local socket"
    client.close("thanks")
    await client.when_lost()
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_links_run_over_tls(pack: int, tmp_path: Path) -> None:
    authority = Authority()
    served = Recorder(answer_time)
    server = Listening(lambda: served)
    port = await server.listen(authority.server_endpoint(reactor))
    session = Counter()
    plain = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    client = await connect(wrapClientTLS(authority.client_options(), plain), session)
    await eventually_async(lambda: client.peer is not None)
    client.send(Time())
    poured = server.links[0].pour(iter([Range(pack, 0, 50_000 * len(FRAME)), FRAME * 1000]))
    server.links[0].send(Sent("b" * 40))
    await poured
    await eventually_async(lambda: session.count == 51_002)
    client.close("thanks")
    await gatherResults([client.when_lost(), server.links[0].when_lost()])
    assert session.losses == served.losses == ["thanks"]
    await server.stop()
