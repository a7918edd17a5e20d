"""Puts the balancer together: the one place that touches the global reactor."""

from __future__ import annotations

import random
import socket
import time
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString

from farmsyncd.core import words
from farmsyncd.edges.httpside import HttpSide
from farmsyncd.edges.listening import AddressBook, Listener
from farmsyncd.edges.release import RELEASE
from farmsyncd.lb.config import BalancerConfig
from farmsyncd.lb.deciding import Waiting, checks_of, deciding, observer_of
from farmsyncd.lb.observer import me
from farmsyncd.lb.options import Options
from farmsyncd.lb.relay import Patience, RelayFactory
from farmsyncd.lb.web import Figures

PROGRAM = "farmsync-lb"


class _Clients(Service):
    """Ends the clients' connections with the daemon."""

    def __init__(self, clients: RelayFactory) -> None:
        self._clients = clients

    def stopService(self) -> Deferred[None]:  # noqa: N802 - IService
        """Reset them: what was under way is not whole."""
        super().stopService()  # type: ignore[no-untyped-call]
        return self._clients.abort_all()


def build(config: BalancerConfig, reactor: Any) -> MultiService:
    """A balancer as a service, on ``reactor``."""
    services = MultiService()
    mind = deciding(config, reactor, time.monotonic_ns, random.random)
    patience = Patience(config.connect_timeout_ns / 1e9, config.half_closed_ns / 1e9)
    clients = RelayFactory(mind.dispatcher, mind.source_of, reactor, patience)
    observer = observer_of(config, mind.dispatcher, me(_name(), RELEASE), reactor, random.random)
    checks = checks_of(config, mind.dispatcher, time.monotonic_ns, reactor, random.random)
    for service in (Waiting(mind.dispatcher), observer, checks):
        if service is not None:
            service.setServiceParent(services)  # type: ignore[no-untyped-call]
    seen = None if observer is None else lambda: observer.connected
    figures = Figures(mind.dispatcher, mind.affinity, clients, seen, time.monotonic_ns)
    _Clients(clients).setServiceParent(services)  # type: ignore[no-untyped-call]
    listen = _listener("clients", config.listen, clients, reactor)
    listeners = {"listen": listen}
    if config.http is not None:
        site = HttpSide(figures.status, figures.metrics, figures.ready).site(reactor)
        listeners["http"] = _listener("HTTP", config.http, site, reactor)
    for listener in listeners.values():
        listener.setServiceParent(services)  # type: ignore[no-untyped-call]
    if config.addresses is not None:
        AddressBook(config.addresses, listeners).setServiceParent(services)  # type: ignore[no-untyped-call]
    return services


def makeService(options: Options) -> IService:  # noqa: N802 - twistd's name
    """What twistd runs."""
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

    return build(options.config, reactor)


def _listener(what: str, endpoint: str, factory: Any, reactor: Any) -> Listener:
    return Listener(PROGRAM, what, endpoint, serverFromString(reactor, endpoint), factory)


def _name() -> str:
    kept = "".join(
        char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in socket.gethostname()
    )
    name = kept.lstrip("._-")[:64]
    return name if words.is_name(name) else "balancer"
