from __future__ import annotations

import contextlib
import ipaddress
import os
import random
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from farmsyncd.core.affinity import source_of
from farmsyncd.lb.processes import sockets
from farmsyncd.lb.processes.cbpf import Spread
from farmsyncd.lb.relaying.binding import bind
from tests.eventually import LIMIT


@contextlib.contextmanager
def group(count: int, endpoint: str = "tcp:0:interface=127.0.0.1") -> Iterator[list[socket.socket]]:
    held = sockets.group(bind(endpoint), count)
    try:
        yield held
    finally:
        sockets.close(held)


def connected(address: tuple[str, int], source: str) -> socket.socket:
    client = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET)
    client.settimeout(LIMIT)
    client.bind((source, 0))
    client.connect(address)
    return client


def reached(held: list[socket.socket]) -> list[int]:
    """Which of the sockets have somebody waiting; he is taken."""
    found = []
    for number, one in enumerate(held):
        with contextlib.suppress(BlockingIOError):
            one.accept()[0].close()
            found.append(number)
    return found


@pytest.mark.parametrize("prefix", [32, 31, 24, 8, 0])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_kernel_sends_each_source_to_the_worker_that_is_worked_out_for_it(count: int, prefix: int) -> None:
    spread = Spread(count, prefix4=prefix)
    with group(count) as held:
        spread.attach(held[-1])
        for number in range(40):
            source = f"127.{number % 3}.{number % 5}.{number + 1}"
            with connected(held[0].getsockname(), source):
                assert reached(held) == [spread.worker_of(source_of(source, prefix))]


@pytest.mark.parametrize("prefix", [64, 127, 128, 0])
def test_so_it_does_for_ipv6_and_for_ipv4_that_comes_to_an_ipv6_socket(prefix: int) -> None:
    try:
        bind(r"tcp:0:interface=\:\:1").close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    spread = Spread(5, prefix6=prefix)
    with group(5, r"tcp:0:interface=\:\:") as held:
        spread.attach(held[0])
        port = held[0].getsockname()[1]
        for source, destination in [("::1", "::1"), *[(f"127.0.0.{one}", "127.0.0.1") for one in range(1, 20)]]:
            with connected((destination, port), source):
                assert reached(held) == [spread.worker_of(source_of(source, prefix6=prefix))]


def test_sources_are_spread_evenly_also_those_that_are_neighbours() -> None:
    spread = Spread(8)
    chance = random.Random(3)
    neighbours = [ipaddress.ip_address(0x0A000000 + one).packed for one in range(4000)]
    routers = [ipaddress.ip_address(0x0A000001 + (one << 8)).packed for one in range(4000)]
    networks = [ipaddress.ip_address((0x20010DB8 << 96) + (one << 64)).packed for one in range(4000)]
    anybody = [chance.randbytes(4) for _ in range(4000)]
    for sources in (neighbours, routers, networks, anybody):
        counts = Counter(map(spread.worker_of, sources))
        assert len(counts) == 8
        assert max(counts.values()) < 1.3 * 500


def test_what_has_no_address_belongs_to_the_first_worker() -> None:
    assert {Spread(4).worker_of(source) for source in (b"", b"?")} == {0}


def test_a_port_that_somebody_has_is_refused_although_groups_share_theirs() -> None:
    with group(3) as held, pytest.raises(OSError, match="in use"):
        bind(f"tcp:{held[0].getsockname()[1]}:interface=127.0.0.1")


def test_who_waits_at_a_worker_that_died_waits_for_its_successor() -> None:
    spread = Spread(2)
    with group(2) as held, contextlib.ExitStack() as clients:
        spread.attach(held[0])
        if not (child := os.fork()):
            os._exit(0)  # a worker that inherits the sockets, and dies
        os.waitpid(child, 0)
        waiting = [clients.enter_context(connected(held[0].getsockname(), f"127.0.0.{one}")) for one in range(1, 9)]
        taken = 0
        for one in held:
            with contextlib.suppress(BlockingIOError):
                while True:
                    clients.enter_context(one.accept()[0])
                    taken += 1
        assert taken == len(waiting)


def test_sockets_travel_to_another_process_and_go_on_listening_there() -> None:
    here, there = socket.socketpair()
    with here, there:
        there.settimeout(LIMIT)
        held = sockets.group(bind("tcp:0:interface=127.0.0.1"), 3)
        names = [one.getsockname() for one in held]
        socket.send_fds(here, [b"ab"], [one.fileno() for one in held])
        sockets.close(held)
        first, passed = sockets.take(there)
        try:
            assert sockets.take(there) == (b"b", [])
            assert first == b"a"
            assert [one.getsockname() for one in passed] == names
            with connected(names[0], "127.0.0.1"):
                assert len(reached(passed)) == 1
        finally:
            sockets.close(passed)
        here.close()
        assert sockets.take(there) == (b"", [])
