"""What balances in one process: what decides, what relays, and whoever has news of the farm for them."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Sequence
from typing import Any

import attrs
from twisted.application.service import IService

from farmsyncd.core import words
from farmsyncd.edges.release import RELEASE
from farmsyncd.lb.config import BalancerConfig
from farmsyncd.lb.deciding import Deciding, Waiting, checks_of, deciding, observer_of
from farmsyncd.lb.observer import me
from farmsyncd.lb.prologue import prologue_of
from farmsyncd.lb.relaying.fronts import Fronts
from farmsyncd.lb.relaying.settings import RelaySettings
from farmsyncd.lb.steering import Steering
from farmsyncd.lb.web import Figures


@attrs.frozen
class Balancing:
    """All of it. ``services`` run while clients are served."""

    mind: Deciding
    clients: Fronts
    figures: Figures
    steering: Steering
    services: Sequence[IService]


def balancing(config: BalancerConfig, reactor: Any) -> Balancing:
    """What ``config`` says, on ``reactor``."""
    mind = deciding(config, reactor, time.monotonic_ns, random.random)
    settings = RelaySettings(config.connect_timeout_ns, idle_ns=config.idle_ns, half_closed_ns=config.half_closed_ns)
    settings = attrs.evolve(  # what the kernel grants is for all workers together
        settings, pipes=settings.pipes // config.workers, large_pipes=settings.large_pipes // config.workers
    )
    prologue = prologue_of(config, time.monotonic_ns)
    clients = Fronts(mind.dispatcher, reactor, settings, prologue, mind.source_of)
    observer = observer_of(config, mind.dispatcher, me(_name(), RELEASE), time.monotonic_ns, reactor, random.random)
    announce = None if prologue is None else prologue.own_header
    checks = checks_of(config, mind.dispatcher, time.monotonic_ns, reactor, random.random, announce)
    seen = None if observer is None else lambda: observer.connected
    refusals = None if prologue is None else prologue.refusals
    figures = Figures(mind.dispatcher, mind.affinity, clients, seen, time.monotonic_ns, refusals)
    services = [one for one in (Waiting(mind.dispatcher), observer, checks, clients) if one is not None]
    return Balancing(mind, clients, figures, Steering(mind, figures), services)


def _name() -> str:
    kept = "".join(
        char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in socket.gethostname()
    )
    name = kept.lstrip("._-")[:64]
    return name if words.is_name(name) else "balancer"
