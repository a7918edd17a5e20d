"""The part of the balancer that decides, made from its configuration: it needs no sockets of clients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IReactorTime

from farmsyncd.core.affinity import Affinity, shown, source_of
from farmsyncd.core.health import Patience
from farmsyncd.core.messages.greeting import Hello
from farmsyncd.core.pace import Pace
from farmsyncd.core.queueing import Queue
from farmsyncd.lb.config import BalancerConfig
from farmsyncd.lb.dispatcher import Dispatcher
from farmsyncd.lb.endpoints import Announce, Way
from farmsyncd.lb.explain import Explainer
from farmsyncd.lb.farm import Farm, Rules
from farmsyncd.lb.health import Checks, HttpProbe, Probe, TcpProbe
from farmsyncd.lb.observer import Observer
from farmsyncd.lb.seating import Seating


@attrs.frozen
class Deciding:
    """What decides, and what it decides by."""

    dispatcher: Dispatcher
    affinity: Affinity
    explainer: Explainer
    source_of: Callable[[str], bytes]
    """A client's host as the source that it counts as. ValueError when it is no address."""

    @property
    def farm(self) -> Farm:
        """The nodes."""
        return self.dispatcher.farm


def deciding(
    config: BalancerConfig, clock: IReactorTime, now_ns: Callable[[], int], random: Callable[[], float]
) -> Deciding:
    """All of it, put together."""
    patience = Patience(config.check_rise, config.check_fall, config.retry_after_ns, config.check != "none")
    rules = Rules(patience, config.forgive_ns, config.ramp_up_ns, config.max_connections, config.nodes)
    farm = Farm(config.node, rules, now_ns)
    affinity = Affinity(config.sources, config.remember_ns)
    pace = Pace(config.move_rate, max(1.0, config.move_rate))
    seating = Seating(farm, affinity, pace, config.share, now_ns, random)
    dispatcher = Dispatcher(farm, seating, Queue(config.queue, config.queue_timeout_ns), now_ns, clock)
    four, six = config.prefix_ipv4, config.prefix_ipv6
    explainer = Explainer(farm, affinity, seating, now_ns, partial(shown, prefix4=four, prefix6=six))
    return Deciding(dispatcher, affinity, explainer, partial(source_of, prefix4=four, prefix6=six))


class Waiting(Service):
    """Lets nobody wait for a node any more when the balancer stops."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def stopService(self) -> None:  # noqa: N802 - IService
        """Send them away."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._dispatcher.stop()


def observer_of(
    config: BalancerConfig,
    dispatcher: Dispatcher,
    me: Hello,
    now_ns: Callable[[], int],
    reactor: Any,
    random: Callable[[], float],
) -> Observer | None:
    """Who asks the data server; None when there is none."""
    if config.data is None:
        return None
    return Observer(
        clientFromString(reactor, config.data),
        dispatcher,
        me,
        reactor,
        random,
        stale_after_ns=config.stale_after_ns,
        settle_ns=config.settle_ns,
        now_ns=now_ns,
    )


def checks_of(
    config: BalancerConfig,
    dispatcher: Dispatcher,
    now_ns: Callable[[], int],
    reactor: Any,
    random: Callable[[], float],
    announce: Announce | None = None,
) -> Checks | None:
    """Who checks the nodes; None when nobody does. ``announce`` gives what a node is told first, if anything."""
    timeout_s = config.check_timeout_ns / 1e9
    way = Way(reactor, timeout_s, announce)
    probe: Probe
    match config.check:
        case "tcp":
            probe = TcpProbe(way)
        case "http":
            probe = HttpProbe(reactor, way, config.check_path, config.check_status)
        case _:
            return None
    return Checks(dispatcher, probe, config.check_interval_ns, timeout_s, now_ns, reactor, random)
