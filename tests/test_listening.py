"""Ports: opened or the daemon does not start; and told to those who have to know."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import pytest_twisted
from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from farmsyncd.edges.listening import AddressBook, Listener, spelled, url


def listener(described: str = "tcp:0:interface=127.0.0.1") -> Listener:
    return Listener("farmsync-x", "tests", described, serverFromString(reactor, described), Factory())


@pytest_twisted.ensureDeferred
async def test_the_addresses_are_told_while_the_daemon_listens(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "addresses.json"
    wire, http = listener(), listener()
    daemon = MultiService()
    for service in (wire, http, AddressBook(path, {"listen": wire, "http": http})):
        service.setServiceParent(daemon)
    daemon.privilegedStartService()
    daemon.startService()
    assert wire.address is not None
    assert http.address is not None
    assert wire.address.startswith("tcp:127.0.0.1:")
    assert json.loads(path.read_text()) == {"listen": wire.address, "http": url(http.address)}
    await daemon.stopService()
    assert wire.address is None
    assert list(path.parent.iterdir()) == []


def all_connect(address: str, patience_s: float) -> bool:
    """Whether each of 100 connects within its time while nobody accepts them."""
    port = int(address.rpartition(":")[2])
    with ExitStack() as clients, suppress(TimeoutError):
        for _ in range(100):
            clients.enter_context(socket.create_connection(("127.0.0.1", port), timeout=patience_s))
        return True
    return False


@pytest_twisted.ensureDeferred
async def test_many_may_come_at_once_unless_the_endpoint_says_otherwise() -> None:
    for said, patience_s, all_may in (("", 30.0, True), (":backlog=20", 0.5, False)):
        one = listener(f"tcp:0:interface=127.0.0.1{said}")
        one.startService()
        assert one.address is not None
        assert all_connect(one.address, patience_s) == all_may
        await one.stopService()


@pytest_twisted.ensureDeferred
async def test_a_port_in_use_is_one_line_and_status_78(capsys: pytest.CaptureFixture[str]) -> None:
    first = listener()
    first.startService()
    assert first.address is not None
    port = first.address.rpartition(":")[2]
    second = listener(f"tcp:{port}:interface=127.0.0.1")
    with pytest.raises(SystemExit) as ended:
        second.privilegedStartService()
    assert ended.value.code == 78
    assert capsys.readouterr().err == (
        f"farmsync-x: expected to listen on tcp:{port}:interface=127.0.0.1 for tests: Address already in use; "
        "stop the program that has the port, or name another endpoint\n"
    )
    await second.stopService()
    await first.stopService()


@pytest_twisted.ensureDeferred
async def test_addresses_that_cannot_be_written_end_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    book = AddressBook(tmp_path / "file" / "addresses.json", {})
    with pytest.raises(SystemExit):
        book.startService()
    assert "expected to write the addresses to" in capsys.readouterr().err
    book.stopService()


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        (IPv4Address("TCP", "127.0.0.1", 5), "tcp:127.0.0.1:5"),
        (IPv4Address("TCP", "0.0.0.0", 5), "tcp:127.0.0.1:5"),
        (IPv6Address("TCP", "::", 5), "tcp:\\:\\:1:5"),
        (UNIXAddress("/run/x"), "unix:/run/x"),
    ],
)
def test_an_address_is_spelled_as_a_client_can_use_it(address: IAddress, endpoint: str) -> None:
    assert spelled(address) == endpoint


def test_an_address_as_a_url() -> None:
    assert url("tcp:127.0.0.1:5") == "http://127.0.0.1:5"
    assert url("tcp:\\:\\:1:5") == "http://[::1]:5"
