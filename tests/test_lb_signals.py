from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import Logger, LogLevel, capturedLogs

from farmsyncd.lb.processes.held import HeldEndpoint
from farmsyncd.lb.processes.lines import Lines, logged
from farmsyncd.lb.processes.signals import Reloading, Signals, Telling
from tests.daemons import Daemons
from tests.eventually import LIMIT
from tests.lb_load import QuickNode


@pytest.fixture
def _signals_stay() -> Iterator[None]:
    """Gives the process its own handlers back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class FakeReactor(MemoryReactorClock):
    """Does at once what a signal's handler leaves to it."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[tuple[Any, list[str]]] = []

    def callFromThread(self, call: Any, *arguments: Any, **more: Any) -> None:  # noqa: N802 - the reactor's
        call(*arguments, **more)

    def spawnProcess(self, process: Any, _: str, args: list[str], **more: Any) -> None:  # noqa: ARG002, N802 - as above
        self.started.append((process, args))


@pytest.mark.usefixtures("_signals_stay")
def test_sighup_starts_this_program_again_to_take_over_once_at_a_time() -> None:
    reactor = FakeReactor()
    reloading = Reloading(reactor, possible=True)
    reloading.startService()
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGHUP)
    assert len(reactor.started) == 1
    process, command = reactor.started[0]
    assert command[-1] == "--take-over"
    process._ended()
    os.kill(os.getpid(), signal.SIGHUP)
    assert len(reactor.started) == 2
    reloading.stopService()
    os.kill(os.getpid(), signal.SIGHUP)
    assert len(reactor.started) == 2


@pytest.mark.usefixtures("_signals_stay")
def test_sighup_without_a_state_directory_says_what_is_missing() -> None:
    reactor = FakeReactor()
    reloading = Reloading(reactor, possible=False)
    reloading.startService()
    with capturedLogs() as logs:
        os.kill(os.getpid(), signal.SIGHUP)
    reloading.stopService()
    assert reactor.started == []
    assert ["--state" in str(event["log_format"]) for event in logs] == [True]


@pytest.mark.usefixtures("_signals_stay")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_asks_twice_is_impatient(number: signal.Signals) -> None:
    hurried: list[bool] = []
    Signals(FakeReactor()).impatient(lambda: hurried.append(True))
    os.kill(os.getpid(), number)
    assert hurried == [True]


def test_systemd_is_told_which_process_serves(daemons: Daemons, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, QuickNode("a") as node:
        systemd.settimeout(LIMIT)
        systemd.bind(str(tmp_path / "notify"))
        daemon = daemons.start(
            "farmsync-lb",
            "--listen",
            "tcp:0",
            "--node",
            node.option,
            state=False,
            NOTIFY_SOCKET=str(tmp_path / "notify"),
        )
        assert daemon.process is not None
        assert systemd.recv(100) == f"READY=1\nMAINPID={daemon.process.pid}".encode()


def test_nobody_is_told_when_nobody_asked_or_listens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for address in ("", "nonsense", str(tmp_path / "nobody")):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        telling = Telling()
        telling.startService()
        telling.stopService()


def test_a_workers_log_keeps_its_levels_and_its_lines() -> None:
    def say() -> list[bytes]:
        with capturedLogs() as logs:
            logger = Logger(namespace="worker")
            logger.warn("first {what}", what="one\ntwo")
            logger.info("second")
        return [logged(event) for event in logs]

    said = b"".join(say())
    assert said.count(b"\n") == 2
    with capturedLogs() as logs:
        lines = Lines(3)
        lines.heard(said[:7])
        lines.heard(said[7:] + b"Fatal Python error: something")
        lines.end()
        lines.end()
    assert [(event["log_level"], event["worker"], event["line"]) for event in logs] == [
        (LogLevel.warn, 3, "first one\ntwo"),
        (LogLevel.info, 3, "second"),
        (LogLevel.warn, 3, "Fatal Python error: something"),
    ]


@pytest_twisted.ensureDeferred
async def test_a_held_socket_listens_again_where_it_did() -> None:
    endpoint = HeldEndpoint("tcp:0:interface=127.0.0.1", _reactor)
    factory = Factory.forProtocol(Protocol)
    factory.noisy = False
    ports = []
    for _ in range(2):
        port: Any = await endpoint.listen(factory)
        ports.append(port.getHost().port)
        await maybeDeferred(port.stopListening)
    address = endpoint.held[0].getsockname()
    assert ports == [address[1]] * 2
    with socket.create_connection(address):
        endpoint.release(passed_on=False)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
