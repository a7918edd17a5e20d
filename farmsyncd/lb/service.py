"""Puts the balancer together: the one place that touches the global reactor."""

from __future__ import annotations

import random
import socket
import time
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString

from farmsyncd.core import words
from farmsyncd.core.affinity import Affinity
from farmsyncd.edges.httpside import HttpSide
from farmsyncd.edges.listening import AddressBook, Listener
from farmsyncd.edges.release import RELEASE
from farmsyncd.lb.config import BalancerConfig
from farmsyncd.lb.farm import Farm
from farmsyncd.lb.observer import Observer, me
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
    farm = Farm(
        config.node,
        Affinity(config.sources, config.remember_ns),
        time.monotonic_ns,
        random.random,
        config.retry_after_ns,
    )
    patience = Patience(config.connect_timeout_ns / 1e9, config.half_closed_ns / 1e9)
    clients = RelayFactory(farm, reactor, patience)
    observer = None
    if config.data is not None:
        endpoint = clientFromString(reactor, config.data)
        observer = Observer(endpoint, farm, me(_name(), RELEASE), reactor, random.random)
        observer.setServiceParent(services)  # type: ignore[no-untyped-call]
    figures = Figures(farm, clients, None if observer is None else lambda: observer.connected)
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
