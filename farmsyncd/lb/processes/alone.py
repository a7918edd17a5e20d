"""A crew of one: this process does the work. Each worker is one, too, and so is a balancer without workers."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, gatherResults, maybeDeferred, succeed

from farmsyncd.core.eligibility import Order
from farmsyncd.lb.balancing import balancing
from farmsyncd.lb.config import BalancerConfig
from farmsyncd.lb.farm import Farm
from farmsyncd.lb.memory import Clocks, Memory
from farmsyncd.lb.notes import Notes
from farmsyncd.lb.processes.reshuffle import book
from farmsyncd.lb.relaying.front import Front

CLOCKS = Clocks(time.monotonic_ns, time.time_ns)
_LAST_LOOKS = 16


class Alone:
    """Serves as ``config`` says. ``number`` is the worker's own, which has its own part of what is written down."""

    def __init__(self, config: BalancerConfig, reactor: Any, number: int = 0) -> None:
        self._config = config
        self._reactor = reactor
        self._number = number
        self._parts = balancing(config, reactor)
        self._front: Front | None = None
        self._memory: Memory | None = None
        self._notes: Notes | None = None
        self._running: list[Service] = []
        self._begun = False

    @property
    def farm(self) -> Farm:
        """The nodes."""
        return self._parts.mind.farm

    def prepare(self, sockets: Sequence[socket.socket]) -> Deferred[None]:
        """See :class:`Crew`; there is one socket."""
        self._front = self._parts.clients.made(sockets[0])
        self._recall()
        return succeed(None)

    def begin(self, orders: Mapping[str, str] | None = None) -> Deferred[None]:
        """See :class:`Crew`. ``orders`` are what the operator wants of nodes, where that is known better than here."""
        assert self._front is not None
        if self._memory is not None and self._notes is not None:
            self._memory.catch_up()
            self._notes.load()
            self._run(self._memory, self._notes)
        for name, order in (orders or {}).items():
            self._parts.mind.dispatcher.command(name, Order(order))
        self._run(*self._parts.services)
        self._front.start()
        self._begun = True
        return succeed(None)

    def pause(self) -> Deferred[None]:
        """See :class:`Crew`."""
        if self._front is not None:
            self._front.stop_accepting()
        return self._write_all_down()

    def resume(self) -> Deferred[None]:
        """See :class:`Crew`."""
        assert self._front is not None
        self._recall()
        if self._memory is not None and self._notes is not None:
            self._run(self._memory, self._notes)
        self._front.accept_again()
        return succeed(None)

    def finish(self, limit_s: float) -> Deferred[None]:
        """See :class:`Crew`."""
        if self._front is None or not self._begun:
            return self._end()
        self._take_the_last()
        return self._front.finish(limit_s).addCallback(lambda _: self._end())

    def abandon(self, limit_s: float) -> Deferred[None]:
        """The same, and write nothing down any more from now on: the state may be somebody else's in a moment."""
        self._take_the_last()
        both = [self.pause(), self.finish(limit_s)]
        return DeferredList(both, consumeErrors=True).addCallback(lambda _: None)

    def answer(self, words: Sequence[str]) -> Mapping[str, Any]:
        """See :class:`Crew`."""
        return self._parts.steering.answer(words)

    def status(self) -> Mapping[str, object]:
        """See :class:`Crew`."""
        return self._parts.figures.status()

    def metrics(self) -> str:
        """See :class:`Crew`."""
        return self._parts.figures.metrics()

    def ready(self) -> tuple[bool, str]:
        """See :class:`Crew`."""
        return self._parts.figures.ready()

    def _take_the_last(self) -> None:
        """Who is connected as far as he knows is not refused."""
        for _ in range(_LAST_LOOKS if self._front is not None else 0):
            self._front.look()  # type: ignore[union-attr]

    def _recall(self) -> None:
        """Read what was written down; it is not written on yet."""
        state = self._config.state
        if state is None:
            return
        mind = self._parts.mind
        self._memory = Memory(book(state, self._number), mind.affinity, self._config.remember_ns, CLOCKS, self._reactor)
        self._memory.load()
        self._notes = Notes(state / "farm.json", mind.dispatcher, self._reactor, writes=self._number == 0)

    def _write_all_down(self) -> Deferred[None]:
        last = [one for one in (self._memory, self._notes) if one is not None and one in self._running]
        self._memory = self._notes = None
        return self._stop(last)

    def _end(self) -> Deferred[None]:
        return self._stop(self._running[::-1])

    def _run(self, *services: Any) -> None:
        for service in services:
            self._running.append(service)
            service.startService()

    def _stop(self, services: Sequence[Service]) -> Deferred[None]:
        self._running = [one for one in self._running if one not in services]
        return gatherResults([maybeDeferred(one.stopService) for one in services]).addCallback(lambda _: None)
