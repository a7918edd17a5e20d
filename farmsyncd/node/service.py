"""``twistd farmsync-node``: its options, and the service that they describe."""

from __future__ import annotations

import gc
import secrets
import time
from random import SystemRandom
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import IProtocolFactory

from farmsyncd.core.skew import Skew
from farmsyncd.edges import statelock
from farmsyncd.edges.httpside import HttpSide
from farmsyncd.edges.listening import AddressBook, Listener
from farmsyncd.edges.options import DaemonOptions
from farmsyncd.edges.startup import one_line
from farmsyncd.edges.timing.clocks import LocalClock, RawClock, SkewedClock
from farmsyncd.node.agentcheck import AgentFactory, answer
from farmsyncd.node.application.service import ApplicationService
from farmsyncd.node.application.side import ApplicationResource, ApplicationSide, ApplicationSite
from farmsyncd.node.config import NodeConfig
from farmsyncd.node.node import Node
from farmsyncd.node.report import metrics, ready, status
from farmsyncd.node.serving.web import ServingResource

PROGRAM = "farmsync-node"


class Options(DaemonOptions, schema=NodeConfig):
    """A node of a farm: brings new data in beforehand, and switches to it at one instant with all others."""

    config: NodeConfig


class _Whole(MultiService):
    """All services of a node. The state directory is given back when the last of them has stopped."""

    def __init__(self, held: statelock.StateLock) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._held = held

    def stopService(self) -> Deferred[object]:  # noqa: N802 - IService
        """Fires when all have stopped."""
        stopped: Deferred[object] = super().stopService()  # type: ignore[no-untyped-call]

        def release(result: object) -> object:
            self._held.release()
            return result

        return stopped.addBoth(release)


def clock_of(skew: Skew) -> LocalClock:
    """The node's clock: the machine's, or one that is wrong on purpose.

    It is set by the machine's wall clock once, at this start, so that the offset that the comparison finds is by how
    much this machine's clock differs from the data server's. Nothing rests on the wall clock being right.
    """
    raw = RawClock()
    wall = Skew(shift_ns=time.time_ns() - raw.now_ns())
    return SkewedClock(raw if skew == Skew() else SkewedClock(raw, skew), wall)


def makeService(options: Options) -> IService:  # noqa: N802 - twistd's name
    """The node that ``options`` describe."""
    from twisted.internet import reactor as chosen  # noqa: PLC0415 - not before twistd has chosen one

    # Modules and all else that is there for good: to look through it again for garbage stops the node for tens of ms.
    chosen.callWhenRunning(gc.freeze)
    return build(options.config, chosen)


def build(config: NodeConfig, reactor: Any) -> MultiService:
    """A node on ``reactor``."""
    with one_line(PROGRAM):
        held = statelock.lock(config.state, f"{PROGRAM} {config.name}")
    node = Node(
        config,
        clientFromString(reactor, config.data),
        reactor,
        clock_of(config.skew),
        SystemRandom().random,
        secrets.token_hex(8),
    )
    whole = _Whole(held)
    listeners: dict[str, Listener] = {}
    application = None
    if config.wsgi is not None:
        application = ApplicationService(PROGRAM, config, reactor, node.datasets)
    if config.http is not None:
        endpoint = serverFromString(reactor, config.http)
        site = _side(node, application, reactor)
        listeners["http"] = Listener(PROGRAM, "the HTTP side", config.http, endpoint, site)
    if config.agent is not None:
        agents = AgentFactory(lambda: answer(node, config.stale_after_ns), reactor)
        endpoint = serverFromString(reactor, config.agent)
        listeners["agent"] = Listener(PROGRAM, "the agent for HAProxy", config.agent, endpoint, agents)
    parts: list[Service] = [node, *listeners.values(), AddressBook(config.addresses_file, listeners)]
    if application is not None:
        parts.insert(0, application)
    for part in parts:
        part.setServiceParent(whole)
    return whole


def _side(node: Node, application: ApplicationService | None, reactor: Any) -> IProtocolFactory:
    """What the node's HTTP side listens with."""
    pages = (lambda: status(node, application), lambda: metrics(node, application), lambda: ready(node))
    data = ServingResource(node)
    if application is None:
        return HttpSide(*pages, data).site(reactor)
    side = ApplicationSide(*pages, data, ApplicationResource(application.begin), node.follows)
    limits = node.config.application
    site = ApplicationSite(side, reactor, limits.body_limit_bytes, limits.body_in_memory_bytes)
    application.serve_at(site)
    return site.factory
