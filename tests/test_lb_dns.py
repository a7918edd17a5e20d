from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.names import dns

from farmsyncd.core.eligibility import Order
from farmsyncd.lb.config import NodeAddress, NodeConfig
from farmsyncd.lb.dns import serving
from farmsyncd.lb.dns.addresses import Addresses
from farmsyncd.lb.dns.endpoint import eligible
from farmsyncd.lb.dns.serving import OverTcp, both_halves
from farmsyncd.lb.dns.zone import TCP_MOST, UDP_MOST, Zone
from farmsyncd.lb.farm import Sighting
from tests.lb_scene import SECOND, Scene, address

NAME = "www.shop.example"


def fours(count: int) -> list[str]:
    return [f"10.0.{number // 250}.{1 + number % 250}" for number in range(count)]


def zone(four: Sequence[str] | None = ("10.0.0.1",), six: Sequence[str] | None = ()) -> Zone:
    return Zone(NAME, ("lb1.shop.example", "lb2.shop.example"), 5, lambda version: four if version == 4 else six)


def question(
    name: str = NAME, kind: int = dns.A, cls: int = dns.IN, *, size: int | None = None, version: int = 0
) -> dns.Message:
    message = dns.Message(4711, recDes=1)
    message.addQuery(name.encode(), kind, cls)
    if size is not None:
        option = dns.RRHeader(b"", dns.OPT, size, version << 16 | 0x8000)
        option.payload = dns.UnknownRecord(b"\0\x0a\0\x08cookie12")
        message.additional = [option]
    return message


def decoded(answer: bytes) -> dns.Message:
    reply = dns.Message()
    reply.maxCompressionPointers = 1 << 16
    reply.fromStr(answer)
    return reply


def payload(record: dns.RRHeader) -> Any:
    return record.payload


def asked(one: Zone, message: dns.Message, most: int | None = None) -> dns.Message:
    answer = one.answer(message.toStr(), most)
    assert answer is not None
    reply = decoded(answer)
    assert (reply.id, reply.answer, reply.recAv) == (message.id, 1, 0)
    return reply


def addresses(reply: dns.Message) -> list[str]:
    return [payload(record).dottedQuad() for record in reply.answers]


def test_the_name_is_answered_with_authority_and_a_short_life() -> None:
    reply = asked(zone(["10.0.0.1", "10.0.0.2"]), question())
    assert (reply.rCode, reply.auth, reply.trunc, reply.recDes) == (dns.OK, 1, 0, 1)
    assert addresses(reply) == ["10.0.0.1", "10.0.0.2"]
    assert {(record.ttl, record.type, record.cls) for record in reply.answers} == {(5, dns.A, dns.IN)}
    assert [query.name.name for query in reply.queries] == [NAME.encode()]


def test_ipv6_addresses_have_their_own_records() -> None:
    reply = asked(zone([], ["2001:db8::1", "2001:db8::2"]), question(kind=dns.AAAA))
    assert [payload(record).address for record in reply.answers] == [
        socket.inet_pton(socket.AF_INET6, address) for address in ("2001:db8::1", "2001:db8::2")
    ]
    empty = asked(zone([], ["2001:db8::1"]), question())
    assert (empty.rCode, empty.answers, empty.authority[0].type, empty.authority[0].ttl) == (dns.OK, [], dns.SOA, 5)


def test_case_is_kept_and_does_not_matter() -> None:
    reply = asked(zone(), question("wWw.ShOp.eXample"))
    assert addresses(reply) == ["10.0.0.1"]
    assert reply.queries[0].name.name == reply.answers[0].name.name == b"wWw.ShOp.eXample"


def test_a_farm_that_is_not_known_is_no_farm_without_addresses() -> None:
    reply = asked(zone(None, None), question())
    assert (reply.rCode, reply.answers, reply.authority) == (dns.ESERVER, [], [])


def test_the_zone_has_a_start_of_authority_and_its_servers() -> None:
    soa = payload(asked(zone(), question(kind=dns.SOA)).answers[0])
    assert (soa.mname.name, soa.rname.name, soa.minimum) == (b"lb1.shop.example", f"hostmaster.{NAME}".encode(), 5)
    servers = asked(zone(), question(kind=dns.NS)).answers
    assert [payload(record).name.name for record in servers] == [b"lb1.shop.example", b"lb2.shop.example"]


@pytest.mark.parametrize(
    ("message", "code", "authority"),
    [
        (question("x." + NAME), dns.ENAME, True),
        (question("a.b." + NAME, dns.AAAA), dns.ENAME, True),
        (question(kind=dns.MX), dns.OK, True),
        (question(kind=dns.TXT), dns.OK, True),
        (question(kind=65), dns.OK, True),
        (question("shop.example"), dns.EREFUSED, False),
        (question("xwww.shop.example"), dns.EREFUSED, False),
        (question(""), dns.EREFUSED, False),
        (question("version.bind", dns.TXT, dns.CH), dns.EREFUSED, False),
        (question(cls=dns.CH), dns.EREFUSED, False),
        (question(kind=dns.AXFR), dns.EREFUSED, False),
        (question(kind=dns.IXFR), dns.EREFUSED, False),
    ],
)
def test_what_the_zone_does_not_have(message: dns.Message, code: int, authority: bool) -> None:
    reply = asked(zone(), message)
    assert (reply.rCode, reply.answers, bool(reply.auth)) == (code, [], authority)
    assert [(record.type, record.name.name.decode()) for record in reply.authority] == (
        [(dns.SOA, NAME)] if authority else []
    )


def test_whoever_asks_for_everything_gets_little() -> None:
    reply = asked(zone(fours(20)), question(kind=dns.ALL_RECORDS))
    assert [record.type for record in reply.answers] == [dns.HINFO]


@pytest.mark.parametrize("opcode", [1, 2, 4, 5, 15])
def test_other_operations_are_not_implemented(opcode: int) -> None:
    message = question()
    message.opCode = opcode
    reply = asked(zone(), message)
    assert (reply.rCode, reply.opCode, reply.queries) == (dns.ENOTIMP, opcode, [])


def two_questions() -> dns.Message:
    message = question()
    message.addQuery(b"x." + NAME.encode())
    return message


def two_options() -> dns.Message:
    message = question(size=1232)
    message.additional *= 2
    return message


def with_an_answer() -> dns.Message:
    message = question()
    message.answers = [dns.RRHeader(NAME.encode(), dns.A, payload=dns.Record_A("10.0.0.1"))]
    return message


@pytest.mark.parametrize("message", [two_questions(), two_options(), with_an_answer(), dns.Message(4711)])
def test_a_malformed_question_is_called_so(message: dns.Message) -> None:
    assert asked(zone(), message).rCode == dns.EFORMAT


@pytest.mark.parametrize("label", [b"a\0b", b".", b"x" * 100, b"a..b", b""])
def test_names_that_cannot_be_spelled_again_are_malformed_at_most(label: bytes) -> None:
    asking = struct.pack("!HBBHHHH", 1, 0, 0, 1, 0, 0, 0) + bytes([len(label)]) + label + b"\0" * (1 if label else 0)
    answer = zone().answer(asking + struct.pack("!HH", dns.A, dns.IN), None)
    assert answer is not None
    assert answer[3] & 15 in (dns.EFORMAT, dns.EREFUSED)


def test_answers_and_scraps_are_not_answered() -> None:
    assert zone().answer(b"", None) is None
    assert zone().answer(bytes(11), None) is None
    reply = zone().answer(question().toStr(), None)
    assert reply is not None
    assert zone().answer(reply, None) is None


@given(st.binary(max_size=80))
def test_garbage_is_malformed_or_ignored(garbage: bytes) -> None:
    for most in (None, TCP_MOST):
        for start in (b"", bytes(12), question().toStr()[:12], question(size=4000).toStr()[:-8]):
            answer = zone().answer(start + garbage, most)
            assert answer is None or 12 <= len(answer) <= 512


@pytest.mark.parametrize(
    ("size", "limit"), [(None, 512), (0, 512), (512, 512), (700, 700), (1232, 1232), (4096, 1232), (65535, 1232)]
)
@pytest.mark.parametrize(("kind", "each"), [(dns.A, 16), (dns.AAAA, 28)])
def test_udp_carries_what_fits_whole_and_says_that_there_is_more(
    size: int | None, limit: int, kind: int, each: int
) -> None:
    six = [f"2001:db8::{number:x}" for number in range(1, 301)]
    answer = zone(fours(300), six).answer(question(kind=kind, size=size).toStr(), None)
    assert answer is not None
    reply = decoded(answer)
    assert reply.trunc == 1
    assert limit - each < len(answer) <= limit
    assert len(reply.answers) == struct.unpack_from("!H", answer, 6)[0] > 10


def test_tcp_carries_all() -> None:
    reply = asked(zone(fours(3000)), question(size=1232), TCP_MOST)
    assert addresses(reply) == fours(3000)
    assert reply.trunc == 0


def test_a_zone_of_very_long_names_does_not_overflow_either() -> None:
    long = ".".join(["x" * 49] * 4)
    one = Zone(long, tuple(f"{number}.{'y' * 60}.{'z' * 60}.{'w' * 60}" for number in range(13)), 5, lambda _: [])
    for kind in (dns.A, dns.SOA, dns.NS, dns.TXT):
        answer = one.answer(question(long, kind).toStr(), None)
        assert answer is not None
        assert len(answer) <= 512


def test_extensions_are_tolerated_and_not_repeated() -> None:
    reply = asked(zone(), question(size=4096))
    (option,) = reply.additional
    assert (option.type, option.name.name, option.cls, option.ttl, payload(option).data) == (
        dns.OPT,
        b"",
        UDP_MOST,
        0x8000,
        b"",
    )
    assert addresses(reply) == ["10.0.0.1"]
    assert asked(zone(), question()).additional == []


def test_extensions_of_another_version_are_refused_as_the_protocol_says() -> None:
    reply = asked(zone(), question(size=4096, version=1))
    (option,) = reply.additional
    assert (reply.rCode, option.ttl >> 24, option.ttl >> 16 & 0xFF, reply.answers) == (0, 1, 0, [])


# The addresses and their order


Found = Callable[[Sequence[tuple[int, object]]], None]


def nowhere(_host: str, _port: int, found: Found) -> None:
    raise AssertionError("nothing is to be looked up")


def test_each_question_is_answered_with_the_next_node_first() -> None:
    nodes = [NodeAddress(name, f"10.0.0.{number}", 80) for number, name in enumerate("abc", 1)]
    nodes.append(NodeAddress("d", "2001:db8::1", 80))
    turning = Addresses(lambda: [(node, 0.7) for node in nodes], nowhere)
    answers = [list(turning(4) or ()) for _ in range(6)]
    assert {answer[0] for answer in answers[:3]} == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
    assert all(sorted(answer) == sorted(answers[0]) for answer in answers)
    assert answers[3:] == answers[:3]
    assert turning(6) == ["2001:db8::1"]
    del nodes[0]
    assert sorted(turning(4) or ()) == ["10.0.0.2", "10.0.0.3"]


def test_only_addresses_that_a_client_can_use_are_given_and_each_once() -> None:
    nodes = [NodeAddress("a", "10.0.0.1", 80), NodeAddress("b", "10.0.0.1", 81), NodeAddress("c", "", 0, "/run/c")]
    turning = Addresses(lambda: [(node, 1) for node in nodes], nowhere)
    assert turning(4) == ["10.0.0.1"]
    assert turning(6) == []
    del nodes[:2]
    assert turning(4) is None


def test_names_are_looked_up_and_their_last_known_addresses_count() -> None:
    waiting: list[Found] = []
    turning = Addresses(
        lambda: [(NodeAddress("a", "web1.example", 80), 1)], lambda _host, _port, found: waiting.append(found)
    )
    assert turning(4) is None
    waiting.pop()([(socket.AF_INET, ("10.0.0.7", 80)), (socket.AF_INET6, ("2001:db8::7", 80, 0, 0))])
    assert turning(4) == ["10.0.0.7"]
    assert turning(6) == ["2001:db8::7"]
    waiting.pop()([])
    assert turning(4) == ["10.0.0.7"]


def weighted(*weights: float) -> Addresses:
    nodes = [(NodeAddress(f"n{number}", f"10.0.0.{number}", 80), one) for number, one in enumerate(weights)]
    return Addresses(lambda: nodes, nowhere)


@pytest.mark.parametrize(
    ("weights", "together"),
    [((1, 1, 1), 3), ((3, 3), 2), ((2, 1), 1), ((3, 1, 1, 1), 2), ((1, 1, 1, 0.1), 3), ((5,), 1), ((9, 1, 1), 1)],
)
def test_each_node_is_as_often_in_the_answers_as_its_weight_says(weights: tuple[float, ...], together: int) -> None:
    turning = weighted(*weights)
    answers = [list(turning(4) or ()) for _ in range(1000)]
    assert {len(answer) for answer in answers} == {together}
    assert all(len(set(answer)) == together for answer in answers)
    for number, weight in enumerate(weights):
        part = weight / sum(weights)
        assert sum(f"10.0.0.{number}" in answer for answer in answers) == pytest.approx(1000 * part * together, abs=5)
        assert sum(f"10.0.0.{number}" == answer[0] for answer in answers) == pytest.approx(1000 * part, abs=10)


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=12), st.integers(1, 30))
def test_whatever_the_weights_an_answer_has_addresses_and_each_once(weights: list[float], turns: int) -> None:
    turning = weighted(*weights)
    for _ in range(turns):
        answer = list(turning(4) or ())
        assert len(set(answer)) == len(answer) >= 1
        assert set(answer) <= {f"10.0.0.{number}" for number in range(len(weights))}


def test_a_machine_with_two_nodes_counts_twice_and_the_addresses_of_one_node_share_its_weight() -> None:
    def find(_host: str, _port: int, found: Found) -> None:
        found([(socket.AF_INET, (f"10.0.0.{number}", 80)) for number in (8, 9)])

    nodes = [(NodeAddress("a", "10.0.0.1", 80), 1.0), (NodeAddress("b", "10.0.0.1", 81), 1.0)]
    nodes.append((NodeAddress("c", "web.example", 80), 1.0))
    turning = Addresses(lambda: nodes, find)
    turning(4)
    answers = [turning(4) or () for _ in range(400)]
    assert [sum(address in answer for answer in answers) for address in ("10.0.0.1", "10.0.0.8", "10.0.0.9")] == [
        pytest.approx(267, abs=4),
        pytest.approx(67, abs=4),
        pytest.approx(67, abs=4),
    ]


def test_only_nodes_that_take_new_sources_are_named_each_with_its_weight_at_this_moment() -> None:
    scene = Scene("abcde", nodes={"a": NodeConfig(weight=3)}, ramp_up_ns=10 * SECOND, check="tcp")

    def named() -> dict[str, float]:
        return {address.name: weight for address, weight in eligible(scene.farm, scene.now_ns)}

    assert named() == {"a": 3, "b": 1, "c": 1, "d": 1, "e": 1}
    scene.dispatcher.command("b", Order.DRAIN)
    scene.dispatcher.command("c", Order.MAINT)
    for _ in range(3):
        scene.dispatcher.checked("d", False, "a check was refused")
    scene.dispatcher.observe({"e": Sighting(address("e"), missed="it missed cycle 7")})
    assert named() == {"a": 3}
    scene.dispatcher.command("a", Order.MAINT)
    assert named() == {"b": 1}, "the last eligible node is never taken away"
    for _ in range(2):
        scene.dispatcher.checked("d", True)
    assert named() == {"d": pytest.approx(0.1)}, "it begins with a part"
    scene.wait(10)
    assert named() == {"d": 1}


# Over TCP


class Connection(StringTransport):
    """A transport that knows of being aborted."""

    aborted = False

    def abortConnection(self) -> None:  # noqa: N802 - ITCPTransport
        self.aborted = True


def connected(clock: Clock, clients: set[OverTcp], one: Zone | None = None) -> tuple[OverTcp, Connection]:
    protocol, transport = OverTcp(one or zone(), clock, clients), Connection()
    protocol.makeConnection(transport)
    return protocol, transport


def framed(message: bytes) -> bytes:
    return struct.pack("!H", len(message)) + message


def test_questions_over_tcp_come_one_after_the_other() -> None:
    clock = Clock()
    protocol, transport = connected(clock, set())
    for byte in framed(question().toStr()) * 2:
        protocol.dataReceived(bytes([byte]))
    one = zone().answer(question().toStr(), TCP_MOST)
    assert one is not None
    assert transport.value() == framed(one) * 2
    protocol.connectionLost()
    assert clock.getDelayedCalls() == []


def test_who_does_not_take_his_answers_is_not_heard_until_he_does() -> None:
    protocol, transport = connected(Clock(), set(), zone(fours(100)))
    protocol.pauseProducing()
    protocol.dataReceived(framed(question().toStr()) * 3)
    assert (transport.value(), transport.producerState) == (b"", "paused")
    protocol.resumeProducing()
    assert transport.value().count(b"\x03www\x04shop\x07example") == 3


@pytest.mark.parametrize("bad", [framed(b"scrap"), struct.pack("!H", 4097) + b"x" * 4097])
def test_who_talks_nonsense_over_tcp_is_cut_off(bad: bytes) -> None:
    protocol, transport = connected(Clock(), set())
    protocol.dataReceived(bad)
    assert transport.aborted or transport.disconnecting


def test_who_is_silent_over_tcp_is_cut_off() -> None:
    clock = Clock()
    protocol, transport = connected(clock, set())
    clock.advance(serving.IDLE_S - 1)
    protocol.dataReceived(framed(question().toStr()))
    clock.advance(serving.IDLE_S - 1)
    assert not transport.aborted
    clock.advance(1)
    assert transport.aborted


def test_only_so_many_may_be_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "CLIENTS", 2)
    clients: set[OverTcp] = set()
    protocols = [connected(Clock(), clients) for _ in range(3)]
    assert [transport.aborted for _, transport in protocols] == [False, False, True]
    for protocol, _ in protocols:
        protocol.connectionLost()
    assert clients == set()
    assert not connected(Clock(), clients)[1].aborted


def test_a_tcp_endpoint_stands_for_udp_too() -> None:
    tcp, udp = both_halves("tcp:0:interface=127.0.0.1")
    with tcp, udp:
        assert (tcp.type, udp.type) == (socket.SOCK_STREAM, socket.SOCK_DGRAM)
        assert tcp.getsockname() == udp.getsockname()
        with pytest.raises(OSError, match="in use"):
            both_halves(f"tcp:{tcp.getsockname()[1]}:interface=127.0.0.1")


def test_who_is_connected_when_nobody_listens_any_more_has_his_last_question_answered() -> None:
    clock, gone = Clock(), list[bool]()
    clients: set[OverTcp] = set()
    asking = OverTcp(zone(), clock, clients, lambda: gone.append(not clients))
    silent = OverTcp(zone(), clock, clients, lambda: gone.append(not clients))
    transports = [Connection(), Connection()]
    for protocol, transport in zip((asking, silent), transports, strict=True):
        protocol.makeConnection(transport)
        protocol.finish()
    asking.dataReceived(framed(question().toStr()))
    assert transports[0].disconnecting
    assert transports[0].value()
    asking.connectionLost()
    assert gone == [False]
    clock.advance(serving.LAST_S)
    assert transports[1].aborted
    silent.connectionLost()
    assert gone == [False, True]
