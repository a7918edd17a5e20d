"""A balancer as one service: it holds the listening sockets, and sees its crew through start, succession and end."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from farmsyncd.edges.listening import spelled
from farmsyncd.edges.startup import one_line
from farmsyncd.edges.statelock import InUse, StateLock, lock
from farmsyncd.errors import ConfigError, FarmsyncError
from farmsyncd.lb.config import BalancerConfig
from farmsyncd.lb.processes import sockets
from farmsyncd.lb.processes.cbpf import Spread
from farmsyncd.lb.processes.crew import Crew
from farmsyncd.lb.processes.handover import NAME, Given, Request, Taking
from farmsyncd.lb.processes.held import Sides
from farmsyncd.lb.processes.reshuffle import reshuffle
from farmsyncd.lb.relaying import binding

PROGRAM = "farmsync-lb"
_TRIES = 100
_PAUSE_S = 0.1


class Daemon(Service):
    """Serves by ``crew``. ``sides`` run while it does, and pause for a successor; ``steady`` run until that one runs.

    The sockets in ``held``, by name, are those of some of these, and are passed on.
    ``impatient`` is called when the end begins, with what to do when somebody will not wait for it; ``gone`` ends the
    process with a status.
    """

    _log = Logger()

    def __init__(
        self,
        config: BalancerConfig,
        crew: Crew,
        sides: Sequence[IService],
        steady: Sequence[IService],
        held: Sides,
        reactor: Any,
        impatient: Callable[[Callable[[], None]], None],
        gone: Callable[[int], None],
    ) -> None:
        self._config = config
        self._crew = crew
        self._sides, self._steady = MultiService(), MultiService()
        for services, parent in ((sides, self._sides), (steady, self._steady)):
            for service in services:
                service.setServiceParent(parent)
        self._last: list[IService] = []
        self._held = held
        self._shared: frozenset[str] = frozenset()  # those that another balancer has, too
        self._reactor = reactor
        self._impatient = impatient
        self._gone = gone
        self._taking: Taking | None = None
        self._sockets: list[socket.socket] = []
        self._lock: StateLock | None = None
        self._left = False
        self._own = False  # whether the sockets are nobody else's
        self._fault: Failure | None = None
        self._starting = False

    @property
    def address(self) -> str | None:
        """Where clients connect, spelled as a client's endpoint; None while they cannot."""
        return spelled(binding.where(self._sockets[0])) if self._sockets else None

    def afterwards(self, *services: IService) -> None:
        """Begin these once clients are accepted."""
        self._last += services

    def privilegedStartService(self) -> None:  # noqa: N802 - IService
        """Get the listening sockets, while the process may still be root."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        with one_line(PROGRAM):
            self._open()
        if self._taking is None:
            self._steady.privilegedStartService()
            self._sides.privilegedStartService()

    def startService(self) -> None:  # noqa: N802 - IService
        """Begin. When that takes its time, what fails later ends the process as what fails at once."""
        super().startService()  # type: ignore[no-untyped-call]
        with one_line(PROGRAM):
            self._open()
        self._starting = True
        Deferred.fromCoroutine(self._begin()).addErrback(self._failed)
        self._starting = False
        if self._fault is not None:
            with one_line(PROGRAM):
                self._fault.raiseException()

    async def _begin(self) -> None:
        config = self._config
        if self._taking is None:
            self._take_state()
            if config.state is not None:
                reshuffle(config.state, Spread(config.workers, config.prefix_ipv4, config.prefix_ipv6))
        await self._crew.prepare(self._sockets)
        if not self.running:
            return  # told to end meanwhile
        if self._taking is not None:
            if not self._taking.switch():
                self._log.warn("the balancer that was to hand over has died: its clients go on here")
            self._take_state()
        self._steady.startService()
        self._sides.startService()
        await self._crew.begin()
        for service in self._last:
            service.startService()
        if self._taking is not None:
            self._taking.done()
            self._taking = None
        self._own = True
        self._log.info("clients are served at {address}", address=self.address)

    def stopService(self) -> Deferred[None]:  # noqa: N802 - IService
        """Accept nobody, and give those who are connected their time."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._end())

    async def _end(self) -> None:
        self._impatient(lambda: _ignored(self._crew.finish(0)))
        if self._taking is not None:
            self._taking.close()
            self._taking = None
        if not self._left:
            for service in reversed(self._last):
                await maybeDeferred(service.stopService)
        finished = self._crew.finish(self._config.drain_limit_ns / 1e9)
        self._close()
        await finished
        if not self._left:
            await self._sides.stopService()
            await self._steady.stopService()
            self._close_sides()
            self._release()

    # Handing over

    def offer(self, request: Request) -> Given:
        """See :class:`Giver`."""
        if request.listen != self._config.listen:
            raise ConfigError(
                f"expected --listen {self._config.listen}, as the running balancer has, found {request.listen}; "
                "stop that one first"
            )
        if request.workers != len(self._sockets):
            raise ConfigError(
                f"expected --workers {len(self._sockets)}, as the running balancer has, found {request.workers}: "
                "each has a listening socket, and their number cannot change without refusing somebody; "
                "stop that one first"
            )
        alike = {name: one.held for name, one in self._held.items() if request.sides.get(name) == one.described}
        self._shared = frozenset(name for name, held in alike.items() if held)
        return Given(self._sockets, {name: alike[name] for name in sorted(self._shared)})

    async def _pause(self) -> None:
        self._own = False
        await self._sides.stopService()  # first: what was ordered is written down then
        await self._crew.pause()
        self._release()

    def pause(self) -> Deferred[None]:
        """See :class:`Giver`."""
        return Deferred.fromCoroutine(self._pause())

    def resume(self) -> None:
        """See :class:`Giver`."""
        Deferred.fromCoroutine(self._resume()).addErrback(self._failed)

    async def _resume(self) -> None:
        self._own = True
        await self._crew.resume()
        for left in reversed(range(_TRIES)):
            try:
                self._take_state()
                break
            except ConfigError as error:  # the one that has failed may not quite be gone
                if not left:
                    self._log.critical("{why}; this balancer goes on all the same", why=str(error))
                await deferLater(self._reactor, _PAUSE_S, lambda: None)
        self._sides.startService()

    def leave(self) -> None:
        """See :class:`Giver`."""
        self._left = True
        for service in reversed(self._last):
            _ignored(maybeDeferred(service.stopService))
        stopped = maybeDeferred(self._steady.stopService)
        finished = self._crew.finish(self._config.linger_ns / 1e9)
        self._close()
        self._close_sides()
        DeferredList([stopped, finished], consumeErrors=True).addBoth(lambda _: self._gone(0))

    # Means

    def _open(self) -> None:
        if self._sockets:
            return
        config = self._config
        if config.take_over and config.state is not None:
            self._taking = Taking.connect(config.state / NAME)
        if self._taking is not None:
            wanted = {name: one.described for name, one in self._held.items()}
            given = self._taking.ask(Request(config.listen, config.workers, wanted))
            self._sockets = list(given.listening)
            self._shared = frozenset(given.sides)
            for name, passed in given.sides.items():
                self._held[name].held = list(passed)
            return
        try:
            self._sockets = sockets.group(binding.bind(config.listen), config.workers)
            self._own = True
        except OSError as error:
            raise ConfigError(
                f"expected to listen on {config.listen} for clients: {error.strerror or error}; "
                "stop the program that has the port, or name another endpoint"
            ) from None

    def _close(self) -> None:
        """Listen no more: in this process, when another one goes on."""
        if self._sockets and self._own:
            binding.unlink(self._sockets[0])
        sockets.close(self._sockets)
        self._sockets = []

    def _close_sides(self) -> None:
        for name, one in self._held.items():
            one.release(passed_on=name in self._shared and not self._own)

    def _take_state(self) -> None:
        if self._config.state is None:
            return
        try:
            self._lock = lock(self._config.state, PROGRAM)
        except InUse as error:
            raise InUse(f"{error}, or take over from it with --take-over") from None

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _failed(self, failure: Failure) -> None:
        if self._taking is not None:
            self._release()
            self._taking.close()
        if self._starting:
            self._fault = failure
            return
        if not self.running:
            return  # told to end meanwhile, and the workers with it
        status = 70
        if isinstance(failure.value, FarmsyncError):
            status = failure.value.exit_status
            self._log.critical("{why}", why=str(failure.value))
        elif isinstance(failure.value, SystemExit) and isinstance(failure.value.code, int):
            status = failure.value.code
        else:
            self._log.failure("the balancer cannot go on", failure)
        self._gone(status)


def _ignored(deferred: Deferred[Any]) -> None:
    deferred.addErrback(lambda _: None)
