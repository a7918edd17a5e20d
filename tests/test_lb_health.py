from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.policies import WrappingFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from farmsyncd.core.eligibility import State
from farmsyncd.lb.config import STATUSES, NodeAddress
from farmsyncd.lb.endpoints import Way
from farmsyncd.lb.farm import Sighting
from farmsyncd.lb.health import Checks, HttpProbe, NotWell, TcpProbe
from tests.eventually import eventually_async
from tests.lb_scene import SECOND, Scene, sighted

GOOD = frozenset(range(200, 400))
WAY = Way(reactor, 20.0)


class Probing:
    """A probe whose checks end when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[NodeAddress, Deferred[Any]]] = []

    def __call__(self, address: NodeAddress) -> Deferred[Any]:
        check: Deferred[Any] = Deferred()
        self.asked.append((address, check))
        return check

    def take(self) -> dict[str, Deferred[Any]]:
        """The checks that have begun since."""
        asked, self.asked = self.asked, []
        assert len({address.name for address, _ in asked}) == len(asked)
        return {address.name: check for address, check in asked}


class Ward:
    def __init__(self, names: str, random: float = 0.5, timeout_s: float = 5.0) -> None:
        self.scene = Scene(names, check="tcp")
        self.probe = Probing()
        now_ns = lambda: self.scene.now_ns  # noqa: E731
        self.checks = Checks(
            self.scene.dispatcher, self.probe, 2 * SECOND, timeout_s, now_ns, self.scene.clock, lambda: random
        )


def test_each_node_is_checked_at_its_intervals_and_what_is_found_counts() -> None:
    ward = Ward("ab")
    ward.checks.startService()
    for round_ in range(4):
        ward.scene.wait(2.3 if round_ == 0 else 2.0)
        checks = ward.probe.take()
        assert set(checks) == {"a", "b"}
        checks["a"].errback(Refused())
        checks["b"].callback(None)
    assert ward.scene.states() == {"a": State.DOWN, "b": State.READY}
    assert ward.scene.node("a").reason == "a check was refused"
    for _ in range(2):
        ward.scene.wait(2.0)
        for check in ward.probe.take().values():
            check.callback(None)
    assert ward.scene.states()["a"] is State.READY
    ward.checks.stopService()
    assert ward.scene.clock.getDelayedCalls() == []


def test_a_check_without_an_answer_has_failed_and_the_next_one_comes_in_its_turn() -> None:
    ward = Ward("a", timeout_s=1.0)
    ward.checks.startService()
    ward.scene.wait(8.5)
    assert len(ward.probe.asked) == 4
    assert ward.scene.states()["a"] is State.DOWN
    assert ward.scene.node("a").reason == "a check had no answer within 1 s"
    ward.checks.stopService()


def test_nodes_that_come_are_checked_and_those_that_went_are_not() -> None:
    ward = Ward("")
    ward.scene.dispatcher.observe(sighted("ab"))
    ward.checks.startService()
    ward.scene.wait(1.3)
    pending = ward.probe.take()
    assert set(pending) == {"a", "b"}
    ward.scene.dispatcher.observe(sighted("bc"))
    pending["a"].callback(None)  # it has gone meanwhile
    pending["b"].callback(None)
    ward.scene.wait(2.2)
    assert set(ward.probe.take()) == {"b", "c"}
    ward.checks.stopService()
    ward.scene.wait(10)
    assert ward.probe.take() == {}


@pytest.mark.parametrize("random", [0.0, 0.999])
def test_checks_keep_to_their_interval_within_the_jitter(random: float) -> None:
    ward = Ward("a", random)
    ward.checks.startService()
    count = 0
    for _ in range(400):
        ward.scene.wait(0.1)
        for check in ward.probe.take().values():
            check.callback(None)
            count += 1
    assert 16 <= count <= 24  # 40 s
    ward.checks.stopService()


class Nodes(WrappingFactory):
    """Knows the connections of ``inner``; without it they never say a word."""

    noisy = False

    def __init__(self, inner: Any = None) -> None:
        super().__init__(inner or Factory.forProtocol(Protocol))
        self.count = 0

    def registerProtocol(self, p: Any) -> None:  # noqa: N802
        self.count += 1
        super().registerProtocol(p)

    def idle(self) -> bool:
        """Whether somebody was here, and all have gone."""
        return self.count > 0 and not self.protocols


@contextlib.contextmanager
def _listening(factory: Any) -> Iterator[NodeAddress]:
    port: Any = cast("Any", reactor).listenTCP(0, factory, interface="127.0.0.1")
    try:
        yield NodeAddress("n", "127.0.0.1", port.getHost().port)
    finally:
        port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_node_that_takes_connections_passes_the_tcp_check_and_another_one_fails() -> None:
    probe = TcpProbe(WAY)
    nodes = Nodes()
    with _listening(nodes) as address:
        await probe(address)
        await eventually_async(nodes.idle)
    with pytest.raises(Refused):
        await probe(address)


@pytest_twisted.ensureDeferred
async def test_a_node_on_a_unix_socket_can_be_checked() -> None:
    with tempfile.TemporaryDirectory() as folder:  # short enough for a socket's address
        nodes = Nodes()
        port = cast("Any", reactor).listenUNIX(f"{folder}/node", nodes)
        await TcpProbe(WAY)(NodeAddress("n", "", 0, f"{folder}/node"))
        await eventually_async(nodes.idle)
        await port.stopListening()


class _Page(Resource):
    isLeaf = True  # noqa: N815

    def __init__(self) -> None:
        super().__init__()
        self.open = 0

    def render_GET(self, request: Request) -> bytes | int:  # noqa: N802
        if request.path == b"/sick":
            request.setResponseCode(503)
        if request.path == b"/moved":
            request.setResponseCode(302)
            request.setHeader(b"location", b"/sick")
        if request.path == b"/endless":
            self.open += 1
            request.notifyFinish().addBoth(self._closed)
            request.write(b"x" * 1000)
            return NOT_DONE_YET
        return b"body"

    def _closed(self, _result: object) -> None:
        self.open -= 1


@pytest_twisted.ensureDeferred
async def test_an_http_check_looks_at_the_status_and_at_nothing_else() -> None:
    page = _Page()
    site = Site(page)
    site.noisy = False
    nodes = Nodes(site)
    with _listening(nodes) as address:
        await HttpProbe(reactor, WAY, "/", GOOD)(address)
        await HttpProbe(reactor, WAY, "/moved", GOOD)(address)
        await HttpProbe(reactor, WAY, "/endless", GOOD)(address)
        await HttpProbe(reactor, WAY, "/sick", frozenset({503}))(address)
        with pytest.raises(NotWell, match="it answered 503 to GET /sick"):
            await HttpProbe(reactor, WAY, "/sick", GOOD)(address)
        await eventually_async(lambda: page.open == 0 and nodes.idle())


@pytest_twisted.ensureDeferred
async def test_real_checks_take_a_node_down_that_accepts_and_never_answers() -> None:
    scene = Scene("", check="http")
    nodes = Nodes()
    with _listening(nodes) as address:
        scene.dispatcher.observe({"n": Sighting(address)})
        probe = HttpProbe(reactor, WAY, "/", GOOD)
        clock: Any = reactor
        checks = Checks(scene.dispatcher, probe, 50_000_000, 0.05, time.monotonic_ns, clock, lambda: 0.0)
        checks.startService()
        await eventually_async(lambda: scene.states()["n"] is State.DOWN)
        assert "no answer" in scene.node("n").reason
        checks.stopService()
        await eventually_async(nodes.idle)


def test_the_codes_that_are_good_can_be_ranges() -> None:
    assert STATUSES.read("200-399") == GOOD
    assert STATUSES.read("200, 401,500-501") == {200, 401, 500, 501}


@pytest.mark.parametrize("text", ["", "99", "600", "abc", "200-", "300-200", "200--300", "200-99999999999", "200,,300"])
def test_what_is_no_code_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        STATUSES.read(text)
