"""A data server's clock and a node's timekeeper, joined in memory: bytes, clocks and timers move by the test's hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import attrs
from twisted.internet import error
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.test.iosim import FakeTransport, IOPump, connect
from zope.interface import implementer

from farmsyncd.core.farmtime import Estimate
from farmsyncd.core.messages import Message, Side
from farmsyncd.core.messages.clock import Echo, Probe
from farmsyncd.core.messages.greeting import PROTOCOL, Hello
from farmsyncd.edges.link import Link
from farmsyncd.edges.timing.timekeeper import Timekeeper
from tests.oscillators import MILLI, SECOND, Oscillator

DATA = Hello(PROTOCOL, "data", "shop-data", ())


class EchoSession:
    """What a data server does for a connection of role ``probe``."""

    def __init__(self, farm_ns: Callable[[], int], epoch: str) -> None:
        self.stamp = farm_ns
        self.epoch = epoch
        self.probes = 0
        self.names: list[str] = []
        self.ends: list[str] = []

    def greeted(self, _link: Link, hello: Hello) -> None:
        assert hello.role == "probe"
        self.names.append(hello.name)

    def received(self, link: Link, message: Message) -> None:
        assert isinstance(message, Probe)
        self.probes += 1
        link.send_now(lambda t3: Echo(message.t1, link.arrived_ns, t3, self.epoch))

    def lost(self, _link: Link, reason: str) -> None:
        self.ends.append(reason)


@implementer(IStreamClientEndpoint)
@attrs.define(eq=False)
class MemoryEndpoint:
    """Connects to ``session`` over iosim, or refuses while there is none."""

    clock: Clock
    session: EchoSession | None = None
    link: Link | None = None
    pump: IOPump | None = None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803 - IStreamClientEndpoint
        if self.session is None:
            return fail(error.ConnectionRefusedError("nobody there"))
        client = cast("Link", protocolFactory.buildProtocol(cast("Any", None)))
        self.link = Link(self.session, DATA, Side.SERVER, cast("IReactorTime", self.clock))
        self.pump = connect(
            self.link,
            FakeTransport(self.link, isServer=True),
            client,
            FakeTransport(client, isServer=False),
            greet=False,
        )
        return succeed(cast("IProtocol", client))


@attrs.define(eq=False)
class TimingFarm:
    """One node and one data server. A message is under way for a millisecond each way, a turn of :meth:`run`."""

    node: Oscillator
    farm: Oscillator
    timers: Clock = attrs.Factory(Clock)
    slept: int = 0
    told: list[Estimate | None] = attrs.Factory(list)
    endpoint: MemoryEndpoint = attrs.field(init=False)
    keeper: Timekeeper = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.endpoint = MemoryEndpoint(self.timers)
        self.keeper = Timekeeper(
            cast("IStreamClientEndpoint", self.endpoint),
            "web-1",
            self,
            cast("IReactorTime", self.timers),
            chance=lambda: 0.5,
            slept=lambda: self.slept,
        )
        self.keeper.on_change(self.told.append)

    @property
    def true_ns(self) -> int:
        return round(self.timers.seconds() * SECOND)

    def now_ns(self) -> int:
        return self.node.read(self.true_ns)

    def machine_ns(self, local_ns: int) -> int:
        return local_ns

    def farm_ns(self) -> int:
        return self.farm.read(self.true_ns)

    def serve(self, epoch: str = "0" * 16) -> EchoSession:
        """Start a data server."""
        self.endpoint.session = EchoSession(self.farm_ns, epoch)
        return self.endpoint.session

    def crash(self) -> None:
        """Kill it, its connections with it."""
        self.endpoint.session = None
        if self.endpoint.link is not None:
            self.endpoint.link.abort("killed")
            self.deliver()

    def deliver(self) -> None:
        """Move what is under way by one hop."""
        if self.endpoint.pump is not None:
            self.endpoint.pump.pump()

    def run(self, seconds: float, step_ns: int = MILLI) -> None:
        """Let time pass; every estimate on the way is judged by the truth."""
        for _ in range(int(seconds * SECOND / step_ns)):
            self.timers.advance(step_ns / SECOND)
            self.deliver()
            self.judge()

    def judge(self) -> None:
        """I-1."""
        if (estimate := self.keeper.estimate()) is not None:
            local = self.node.exact(self.true_ns)
            error = abs(estimate.farm_ns(local) - self.farm.exact(self.true_ns))
            assert error <= estimate.bound_at(local), f"I-1: {error} ns, bound {estimate.bound_at(local)} ns"

    def estimate(self) -> Estimate:
        estimate = self.keeper.estimate()
        assert estimate is not None
        return estimate
