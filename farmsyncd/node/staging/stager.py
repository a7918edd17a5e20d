"""Brings versions in: a connection for each, its own, so that nothing else ever waits behind bulk data.

::

    connect, HELLO
      resume?   what an earlier attempt left is verified and taken up
      STEP      from the active version, if the data server has that difference
      MANIFEST  otherwise
      CHUNKS    whatever is still lacking, once more for what came damaged
    finish      durable, complete, adopted
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred, DeferredSemaphore, ensureDeferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from farmsyncd.core import ranges
from farmsyncd.core.messages.base import Side
from farmsyncd.core.messages.greeting import Hello
from farmsyncd.core.snapshot import Manifest
from farmsyncd.edges.link import Link, LinkSettings
from farmsyncd.errors import LocalError, PeerError, Unavailable
from farmsyncd.node.staging.conversation import Conversation, Cut, Declined
from farmsyncd.node.staging.feeding import Feeder
from farmsyncd.node.staging.pace import Pace
from farmsyncd.node.staging.work import Hush, Work
from farmsyncd.node.surroundings import Order
from farmsyncd.node.worker import Worker

SETTINGS = LinkSettings(read_size=1024 * 1024)
_ROUNDS = 4
_REFUSALS_THAT_LEAD_ON = frozenset({"gone", "unknown", "refused"})


@attrs.frozen
class Brought:
    """A version that was brought in: when that began and ended by the node's clock, and what came over the network."""

    dataset: str
    version: str
    began_ns: int
    ended_ns: int
    bytes_received: int


class BulkLink(Link):
    """A link that tells how much came, as it comes: a part may be large, and a rate limit cannot wait for its end."""

    def __init__(
        self,
        hello: Hello,
        conversation: Conversation,
        wakes: IReactorTime,
        settings: LinkSettings,
        arrived: Callable[[int], None],
    ) -> None:
        super().__init__(conversation, hello, Side.CLIENT, wakes, settings)
        self._arrived = arrived

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - IProtocol
        """Say how much came, and deliver it: whoever is told that all is there finds all of it counted."""
        self._arrived(len(data))
        super().dataReceived(data)


@attrs.define
class Totals:
    """What was brought in since the node started."""

    versions: int = 0
    bytes_received: int = 0
    last: Brought | None = None


class Stager:
    """Stages for all datasets of a node: at most ``at_once`` at the same time, ``rate`` bytes per second together.

    ``threads`` makes a thread of a name, ``wakes`` is for waiting, ``now_ns`` a clock that runs forward.
    """

    log = Logger()

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        hello: Hello,
        threads: Callable[[str], Worker],
        wakes: IReactorTime,
        now_ns: Callable[[], int],
        at_once: int = 2,
        rate: int = 0,
    ) -> None:
        self.totals = Totals()
        self._endpoint = endpoint
        self._hello = hello
        self._threads = threads
        self._wakes = wakes
        self._now_ns = now_ns
        self._turns = DeferredSemaphore(at_once)
        self._pace = Pace(rate)
        self._hush = Hush()
        self._bad_steps: set[tuple[str, str]] = set()

    def hush(self, seconds: float) -> None:
        """Rest for so long: a swap is near."""
        self._hush.begin(seconds)

    def rest(self, amount: int = 0) -> None:
        """Sleep as long as a swap is near: for worker threads, after so many bytes from the disk."""
        self._hush.rest(amount)

    def bring(self, order: Order) -> Deferred[Manifest]:
        """Fetch, verify and adopt a version. Fails with a FarmsyncError that says what was wrong; may be cancelled."""
        return ensureDeferred(self._bring(order))

    async def _bring(self, order: Order) -> Manifest:
        if order.wait_s > 0:
            await _sleep(self._wakes, order.wait_s)
        await self._turns.acquire()
        try:
            return await self._stage(order)
        finally:
            self._turns.release()

    async def _stage(self, order: Order) -> Manifest:
        began_ns = self._now_ns()
        thread = self._threads(f"staging-{order.dataset}")
        work = Work(order.turn.version, order.cache, order.bases, self._hush, order.spare)
        conversation = Conversation()

        def arrived(amount: int) -> None:
            feeder.arrived(amount)

        link = BulkLink(self._hello, conversation, self._wakes, self._settings(), arrived)
        feeder = Feeder(link, work, thread, self._wakes, self._now_ns, self._pace, self._hush)
        try:
            await thread.run(work.clear)
            factory = Factory.forProtocol(lambda: link)
            factory.noisy = False
            try:
                await self._endpoint.connect(factory)
            except (ConnectError, OSError) as error:
                raise Cut(f"the data server cannot be reached: {error}") from None
            await conversation.start()
            fetch = _Fetch(order, work, thread, conversation, feeder, self.totals, self._bad_steps)
            manifest = await fetch.run()
            self.totals.versions += 1
            self.totals.last = Brought(
                order.dataset, order.turn.version, began_ns, self._now_ns(), fetch.feeder.received
            )
            return manifest
        finally:
            work.cancel()
            if link.transport is not None:
                gone = link.when_lost()
                link.close("done")
                await gone
            await thread.run(work.close)
            await thread.stop()

    def _settings(self) -> LinkSettings:
        return SETTINGS if not self._pace.rate else attrs.evolve(SETTINGS, read_size=self._pace.sip)


@attrs.frozen
class _Fetch:
    """One attempt, once there is a connection."""

    order: Order
    work: Work
    thread: Worker
    conversation: Conversation
    feeder: Feeder
    totals: Totals
    bad_steps: set[tuple[str, str]]

    async def run(self) -> Manifest:
        try:
            if not await self._resumed() and not await self._stepped():
                await self._begun()
            await self._completed()
        except (Cut, LocalError) as error:
            if isinstance(error, Cut):
                await self.feeder.drained()  # what came before the cut need not come again
            if self.feeder.fault is not None:  # the reason why the connection was cut from this side
                self.feeder.fault.raiseException()
            raise
        finally:
            self.feeder.stop()
            self.totals.bytes_received += self.feeder.received
        return await self.thread.run(self.work.finish)

    async def _resumed(self) -> bool:
        return await self.thread.run(self.work.resume)

    async def _stepped(self) -> bool:
        """Whether the data server had the step from the active version, and it was right."""
        if self.order.after is None:
            return False
        step = self.order.after, self.order.turn.version
        if step in self.bad_steps:
            return False
        try:
            await self.conversation.step(*step, self.feeder.part)
            await self.feeder.drained()
        except Declined as refusal:
            if refusal.code not in _REFUSALS_THAT_LEAD_ON:
                raise
            return False
        finally:
            if self.feeder.fault is not None and self.feeder.fault.check(PeerError):
                self.bad_steps.add(step)  # the next attempt asks for chunks
        return self.work.manifest is not None

    async def _begun(self) -> None:
        answer = await self.conversation.manifest(self.order.turn.version)
        await self.thread.run(self.work.take_manifest, answer.pieces)

    async def _completed(self) -> None:
        """Ask for what is lacking until nothing is."""
        lacking = await self.thread.run(self.work.lacking)
        # The disk works on this while the network works on the rest; what fails here fails again below.
        self.thread.run(self.work.reuse).addErrback(lambda _: None)
        for _ in range(_ROUNDS):
            if lacking:
                text = ranges.spell(lacking)
                await self.conversation.chunks(self.order.turn.version, text, self.feeder.part)
                await self.feeder.drained()
            await self.thread.run(self.work.reuse)
            before, lacking = lacking, await self.thread.run(self.work.lacking)
            if not lacking:
                return
            if len(lacking) == len(before) and not self.feeder.damaged:
                break
        raise Unavailable(f"expected all of version {self.order.turn.version}, and {len(lacking)} chunks did not come")


def _sleep(wakes: IReactorTime, seconds: float) -> Deferred[None]:
    done: Deferred[None] = Deferred(lambda _: call.cancel())
    call = wakes.callLater(seconds, lambda: done.callback(None))
    return done
