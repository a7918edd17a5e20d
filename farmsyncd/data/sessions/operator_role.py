"""The command's connection: uploads, publications, and everything else that people want done or want to know."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from farmsyncd.core import ranges, when
from farmsyncd.core.cycle import Step
from farmsyncd.core.messages.base import Message
from farmsyncd.core.messages.content import Chunk, Lack, Offer
from farmsyncd.core.messages.greeting import Hello
from farmsyncd.core.messages.operating import (
    Accepted,
    Answer,
    Cancel,
    Cancelled,
    Done,
    Forecast,
    History,
    Pin,
    Publish,
    Report,
    Rollback,
    Status,
    Unpin,
)
from farmsyncd.data.access import Operators
from farmsyncd.data.content.arrivals import Arrivals
from farmsyncd.data.content.publication import Offer as Offered
from farmsyncd.data.content.publication import Publications
from farmsyncd.data.desk import Desk
from farmsyncd.data.sessions.people import Person
from farmsyncd.data.sessions.turns import Work
from farmsyncd.edges.link import Link
from farmsyncd.errors import PeerError


class OperatorRole:
    """Serves one operator: whoever may change things is checked here, before anything is looked at."""

    def __init__(
        self,
        link: Link,
        hello: Hello,
        person: Person,
        operators: Operators,
        publications: Publications,
        arrivals: Callable[[Callable[[bool], None]], Arrivals],
        desk: Desk,
    ) -> None:
        self._link = link
        self._by = f"{hello.name} ({link.address})"
        self._person = person
        self._operators = operators
        self._publications = publications
        self._arrivals_for = arrivals
        self._desk = desk
        self._offered: Offered | None = None
        self._lacking: set[bytes] = set()
        self._arrivals: Arrivals | None = None

    def received(self, message: Message) -> None:
        """Do what an operator asks."""
        if isinstance(message, Chunk):
            self._chunk(message)
        elif (work := self._change(message)) is not None:
            self._person.turns.take(message, partial(self._permitted, message, work))
        elif (work := self._question(message)) is not None:
            self._person.turns.take(message, work)
        else:
            self._person.received(message)

    def lost(self, reason: str) -> None:
        """The operator has gone; what was uploaded is kept for a while, in case he comes back."""
        self._person.lost(reason)
        self._forget_offer(self._publications.linger)

    def _change(self, message: Message) -> Work | None:
        works: dict[type[Message], Callable[[Any], Coroutine[Deferred[Any], Any, None]]] = {
            Offer: self._offer,
            Publish: self._publish,
            Rollback: self._roll_back,
            Cancel: self._cancel,
            Pin: self._pin,
            Unpin: self._unpin,
        }
        work = works.get(type(message))
        return None if work is None else partial(work, message)

    def _question(self, message: Message) -> Work | None:
        if isinstance(message, Forecast):
            return partial(self._forecast, message)
        if isinstance(message, Status | History | Report):
            return partial(self._answer, message)
        return None

    async def _permitted(self, message: Message, work: Work) -> None:
        self._operators.expect(self._link.address, message.VERB)
        await work()

    # Uploads

    async def _offer(self, message: Offer) -> None:
        self._forget_offer()
        offered = await self._publications.offer(message.pieces, message.version)
        chunks = offered.manifest.distinct_chunks()
        self._offered = offered
        self._lacking = {chunks[number][0] for number in offered.hold.missing}
        self._link.send(Lack(message.version, ranges.spell(offered.hold.missing)))

    def _chunk(self, chunk: Chunk) -> None:
        if chunk.digest not in self._lacking:
            raise PeerError(f"expected chunks that LACK has named, and {chunk.digest.hex()[:16]} came")
        if self._arrivals is None:
            self._arrivals = self._arrivals_for(self._crowded)
        self._arrivals.add(chunk)

    def _crowded(self, crowded: bool) -> None:
        if crowded:
            self._link.pause()
        else:
            self._link.resume()

    def _forget_offer(self, part_with: Callable[[Offered], None] = Offered.release) -> None:
        offered, self._offered = self._offered, None
        arrivals, self._arrivals = self._arrivals, None
        self._lacking = set()
        if offered is None:
            return
        if arrivals is None:
            offered.release()
        else:
            arrivals.finish().addBoth(lambda _: part_with(offered))

    # Changes

    async def _publish(self, message: Publish) -> None:
        wished = when.read(message.when)
        offered = self._offered
        if offered is not None and offered.manifest.version == message.version:
            if self._arrivals is not None:
                await self._arrivals.finish()
            step = await self._publications.publish(offered, message.dataset, wished, "publish", self._by)
            self._forget_offer()
        else:
            step = await self._publications.publish_kept(message.version, message.dataset, wished, "publish", self._by)
        self._accepted(step)

    async def _roll_back(self, message: Rollback) -> None:
        wished = when.read(message.when)
        version = await self._desk.version_to_roll_back_to(message.dataset, message.version)
        step = await self._publications.publish_kept(version, message.dataset, wished, "rollback", self._by)
        self._accepted(step)

    def _accepted(self, step: Step | None) -> None:
        assert step is not None
        cycle = step.scheduled
        assert cycle is not None
        replaced = step.dropped.version if step.dropped is not None else None
        utc_ns = self._desk.to_utc_ns(cycle.activates_at_ns)
        self._link.send(
            Accepted(step.before.dataset, cycle.number, cycle.version, cycle.activates_at_ns, utc_ns, replaced)
        )

    async def _cancel(self, message: Cancel) -> None:
        dropped = await self._desk.cancel(message.dataset, self._by)
        self._link.send(Cancelled(message.dataset, dropped.number, dropped.version))

    async def _pin(self, message: Pin) -> None:
        await self._desk.pin(message.node, message.dataset, message.version)
        self._link.send(Done(message.VERB))

    async def _unpin(self, message: Unpin) -> None:
        await self._desk.unpin(message.node, message.dataset)
        self._link.send(Done(message.VERB))

    # Questions

    async def _forecast(self, message: Forecast) -> None:
        wished = when.read(message.when)
        offered = self._offered
        is_offered = offered is not None and offered.manifest.version == message.version
        answer = await self._desk.forecast(message.dataset, message.version, wished, offered if is_offered else None)
        self._say(message, answer)

    async def _answer(self, message: Status | History | Report) -> None:
        match message:
            case Status():
                self._say(message, self._desk.status())
            case History():
                self._say(message, await self._desk.history(message.dataset))
            case Report():
                self._say(message, await self._desk.report(message.dataset, message.cycle))

    def _say(self, message: Message, answer: object) -> None:
        self._link.send(Answer.of(message.VERB, json.dumps(answer, separators=(",", ":")).encode()))
