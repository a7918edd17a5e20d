"""Puts the balancer together: the one place that touches the global reactor."""

from __future__ import annotations

import random
import socket
import time
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory

from farmsyncd.core import words
from farmsyncd.edges.httpside import HttpSide
from farmsyncd.edges.listening import AddressBook, Listener
from farmsyncd.edges.release import RELEASE
from farmsyncd.lb.admin import AdminSocket
from farmsyncd.lb.config import BalancerConfig
from farmsyncd.lb.deciding import Waiting, checks_of, deciding, observer_of
from farmsyncd.lb.dns.endpoint import dns_endpoint
from farmsyncd.lb.observer import me
from farmsyncd.lb.options import Options
from farmsyncd.lb.prologue import prologue_of
from farmsyncd.lb.relaying.binding import RawEndpoint
from farmsyncd.lb.relaying.fronts import Fronts
from farmsyncd.lb.relaying.settings import RelaySettings
from farmsyncd.lb.steering import Steering
from farmsyncd.lb.web import Figures

PROGRAM = "farmsync-lb"


def build(config: BalancerConfig, reactor: Any) -> MultiService:
    """A balancer as a service, on ``reactor``."""
    services = MultiService()
    mind = deciding(config, reactor, time.monotonic_ns, random.random)
    settings = RelaySettings(config.connect_timeout_ns, idle_ns=config.idle_ns, half_closed_ns=config.half_closed_ns)
    prologue = prologue_of(config, time.monotonic_ns)
    clients = Fronts(mind.dispatcher, reactor, settings, prologue, mind.source_of)
    observer = observer_of(config, mind.dispatcher, me(_name(), RELEASE), time.monotonic_ns, reactor, random.random)
    announce = None if prologue is None else prologue.own_header
    checks = checks_of(config, mind.dispatcher, time.monotonic_ns, reactor, random.random, announce)
    for service in (Waiting(mind.dispatcher), observer, checks):
        if service is not None:
            service.setServiceParent(services)  # type: ignore[no-untyped-call]
    seen = None if observer is None else lambda: observer.connected
    figures = Figures(mind.dispatcher, mind.affinity, clients, seen, time.monotonic_ns)
    if config.admin is not None:
        admin = AdminSocket(PROGRAM, config.admin, Steering(mind, figures).answer, reactor)
        admin.setServiceParent(services)  # type: ignore[no-untyped-call]
    clients.setServiceParent(services)  # type: ignore[no-untyped-call]
    listen = RawEndpoint(config.listen, clients.made)
    listeners = {"listen": Listener(PROGRAM, "clients", config.listen, listen, Factory())}
    if config.http is not None:
        site = HttpSide(figures.status, figures.metrics, figures.ready).site(reactor)
        endpoint = serverFromString(reactor, config.http)
        listeners["http"] = Listener(PROGRAM, "HTTP", config.http, endpoint, site)
    if config.dns is not None:
        endpoint = dns_endpoint(config, mind.farm, time.monotonic_ns, reactor)
        listeners["dns"] = Listener(PROGRAM, "DNS", config.dns, endpoint, Factory())
    for listener in listeners.values():
        listener.setServiceParent(services)  # type: ignore[no-untyped-call]
    if config.addresses is not None:
        AddressBook(config.addresses, listeners).setServiceParent(services)  # type: ignore[no-untyped-call]
    return services


def makeService(options: Options) -> IService:  # noqa: N802 - twistd's name
    """What twistd runs."""
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

    return build(options.config, reactor)


def _name() -> str:
    kept = "".join(
        char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in socket.gethostname()
    )
    name = kept.lstrip("._-")[:64]
    return name if words.is_name(name) else "balancer"
