"""What is asked of web servers: answers piece by piece, and no connection that outlives the wish for its answer."""

from __future__ import annotations

from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall

from farmsyncd.edges.webclient import dismiss, take, web_client
from farmsyncd.node.hooks import Flip, Hooks

reactor: Any = _reactor
LIMIT = 30


class Endless(Protocol):
    """A web server's connection: its answer never ends."""

    def __init__(self, head: bytes) -> None:
        self.gone: Deferred[None] = Deferred()
        self._head = head
        self._sending = LoopingCall(lambda: cast("Any", self.transport).write(b"x" * 1000))

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - IProtocol
        if b"\r\n\r\n" in data and not self._sending.running:
            cast("Any", self.transport).write(self._head + b"\r\n\r\n")
            self._sending.start(0.01)

    def connectionLost(self, reason: Any = None) -> None:  # noqa: ARG002, N802 - IProtocol
        if self._sending.running:
            self._sending.stop()
        self.gone.callback(None)


class Server:
    """A server of endless answers on a port of its own."""

    def __init__(self, head: bytes = b"HTTP/1.1 200 OK") -> None:
        self.connections: list[Endless] = []
        factory = Factory.forProtocol(lambda: self._connection(head))
        self.port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port.getHost().port}/"

    def _connection(self, head: bytes) -> Endless:
        self.connections.append(Endless(head))
        return self.connections[-1]

    async def left_alone(self) -> None:
        """Wait until every client has hung up."""
        for one in self.connections:
            await one.gone.addTimeout(LIMIT, reactor)
        await self.port.stopListening()


@pytest_twisted.ensureDeferred
async def test_whoever_takes_no_more_hangs_up() -> None:
    server = Server()
    response = await web_client(reactor).get(server.url, unbuffered=True)
    taken: list[bytes] = []

    def some(piece: bytes) -> None:
        taken.append(piece)
        if len(taken) == 3:
            raise OverflowError

    with pytest.raises(OverflowError):
        await take(response, some)
    await server.left_alone()
    assert len(taken) == 3


@pytest_twisted.ensureDeferred
async def test_whoever_is_called_off_hangs_up() -> None:
    server = Server()
    response = await web_client(reactor).get(server.url, unbuffered=True)
    taking = take(response, lambda _piece: taking.cancel())
    with pytest.raises(CancelledError):
        await taking
    await server.left_alone()


@pytest_twisted.ensureDeferred
async def test_an_answer_that_nobody_wants_is_not_waited_for() -> None:
    server = Server(b"HTTP/1.1 500 Oops")
    dismiss(await web_client(reactor).get(server.url, unbuffered=True))
    await server.left_alone()


@pytest_twisted.ensureDeferred
async def test_a_hook_judges_by_the_status_alone() -> None:
    server = Server(b"HTTP/1.1 503 Busy")
    hooks = Hooks(reactor, reactor, web_client(reactor), (), server.url, LIMIT)
    assert await hooks.run(Flip("shop", "a" * 40, 4, "/")) == f"POST {server.url}: answered with status 503"
    await server.left_alone()
