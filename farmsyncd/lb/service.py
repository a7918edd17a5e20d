"""Puts the balancer together: the one place that touches the global reactor."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.protocol import Factory

from farmsyncd.edges.httpside import HttpSide
from farmsyncd.edges.listening import AddressBook, Listener, Listening
from farmsyncd.lb.admin import AdminDoor
from farmsyncd.lb.config import BalancerConfig
from farmsyncd.lb.dns.endpoint import dns_endpoint
from farmsyncd.lb.farm import Farm
from farmsyncd.lb.options import Options
from farmsyncd.lb.processes.alone import Alone
from farmsyncd.lb.processes.crew import Crew
from farmsyncd.lb.processes.daemon import PROGRAM, Daemon
from farmsyncd.lb.processes.handover import NAME, GivingFactory
from farmsyncd.lb.processes.held import Held, HeldEndpoint
from farmsyncd.lb.processes.onlooker import Onlooker
from farmsyncd.lb.processes.signals import Reloading, Signals, Telling
from farmsyncd.lb.processes.workforce import Workforce
from farmsyncd.lb.unixdoor import UnixDoor


def build(options: Options, reactor: Any) -> IService:
    """A balancer as a service, on ``reactor``."""
    config = options.config
    crew: Crew
    farm: Farm | None = None
    sides: list[IService] = []
    steady: list[IService] = []
    held: dict[str, Held] = {}
    if config.workers == 1:
        crew = alone = Alone(config, reactor)
        farm = alone.farm
    else:
        onlooker = Onlooker(config, reactor) if config.dns is not None else None
        crew = Workforce(config, options.told, Path.cwd(), reactor, onlooker)
        if onlooker is not None:
            farm = onlooker.farm
            steady.append(onlooker)
    listeners: dict[str, Listening] = {}
    if config.http is not None:
        site = HttpSide(crew.status, crew.metrics, crew.ready).site(reactor)
        held["http"] = http = HeldEndpoint(config.http, reactor)
        listeners["http"] = side = Listener(PROGRAM, "HTTP", config.http, http, site)
        sides.append(side)
    if config.dns is not None and farm is not None:
        held["dns"] = endpoint = dns_endpoint(config, farm, time.monotonic_ns, reactor)
        listeners["dns"] = side = Listener(PROGRAM, "DNS", config.dns, endpoint, Factory())
        steady.append(side)
    if config.admin is not None:
        held["admin"] = door = AdminDoor(PROGRAM, config.admin, crew.answer, reactor)
        sides.append(door)
    leaving = _Leaving(reactor)
    daemon = Daemon(config, crew, sides, steady, held, reactor, Signals(reactor).impatient, leaving.leave)
    daemon.afterwards(*_afterwards(config, daemon, {"listen": daemon, **listeners}, reactor))
    return daemon


def _afterwards(
    config: BalancerConfig, daemon: Daemon, listeners: dict[str, Listening], reactor: Any
) -> Sequence[IService]:
    """What begins once clients are served."""
    services: list[IService] = [Reloading(reactor, possible=config.state is not None), Telling()]
    if config.state is not None:
        giving = GivingFactory(daemon)
        services.append(UnixDoor(PROGRAM, config.state / NAME, "successors", "--state", giving, reactor))
    if config.addresses is not None:
        services.append(AddressBook(config.addresses, listeners))
    return services


class _Leaving:
    """Ends the process in good order, with a status of its own if that is not 0."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def leave(self, status: int) -> None:
        """Stop the reactor."""
        if status:
            self._reactor.addSystemEventTrigger("after", "shutdown", _exit, status)
        if self._reactor.running:
            self._reactor.stop()


def _exit(status: int) -> None:
    """Twisted's way out always says 0."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def makeService(options: Options) -> IService:  # noqa: N802 - twistd's name
    """What twistd runs."""
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

    services = MultiService()
    build(options, reactor).setServiceParent(services)
    return services
