from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from farmsyncd.core.proxyheader import write_own, write_v1, write_v2
from tests.daemons import Daemons
from tests.eventually import eventually
from tests.lb_farm import Balancer, ThreadedNode, named_nodes, read_all
from tests.proxies import get, haproxy, needs_haproxy, needs_nginx, nginx, port_of, reserved

Receiver = Callable[[Path, socket.socket], AbstractContextManager[object]]
CLIENT, SERVER = ("192.0.2.7", 4321), ("198.51.100.1", 80)


def haproxy_receives(folder: Path, own_port: socket.socket) -> AbstractContextManager[object]:
    text = """
frontend shop
    mode http
    bind {0} accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port]"
"""
    return haproxy(folder / "haproxy", text, own_port)


def nginx_receives(folder: Path, own_port: socket.socket) -> AbstractContextManager[object]:
    told = " ".join(f"$proxy_protocol_{name}" for name in ("addr", "port", "server_addr", "server_port"))
    text = f"""
log_format short '$status $request_uri';
access_log requests short;
server {{ listen {{0}} proxy_protocol; location / {{ return 200 "{told}"; }} }}
"""
    return nginx(folder / "nginx", text, own_port)


RECEIVERS = [
    pytest.param(haproxy_receives, marks=needs_haproxy, id="haproxy"),
    pytest.param(nginx_receives, marks=needs_nginx, id="nginx"),
]


def port(balancer: Balancer) -> int:
    return int(balancer.daemon.addresses["listen"].rpartition(":")[2])


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("receives", RECEIVERS)
def test_a_real_server_learns_who_the_client_is(
    receives: Receiver, version: str, daemons: Daemons, tmp_path: Path
) -> None:
    with reserved() as own_port, receives(tmp_path, own_port):
        node = f"a=127.0.0.1:{port_of(own_port)}"
        balancer = Balancer(daemons, "--node", node, "--send-proxy", version)
        for source in ("127.0.0.10", "127.0.0.11"):
            told, own = get(port(balancer), source)
            assert told == f"{source} {own} 127.0.0.1 {port(balancer)}"


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("receives", RECEIVERS)
def test_a_real_server_learns_ipv6_addresses_too(
    receives: Receiver, version: str, daemons: Daemons, tmp_path: Path
) -> None:
    try:
        reserved("::1").close()
    except OSError:
        pytest.skip("there is no IPv6 here")
    with reserved() as own_port, receives(tmp_path, own_port):
        node = f"a=127.0.0.1:{port_of(own_port)}"
        balancer = Balancer(daemons, "--node", node, "--send-proxy", version, "--listen", "tcp6:0:interface=\\:\\:1")
        told, own = get(port(balancer), "::1", "::1")
        assert told == f"::1 {own} ::1 {port(balancer)}"


@needs_nginx
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_checks_begin_with_a_header_as_well(version: str, daemons: Daemons, tmp_path: Path) -> None:
    checks = ["--check", "http", "--check-path", "/well", "--check-interval", "50ms", "--check-fall", "1"]
    with reserved() as own_port, nginx_receives(tmp_path, own_port):
        node = f"a=127.0.0.1:{port_of(own_port)}"
        balancer = Balancer(daemons, "--node", node, "--send-proxy", version, *checks)
        requests = tmp_path / "nginx" / "requests"
        eventually(lambda: requests.exists() and requests.read_text().count("200 /well\n") >= 3)
        assert "node a is down" not in balancer.daemon.log


FRONT = """
frontend clients
    mode tcp
    bind {0}
    default_backend farm
backend farm
    mode tcp
    server balancer 127.0.0.1:PORT WAY
"""


@needs_haproxy
@pytest.mark.parametrize("way", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
def test_behind_a_real_haproxy_each_client_is_a_source(way: str, daemons: Daemons, tmp_path: Path) -> None:
    with named_nodes("ab") as nodes, reserved() as own_port:
        options = [word for node in nodes.values() for word in ("--node", node.option)]
        balancer = Balancer(daemons, "--accept-proxy", *options)
        text = FRONT.replace("PORT", str(port(balancer))).replace("WAY", way)
        with haproxy(tmp_path / "front", text, own_port):
            sources = [f"127.0.0.{number}" for number in range(10, 16)]
            homes = {source: asked(port_of(own_port), source) for source in sources}
            assert set(homes.values()) <= {"a", "b"}
            assert {source: asked(port_of(own_port), source) for source in sources} == homes
            assert balancer.get("/status")["sources"] == len(sources)


def asked(to: int, source: str) -> str:
    """The name of the node that a client reaches."""
    with socket.socket() as client:
        client.settimeout(30)
        client.bind((source, 0))
        client.connect(("127.0.0.1", to))
        name = client.recv(1)  # before that, an end without a word would be the end for HAProxy
        client.shutdown(socket.SHUT_WR)
        return (name + read_all(client)).decode()


@needs_haproxy
@pytest.mark.parametrize("receives", RECEIVERS)
def test_between_a_real_haproxy_and_a_real_server_the_clients_address_is_passed_on(
    receives: Receiver, daemons: Daemons, tmp_path: Path
) -> None:
    with reserved() as server, reserved() as own_port, receives(tmp_path, server):
        node = f"a=127.0.0.1:{port_of(server)}"
        balancer = Balancer(daemons, "--node", node, "--accept-proxy", "--send-proxy", "v2")
        text = FRONT.replace("PORT", str(port(balancer))).replace("WAY", "send-proxy")
        with haproxy(tmp_path / "front", text, own_port):
            told, own = get(port_of(own_port), "127.0.0.12")
            assert told == f"127.0.0.12 {own} 127.0.0.1 {port_of(own_port)}"


def echoes(connection: socket.socket) -> None:
    """Sends back what comes."""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(4096):
            connection.sendall(part)


@pytest.mark.parametrize("header", [write_v1(CLIENT, SERVER), write_v2(CLIENT, SERVER), write_own(2)])
def test_what_follows_a_header_reaches_the_node_and_nothing_of_the_header(header: bytes, daemons: Daemons) -> None:
    with ThreadedNode("a", echoes) as node:
        balancer = Balancer(daemons, "--node", node.option, "--accept-proxy")
        with balancer.connect() as client:
            client.sendall(header + b"first, ")
            assert client.recv(100) == b"first, "
            client.sendall(b"second")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"second"
        with balancer.connect() as client:
            for byte in header + b"slow":
                client.sendall(bytes([byte]))
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"slow"


def is_reset(balancer: Balancer, said: bytes, source: str = "127.0.0.1", *, end: bool = False) -> bool:
    """Whether who says this, and perhaps ends then, is reset without having heard a word."""
    with balancer.connect(source) as client:
        try:
            client.sendall(said)
            if end:
                client.shutdown(socket.SHUT_WR)
            client.recv(1)
        except ConnectionResetError:
            return True
        return False


def test_a_connection_whose_header_lies_is_too_long_or_missing_is_reset_and_told_of_once(daemons: Daemons) -> None:
    lies = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1 70000\r\n",
        b"PROXY TCP4 224.0.0.1 10.0.0.1 1 2\r\n",
        b"PROXY " + b"x" * 200,
        write_v2(CLIENT, SERVER)[:14] + b"\xff\xff" + bytes(5000),
    ]
    with ThreadedNode("a", echoes) as node:
        balancer = Balancer(daemons, "--node", node.option, "--accept-proxy")
        for lie in lies * 3:
            assert is_reset(balancer, lie)
        assert is_reset(balancer, write_v2(CLIENT, SERVER)[:-1], end=True)
        with balancer.connect() as client:
            client.sendall(write_v1(CLIENT, SERVER) + b"well")
            assert client.recv(4) == b"well"
        lines = re.findall(r"a connection from 127\.0\.0\.1:\d+ is reset: expected", balancer.daemon.log)
        assert 1 <= len(lines) < len(lies) * 3
        status = balancer.get("/status")
        assert status["nodes"][0]["connections_total"] == 1
        refused = {
            "missing": 3,
            "malformed": 3,
            "impossible": 3,
            "too_long": 6,
            "cut_off": 1,
            "untrusted": 0,
            "late": 0,
        }
        assert status["proxy_refused_total"] == refused
        assert 'farmsync_lb_proxy_refused_total{reason="too_long"} 6.0' in balancer.get("/metrics")


def test_whoever_may_not_speak_for_others_is_reset(daemons: Daemons) -> None:
    with ThreadedNode("a", echoes) as node:
        balancer = Balancer(daemons, "--node", node.option, "--accept-proxy", "--proxy-from", "127.0.0.8/29")
        assert is_reset(balancer, write_v1(CLIENT, SERVER) + b"well", "127.0.0.7")
        with balancer.connect("127.0.0.9") as client:
            client.sendall(write_v1(CLIENT, SERVER) + b"well")
            assert client.recv(4) == b"well"
        assert "proxy-from" in balancer.daemon.log
        assert balancer.get("/status")["proxy_refused_total"]["untrusted"] == 1


def test_who_connects_and_says_nothing_is_let_go(daemons: Daemons) -> None:
    with ThreadedNode("a", echoes) as node:
        balancer = Balancer(daemons, "--node", node.option, "--accept-proxy")
        assert is_reset(balancer, b"")
        assert "0 bytes and silence" in balancer.daemon.log
        assert balancer.get("/status")["proxy_refused_total"]["late"] == 1
