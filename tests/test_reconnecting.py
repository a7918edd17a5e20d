"""A client's link is kept up: growing, jittered waits that shrink once a connection has proved itself."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from farmsyncd.core.messages import Side
from farmsyncd.edges.link import Link, LinkSettings, Reconnecting, reconnecting
from tests.wire_pair import NODE, Recorder

GREETING = b"HELLO 1 data shop-data\n"


@implementer(IStreamClientEndpoint)
@attrs.define(eq=False)
class Endpoint:
    """Connects when the test says so."""

    factory: Any = None
    attempts: list[Deferred[Any]] = attrs.Factory(list)

    def connect(self, protocolFactory: Any) -> Deferred[Any]:  # noqa: N803 - IStreamClientEndpoint
        self.factory = protocolFactory
        self.attempts.append(Deferred())
        return self.attempts[-1]

    def accept(self) -> Link:
        link: Link = self.factory.buildProtocol(None)
        link.makeConnection(StringTransport())
        self.attempts[-1].callback(link)
        return link

    def refuse(self) -> None:
        self.attempts[-1].errback(Failure(ConnectError()))


class Kept:
    def __init__(self, jitter: float = 1.0) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint()
        self.sessions: list[Recorder] = []
        self.service: Reconnecting = reconnecting(self.endpoint, self._build, self.clock, lambda: jitter)
        self.service.startService()

    def _build(self) -> Link:
        self.sessions.append(Recorder())
        return Link(self.sessions[-1], NODE, Side.CLIENT, self.clock, LinkSettings(heartbeat=5))

    def wait(self) -> float:
        """How long the service waits before its next attempt; lets that time pass."""
        attempts = len(self.endpoint.attempts)
        (call,) = self.clock.getDelayedCalls()
        seconds = call.getTime() - self.clock.seconds()
        self.clock.advance(seconds)
        assert len(self.endpoint.attempts) == attempts + 1
        return seconds


def lose(link: Link) -> None:
    link.connectionLost(Failure(ConnectionDone()))


def test_the_waits_grow_to_a_limit_and_never_end() -> None:
    kept = Kept()
    waits = []
    for _ in range(3000):
        kept.endpoint.refuse()
        waits.append(round(kept.wait(), 6))
    assert waits[0] == pytest.approx(0.1)
    assert waits == sorted(waits)
    assert waits[-10:] == pytest.approx([10.0] * 10)


def test_the_waits_are_jittered() -> None:
    kept = Kept(jitter=0.0)
    kept.endpoint.refuse()
    assert kept.wait() == pytest.approx(0.05)


def test_a_server_that_hangs_up_is_not_hammered() -> None:
    kept = Kept()
    waits = []
    for _ in range(5):
        link = kept.endpoint.accept()
        link.dataReceived(GREETING + b"BYE +1\n10:name taken,")
        lose(link)
        waits.append(kept.wait())
    assert waits == sorted(set(waits))
    assert kept.sessions[0].losses == ["name taken"]


def test_a_connection_that_proved_itself_is_taken_up_again_at_once() -> None:
    kept = Kept()
    for _ in range(20):
        kept.endpoint.refuse()
        kept.wait()
    link = kept.endpoint.accept()
    link.dataReceived(GREETING)
    kept.clock.advance(5)
    assert kept.service.link is link
    lose(link)
    assert kept.service.link is None
    assert kept.wait() == pytest.approx(0.1)


def test_stopping_says_goodbye_and_waits_for_the_end() -> None:
    kept = Kept()
    link = kept.endpoint.accept()
    link.dataReceived(GREETING)
    transport: Any = link.transport
    stopped = kept.service.stopService()
    assert b"BYE +1\n" in transport.value()
    assert not stopped.called
    lose(link)
    assert stopped.called
    assert len(kept.endpoint.attempts) == 1
    assert kept.clock.getDelayedCalls() == []


def test_stopping_between_two_attempts_is_the_end() -> None:
    kept = Kept()
    kept.endpoint.refuse()
    assert kept.service.stopService().called
    assert kept.clock.getDelayedCalls() == []


def test_stopping_in_an_attempt_is_the_end() -> None:
    kept = Kept()
    assert kept.service.stopService().called
    assert kept.clock.getDelayedCalls() == []
