"""Keeps a node's comparison with the data server's clock, over a connection of its own.

Bulk data never queues in front of a probe, and a probe is stamped when its bytes leave. When the data server is away
the estimate goes on and its bound grows; when the machine was suspended its clock stood still, so all is forgotten.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger

from farmsyncd.core.farmtime import Comparison, Estimate, Outcome
from farmsyncd.core.messages.base import Message, MessageError, Side
from farmsyncd.core.messages.clock import Echo, Probe
from farmsyncd.core.messages.greeting import PROTOCOL, Hello
from farmsyncd.core.probing import Prober
from farmsyncd.edges.link import Link, LinkSettings, reconnecting
from farmsyncd.edges.timing.clocks import LocalClock, slept_ns

#: Looking whether the machine slept, and whether an activation moved, costs microseconds.
TICK_NS: Final = 1_000_000_000
#: Two readings of how long it slept differ by what happens between reading two clocks; no suspend is as short.
SLEPT_NS: Final = 5_000_000
SETTINGS: Final = LinkSettings(heartbeat=15.0, silent_beats=2)


class Timekeeper(Service):
    """Compares ``clock`` with the data server's farm time for as long as it runs, and never gives up.

    ``name`` is the node's. ``wakes`` should be a SteadyTime. ``changed`` callbacks are called after every exchange, and
    with None when nothing is known any more.
    """

    log = Logger()

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        name: str,
        clock: LocalClock,
        wakes: IReactorTime,
        chance: Callable[[], float] = random.random,
        slept: Callable[[], int] = slept_ns,
    ) -> None:
        self.stamp = clock.now_ns
        self._me = Hello(PROTOCOL, "probe", name)
        self._clock = clock
        self._wakes = wakes
        self._slept = slept
        self._comparison = Comparison()
        self._prober = Prober(chance)
        self._activations: tuple[int, ...] = ()
        self._listeners: list[Callable[[Estimate | None], None]] = []
        self._reconnecting = reconnecting(endpoint, self._build, wakes, chance)
        self._link: Link | None = None  # while greeted
        self._asked: int | None = None  # T1 of the question under way
        self._spoilt = False  # whether the machine slept since it was asked
        self._slept_ns = slept()
        self._tick: IDelayedCall | None = None

    # What others ask

    def estimate(self) -> Estimate | None:
        """Farm time as of now; None before the first exchange, and after a suspend until the next."""
        return self._comparison.estimate(self._clock.now_ns())

    @property
    def epoch(self) -> str | None:
        """The start of the data server that the estimate belongs to."""
        return self._comparison.epoch

    @property
    def connected(self) -> bool:
        """Whether the data server answers at present."""
        return self._link is not None

    def on_change(self, changed: Callable[[Estimate | None], None]) -> None:
        """Call ``changed`` with each new estimate."""
        self._listeners.append(changed)

    def expect(self, activations: Iterable[int]) -> None:
        """All farm times at which something will be activated, so that the clocks are compared well before each."""
        self._activations = tuple(activations)
        self._plan()

    def burst(self) -> None:
        """Compare several times, now."""
        self._prober.burst(self._clock.now_ns())
        self._plan()

    # What the service does

    def startService(self) -> None:  # noqa: N802 - IService
        """Connect, and compare from then on."""
        super().startService()  # type: ignore[no-untyped-call]
        self._slept_ns = self._slept()
        self._reconnecting.startService()
        self._plan()

    def stopService(self) -> Deferred[object]:  # noqa: N802 - IService
        """Fires when the connection is gone."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._disarm()
        return self._reconnecting.stopService()

    def _build(self) -> Link:
        return Link(self, self._me, Side.CLIENT, self._wakes, SETTINGS)

    # What the link tells

    def greeted(self, link: Link, hello: Hello) -> None:  # noqa: ARG002 - Session
        """The data server is there: compare at once."""
        self._link = link
        self._asked = None
        self.burst()

    def received(self, link: Link, message: Message) -> None:
        """An answer to the question under way."""
        if not isinstance(message, Echo) or message.t1 != self._asked:
            raise MessageError(f"expected ECHO {self._asked}, and {message.VERB} came that was not asked for")
        asked, self._asked = self._asked, None
        self._look_for_suspend()
        if not self._spoilt:
            known = self._comparison.estimate(link.arrived_ns) is not None
            outcome = self._comparison.add(asked, message.t2, message.t3, link.arrived_ns, message.epoch)
            self._compared(outcome, known)
        self._plan()

    def lost(self, link: Link, reason: str) -> None:  # noqa: ARG002 - Session
        """The data server went away; what is known of its clock goes on."""
        if self._link is not None:
            self._link = None
            self._asked = None
            if self.running:
                self.log.warn("no clock comparison while the data server is away: {reason}", reason=reason)

    # Inside

    def _compared(self, outcome: Outcome, known: bool) -> None:
        now = self._clock.now_ns()
        estimate = self._comparison.estimate(now)
        if outcome is Outcome.STARTED and estimate is not None:
            self.log.info(
                "clock compared with the data server's, epoch {epoch}: off by {offset} ns, error at most {bound} ns",
                epoch=self._comparison.epoch,
                offset=estimate.offset_ns,
                bound=estimate.error_bound_ns,
            )
            if known:  # a new epoch on a living connection
                self._prober.burst(now)
        elif outcome in (Outcome.RESTARTED, Outcome.IMPOSSIBLE):
            self.log.warn("a clock has stepped; the comparison starts over")
            self._prober.burst(now)
        self._prober.answered(now, estimate)
        self._tell(estimate)

    def _look_for_suspend(self) -> None:
        slept = self._slept()
        lasted = slept - self._slept_ns
        if lasted < SLEPT_NS:
            return
        self._slept_ns = slept
        self.log.warn("this machine was suspended for {seconds:.3f} s; comparing anew", seconds=lasted / 1e9)
        self._comparison.start_over()
        self._spoilt = True
        self._prober.burst(self._clock.now_ns())
        self._tell(None)

    def _tell(self, estimate: Estimate | None) -> None:
        for changed in self._listeners:
            try:
                changed(estimate)
            except Exception:
                self.log.failure("someone who follows the clock comparison failed")

    def _plan(self) -> None:
        """Ask when it is time, and come back when it will be."""
        self._disarm()
        if not self.running:
            return
        now = self._clock.now_ns()
        if (estimate := self._comparison.estimate(now)) is not None:
            self._prober.expect(now, [estimate.local_ns(at) for at in self._activations])
        nap = TICK_NS
        if self._link is not None and self._asked is None:
            nap = min(nap, self._prober.next_at(now) - now)
            if nap <= 0:
                self._link.send_now(self._ask)
                nap = TICK_NS
        self._tick = self._wakes.callLater(nap / 1e9, self._ticked)

    def _ask(self, stamp: int) -> Probe:
        self._asked, self._spoilt = stamp, False
        return Probe(stamp)

    def _ticked(self) -> None:
        self._tick = None
        self._look_for_suspend()
        self._plan()

    def _disarm(self) -> None:
        if self._tick is not None and self._tick.active():
            self._tick.cancel()
        self._tick = None
