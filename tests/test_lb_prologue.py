from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from farmsyncd.core import proxyheader
from farmsyncd.core.proxyheader import Fault, HeaderError, write_own, write_v1, write_v2
from farmsyncd.lb.config import BalancerConfig, Network, NodeAddress, NodeConfig
from farmsyncd.lb.prologue import ProxyPrologue, prologue_of
from farmsyncd.lb.relaying.prologue import Accepted

CLIENT, SERVER = ("192.0.2.7", 4321), ("10.0.0.1", 80)
FRONT = ("10.0.0.9", 5555)
SECOND_NS = 10**9


def networks(*texts: str) -> list[Network]:
    return [ipaddress.ip_network(text) for text in texts]


class Hand:
    """A clock that is moved by hand."""

    now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def prologue(send: str = "none", *trusted: str, clock: Hand | None = None, **nodes: str) -> ProxyPrologue:
    return ProxyPrologue(send, nodes, networks(*trusted) if trusted else None, clock or Hand())


@pytest.fixture
def told() -> Iterator[list[str]]:
    lines: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event.get("log_namespace", "").endswith("ProxyPrologue"):
            lines.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def test_what_a_balancer_in_front_says_counts_and_what_follows_is_kept() -> None:
    one = prologue("none", "10.0.0.0/8")
    header = write_v2(CLIENT, SERVER)
    assert one.expects
    assert one.read(header[:20], FRONT) is None
    assert one.read(header + b"GET /", FRONT) == Accepted(CLIENT, SERVER, b"GET /")
    assert one.read(write_own(2) + b"x", FRONT) == Accepted(None, None, b"x")


@pytest.mark.parametrize("peer", [("192.0.2.1", 1), ("2001:db8::1", 1, 0, 0), ("::ffff:192.0.2.1", 1, 0, 0)])
def test_whoever_is_not_trusted_is_not_believed(peer: tuple[str, int]) -> None:
    with pytest.raises(HeaderError, match="proxy-from") as raised:
        prologue("none", "10.0.0.0/8", "fc00::/7").read(write_v1(CLIENT, SERVER), peer)
    assert raised.value.fault is Fault.UNTRUSTED


@pytest.mark.parametrize(
    "peer", [("10.1.1.1", 1), ("fd00::1", 1, 0, 0), ("fd00::1%eth0", 1, 0, 2), ("::ffff:10.1.1.1", 1, 0, 0), ""]
)
def test_a_trusted_peer_is_known_by_each_kind_of_address(peer: tuple[str, int]) -> None:
    assert prologue("none", "10.0.0.0/8", "fc00::/7").read(write_v1(CLIENT, SERVER), peer) is not None


def test_each_node_is_told_in_its_own_way() -> None:
    one = prologue("v1", a="v2", b="none")
    assert not one.expects
    assert one.header(CLIENT, SERVER, "a") == write_v2(CLIENT, SERVER)
    assert one.header(CLIENT, SERVER, "b") == b""
    assert one.header(CLIENT, SERVER, "c") == write_v1(CLIENT, SERVER)
    assert [one.own_header(node) for node in "abc"] == [write_own(2), b"", write_own(1)]


def test_addresses_are_taken_as_sockets_give_them() -> None:
    one = prologue("v2")
    assert one.header((*CLIENT, 0, 0), (*SERVER, 0, 0), "a") == write_v2(CLIENT, SERVER)
    assert one.header("", "/run/lb", "a") == write_v2("", "/run/lb")
    assert one.header(b"\0abstract", SERVER, "a") == write_v2("", SERVER)  # type: ignore[arg-type]


def test_what_is_refused_is_told_at_a_bounded_rate(told: list[str]) -> None:
    clock = Hand()
    one = prologue("none", "10.0.0.0/8", clock=clock)
    for _ in range(1000):
        one.refused(FRONT, Fault.MISSING, "expected more")
    assert told == ["a connection from 10.0.0.9:5555 is reset: expected more"]
    clock.now_ns += 10 * SECOND_NS
    one.refused(("2001:db8::1", 5), Fault.LATE, "expected this")
    assert told[1:] == ["a connection from [2001:db8::1]:5 is reset: expected this; so were 999 others before it"]
    clock.now_ns += 10 * SECOND_NS
    one.refused("", Fault.LATE, "expected that")
    assert told[2:] == ["a connection from a Unix socket is reset: expected that"]
    assert {fault: count for fault, count in one.refusals.items() if count} == {Fault.MISSING: 1000, Fault.LATE: 2}


def config(**more: Any) -> BalancerConfig:
    return BalancerConfig(listen="tcp:0", node=(NodeAddress("a", "h", 1),), **more)


def test_nothing_is_said_or_expected_unless_it_is_configured() -> None:
    assert prologue_of(config(), Hand()) is None
    assert prologue_of(config(nodes={"a": NodeConfig(weight=2.0)}), Hand()) is None


def test_a_configuration_is_followed() -> None:
    one = prologue_of(config(nodes={"a": NodeConfig(send_proxy="v1")}), Hand())
    assert one is not None
    assert not one.expects
    assert (one.header(CLIENT, SERVER, "a"), one.header(CLIENT, SERVER, "b")) == (write_v1(CLIENT, SERVER), b"")
    other = prologue_of(config(accept_proxy=True), Hand())
    assert other is not None
    assert other.expects
    assert other.read(proxyheader.write_v1(CLIENT, SERVER), ("127.0.0.1", 1)) is not None
    assert other.header(CLIENT, SERVER, "a") == b""
