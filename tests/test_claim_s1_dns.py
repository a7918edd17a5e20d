from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmsyncd.cli.main import run
from tests.daemons import TWISTD, Daemons, environment
from tests.dig import ask, needs_dig
from tests.eventually import eventually
from tests.farm import Farm
from tests.lb_farm import LOCAL, Balancer
from tests.proxies import get

NAME = "www.shop.example"
HOSTS = ("127.0.0.21", "127.0.0.22", "127.0.0.23")


@contextlib.contextmanager
def same_port(hosts: tuple[str, ...]) -> Iterator[int]:
    """A port that is free on all of these addresses, and stays so: a name has no port, so the nodes share theirs."""
    for _ in range(50):
        with contextlib.ExitStack() as stack:
            if port := bound(stack, hosts):
                yield port
                return
    raise AssertionError("there is no such port")


def bound(stack: contextlib.ExitStack, hosts: tuple[str, ...]) -> int:
    port = 0
    with contextlib.suppress(OSError):
        for host in hosts:
            one = stack.enter_context(socket.socket())
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((host, port))
            port = one.getsockname()[1]
        return port
    return 0


def dns_port(balancer: Balancer) -> int:
    return int(balancer.daemon.addresses["dns"].rpartition(":")[2])


def dns_balancer(daemons: Daemons, *arguments: str) -> Balancer:
    return Balancer(daemons, "--dns", LOCAL, "--dns-name", NAME, *arguments)


def test_claim_s1_15_the_farm_can_be_balanced_by_dns_round_robin(daemons: Daemons, tmp_path: Path) -> None:
    with same_port(HOSTS) as web:
        farm = Farm(daemons, tmp_path)
        for number, host in enumerate(HOSTS, 1):
            serve = ("--http", f"tcp:{web}:interface={host}", "--serve", f"{host}:{web}")
            farm.node(f"web{number}", *serve, http=False).daemon.ready()
        farm.settled(farm.publish({"index.html": b"the shop"}))
        admin = tmp_path / "admin.sock"
        balancer = dns_balancer(daemons, "--data", farm.address, "--admin", str(admin))
        port = dns_port(balancer)

        def given() -> set[str]:
            told = ask(port, NAME)
            assert (told.status, "aa" in told.flags, "tc" in told.flags) == ("NOERROR", True, False)
            return set(told.data)

        eventually(lambda: given() == {*HOSTS})
        firsts = [ask(port, NAME).data[0] for _ in range(6)]
        assert {*firsts[:3]} == {*HOSTS}
        assert firsts[3:] == firsts[:3]
        assert {page(host, web) for host in firsts} == {"the shop"}

        away = farm.nodes[1]
        away.daemon.stop()
        eventually(lambda: given() == {HOSTS[0], HOSTS[2]})
        away.daemon.start().ready()
        eventually(lambda: given() == {*HOSTS})

        order(admin, "drain", "web3")
        assert given() == {*HOSTS[:2]}
        order(admin, "ready", "web3")
        assert given() == {*HOSTS}

        farm.data.kill()
        eventually(lambda: balancer.get("/status")["data_server"] is False)
        assert given() == {*HOSTS}


def order(admin: Path, *words: str) -> None:
    """What an operator orders by ``farmsync lb``."""
    assert run(["lb", *words, "--admin", str(admin)]) == 0


def page(host: str, port: int) -> str:
    """The shop's page, as a client sees it that took this address."""
    body, _ = get(port, host=host, path="/shop/index.html")
    return body


@needs_dig
def test_dig_is_told_what_the_name_has_and_what_it_has_not(daemons: Daemons) -> None:
    nodes = [word for host in ("a=127.0.0.1:80", "b=[::1]:80") for word in ("--node", host)]
    balancer = dns_balancer(daemons, *nodes, "--dns-server", "lb1.shop.example", "--dns-ttl", "7s")
    port = dns_port(balancer)
    for options in ((), ("+tcp",), ("+noedns",), ("+bufsize=4096", "+dnssec"), ("+norecurse",)):
        assert ask(port, NAME, "A", *options).data == ("127.0.0.1",)
        assert ask(port, NAME.upper(), "AAAA", *options).data == ("::1",)
    assert ask(port, NAME, "SOA").data == (f"lb1.shop.example. hostmaster.{NAME}. 1 3600 600 86400 7",)
    assert ask(port, NAME, "NS").data == ("lb1.shop.example.",)
    empty = ask(port, NAME, "MX")
    assert (empty.status, "aa" in empty.flags, empty.data) == ("NOERROR", True, ())
    assert ask(port, f"no.{NAME}").status == "NXDOMAIN"
    assert ask(port, "shop.example").status == "REFUSED"
    assert ask(port, NAME, "A", "+opcode=NOTIFY").status == "NOTIMP"
    assert ask(port, NAME, "A", "+edns=1", "+noednsnegotiation").status == "BADVERS"


@needs_dig
def test_an_answer_that_does_not_fit_into_udp_is_whole_over_tcp(daemons: Daemons) -> None:
    hosts = [f"127.0.1.{number}" for number in range(1, 151)]
    nodes = [word for number, host in enumerate(hosts) for word in ("--node", f"n{number}={host}:80")]
    port = dns_port(dns_balancer(daemons, *nodes))
    cut = ask(port, NAME, "A", "+ignore")
    assert "tc" in cut.flags
    assert 60 < len(set(cut.data)) < 150
    assert sorted(ask(port, NAME).data) == sorted(hosts)


def test_a_balancer_of_several_workers_answers_for_all_of_them(daemons: Daemons, tmp_path: Path) -> None:
    admin = tmp_path / "admin.sock"
    nodes = [word for number in (1, 2) for word in ("--node", f"n{number}=127.0.1.{number}:80")]
    port = dns_port(dns_balancer(daemons, "--workers", "2", "--admin", str(admin), *nodes))
    assert sorted(ask(port, NAME).data) == ["127.0.1.1", "127.0.1.2"]
    order(admin, "drain", "n1")
    eventually(lambda: ask(port, NAME).data == ("127.0.1.2",))


def test_a_farm_of_which_nothing_is_known_yet_has_no_answer_that_anybody_would_keep(
    daemons: Daemons, tmp_path: Path
) -> None:
    farm = Farm(daemons, tmp_path)
    balancer = dns_balancer(daemons, "--data", farm.address)
    assert ask(dns_port(balancer), NAME).status == "SERVFAIL"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--dns", LOCAL], "expected both or neither of dns and dns-name"),
        (["--dns", "unix:/run/dns", "--dns-name", NAME], "tcp stands for UDP on the same port, too"),
        (["--dns", LOCAL, "--dns-name", "www..example"], "--dns-name: expected a domain name"),
    ],
)
def test_a_wrong_command_line_is_one_clear_message(arguments: list[str], told: str, tmp_path: Path) -> None:
    ended = ending(["--listen", LOCAL, "--node", "a=127.0.0.1:80", *arguments], tmp_path)
    assert ended.returncode == 78
    assert told in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_a_port_of_which_the_udp_half_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        dns = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        ended = ending(["--listen", LOCAL, "--node", "a=127.0.0.1:80", "--dns", dns, "--dns-name", NAME], tmp_path)
    assert ended.returncode == 78
    assert f"expected to listen on {dns} for DNS: Address already in use" in ended.stdout + ended.stderr


def ending(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TWISTD, "-n", "--pidfile=", "farmsync-lb", *arguments],
        cwd=folder, env=environment(), check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
