"""Nodes whose address is a name: how it is looked up, and what is done while it cannot be."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.threads import deferToThread

from farmsyncd.lb.relaying.binding import bind
from farmsyncd.lb.relaying.front import Front
from farmsyncd.lb.relaying.names import KEPT_NS, OLD_NS, Names
from farmsyncd.lb.relaying.settings import RelaySettings
from farmsyncd.lb.relaying.sockets import Target
from tests.eventually import LIMIT
from tests.relay_scene import EchoNode, exactly
from tests.relaying_front import PlainDispatcher, node


class Resolver:
    """A reactor's resolver that is answered by the test."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.nameResolver = self

    def resolveHostName(self, receiver: Any, *_name_and_port: object) -> None:  # noqa: N802 - IHostnameResolver
        self.asked.append(receiver)

    def answer(self, *addresses: object) -> None:
        receiver = self.asked.pop()
        receiver.resolutionBegan(SimpleNamespace())
        for address in addresses:
            receiver.addressResolved(address)
        receiver.resolutionComplete()


def test_names_are_looked_up_once_for_all_who_ask_and_remembered_when_they_are_found() -> None:
    resolver, found = Resolver(), list[Sequence[Target]]()
    clock = [0]
    names = Names(resolver, lambda: clock[0])
    names.find("10.0.0.1", 80, found.append)
    assert found.pop() == ((socket.AF_INET, ("10.0.0.1", 80)),)
    for _ in range(3):
        names.find("shop", 80, found.append)
    assert len(resolver.asked) == 1
    resolver.answer()
    assert found == [()] * 3, "none, and that is not remembered"
    found.clear()
    names.find("shop", 80, found.append)
    resolver.answer(IPv6Address("TCP", "::1", 80), IPv4Address("TCP", "10.0.0.2", 80))
    names.find("shop", 80, found.append)
    both = [(socket.AF_INET6, ("::1", 80, 0, 0)), (socket.AF_INET, ("10.0.0.2", 80))]
    assert found == [both, both]
    assert resolver.asked == []


def test_what_was_known_of_a_name_counts_until_something_else_is_found() -> None:
    resolver, found = Resolver(), list[Sequence[Target]]()
    clock = [0]
    names = Names(resolver, lambda: clock[0])

    def asked() -> list[str]:
        found.clear()
        names.find("shop", 80, found.append)
        return [str(address[0]) for targets in found for _, address in targets]

    asked()
    resolver.answer(IPv4Address("TCP", "10.0.0.1", 80))
    clock[0] += KEPT_NS
    assert [asked(), asked()] == [["10.0.0.1"]] * 2, "nobody waits for the name server"
    assert len(resolver.asked) == 1
    resolver.answer(IPv4Address("TCP", "10.0.0.2", 80))
    assert asked() == ["10.0.0.2"]
    clock[0] += OLD_NS
    assert asked() == [], "it may be another machine's by now"
    resolver.answer()
    assert found == [[(socket.AF_INET, ("10.0.0.2", 80))]], "but when nothing else is found, it counts"
    assert (asked(), resolver.asked) == (["10.0.0.2"], [])


def test_no_more_names_are_remembered_than_a_farm_has() -> None:
    resolver = Resolver()
    names = Names(resolver, lambda: 0)
    for number in range(5000):
        names.find(f"10.1.{number // 250}.{number % 250}", 80, lambda _: None)
        names.find(f"web{number}", 80, lambda _: None)
        resolver.answer(IPv4Address("TCP", "10.0.0.1", 80))
    assert len(names._fixed) == len(names._kept) == 4096
    names.find("web0", 80, lambda _: None)
    assert len(resolver.asked) == 1


class Resolving:
    """The reactor with another resolver."""

    def __init__(self, resolver: Resolver) -> None:
        self.nameResolver = resolver

    def __getattr__(self, name: str) -> Any:
        return getattr(_reactor, name)


@pytest_twisted.ensureDeferred
async def test_a_name_server_that_does_not_answer_costs_a_client_no_more_than_a_node_that_does_not() -> None:
    resolver = Resolver()
    with EchoNode() as echo, bind("tcp:0:interface=127.0.0.1") as listener:
        dispatcher = PlainDispatcher([node("named", "shop", 80), node(*echo.node)])
        front = Front(listener, dispatcher, Resolving(resolver), RelaySettings(connect_ns=100_000_000))
        front.start()
        with socket.create_connection(listener.getsockname(), LIMIT) as client:
            client.sendall(b"hello")
            assert await deferToThread(exactly, client, 5) == b"hello"
            assert dispatcher.refusals[0] == "its name was not found in time"
            resolver.answer(IPv4Address("TCP", "127.0.0.1", 1))
            client.sendall(b"again")
            assert await deferToThread(exactly, client, 5) == b"again"
        await front.finish(LIMIT)
