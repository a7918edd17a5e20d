"""A crew of several worker processes, and their supervisor: who has died is replaced.

The supervisor holds all listening sockets, so that nothing of them is lost with a worker: the clients that wait at its
socket wait for its successor, and the kernel goes on sending each source to the same socket.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from farmsyncd.core.affinity import source_of
from farmsyncd.errors import BadInput
from farmsyncd.lb.config import BalancerConfig
from farmsyncd.lb.processes import shares
from farmsyncd.lb.processes.asking import Asker, Gone
from farmsyncd.lb.processes.cbpf import Spread
from farmsyncd.lb.processes.lines import Lines
from farmsyncd.lb.processes.onlooker import Onlooker
from farmsyncd.lb.processes.worker import HEARS, LISTENS, SAYS
from farmsyncd.lb.steering import MANY, ORDERS

_COMMAND = (sys.executable, "-P", "-m", "farmsyncd.lb.processes.worker")
_SHORTEST_S, _LONGEST_S = 0.1, 10.0
_LONG_ENOUGH_S = 10.0


class _Process(ProcessProtocol):
    """One worker process."""

    def __init__(self, number: int, ended: Callable[[_Process, str], None]) -> None:
        self.number = number
        self.lines = Lines(number)
        self.since = time.monotonic()
        self.prepared = False
        self._ended = ended
        self.asker = Asker(self._write)

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N802, N803 - IProcessProtocol
        """It said something, to us or into the log."""
        if childFD == SAYS:
            self.asker.heard(data)
        else:
            self.lines.heard(data)

    def processEnded(self, reason: Failure) -> None:  # noqa: N802 - IProcessProtocol
        """It is gone."""
        self.lines.end()
        self.asker.lost()
        self._ended(self, "in good order" if reason.check(ProcessDone) else reason.getErrorMessage())

    def _write(self, line: bytes) -> None:
        self.transport.writeToChild(HEARS, line)  # type: ignore[union-attr]


class Workforce:
    """See :class:`Crew`. ``told`` is the configuration as each worker reads it itself, in ``directory``.

    ``onlooker`` is told of orders, too.
    """

    _log = Logger()

    def __init__(
        self,
        config: BalancerConfig,
        told: Mapping[str, object],
        directory: Path,
        reactor: Any,
        onlooker: Onlooker | None = None,
    ) -> None:
        self.spread = Spread(config.workers, config.prefix_ipv4, config.prefix_ipv6)
        self._config = config
        self._told = told
        self._directory = directory
        self._reactor = reactor
        self._onlooker = onlooker
        self._sockets: Sequence[Any] = ()
        self._workers: dict[int, _Process] = {}
        self._orders: dict[str, str] = {}
        self._serving = False
        self._finishing = False
        self._restarts: dict[int, IDelayedCall] = {}
        self._pause_s: dict[int, float] = {}
        self._gone: list[Deferred[None]] = []

    def prepare(self, sockets: Sequence[Any]) -> Deferred[None]:
        """See :class:`Crew`; one socket for each worker."""
        self._sockets = sockets
        return _all([self._prepared(number) for number in range(self._config.workers)])

    def begin(self) -> Deferred[None]:
        """See :class:`Crew`."""
        self.spread.attach(self._sockets[0])
        return self._all_serve("begin", self._orders)

    def pause(self) -> Deferred[None]:
        """See :class:`Crew`. One that is dead has nothing to say any more."""
        self._serving = False
        for call in self._restarts.values():
            call.cancel()
        self._restarts.clear()
        return DeferredList([one.asker.ask("pause") for one in self._there()], consumeErrors=True).addCallback(_none)

    def resume(self) -> Deferred[None]:
        """See :class:`Crew`."""
        return self._all_serve("resume")

    def finish(self, limit_s: float) -> Deferred[None]:
        """See :class:`Crew`."""
        self._finishing, self._serving = True, False
        for call in self._restarts.values():
            call.cancel()
        self._restarts.clear()
        gone: Deferred[None] = Deferred()
        self._gone.append(gone)
        for one in self._there():
            one.asker.ask("finish", limit_s).addErrback(lambda _: None)
        self._tell_if_gone()
        return gone

    def answer(self, words: Sequence[str]) -> Any:
        """See :class:`Crew`."""
        match list(words):
            case ["status"]:
                return self.status()
            case ["nodes"]:
                return self._ask_all("status").addCallback(lambda found: {"nodes": shares.nodes_of_all(_said(found))})
            case ["sources", *rest]:
                count = int(rest[0]) if rest and rest[0].isascii() and rest[0].isdecimal() else MANY
                found = self._ask_all("answer", words)
                return found.addCallback(lambda found: shares.sources_of_all(_said(found), count))
            case ["explain", source]:
                return self._explain(source)
        return self._order(words)

    def status(self) -> Any:
        """See :class:`Crew`."""
        return self._ask_all("status").addCallback(self._status)

    def metrics(self) -> Any:
        """See :class:`Crew`."""
        return self._ask_all("metrics").addCallback(shares.metrics_of_all)

    def ready(self) -> Any:
        """See :class:`Crew`."""
        return self._ask_all("ready").addCallback(lambda found: shares.ready_of_all([(*one,) for one in _said(found)]))

    def _status(self, found: Sequence[tuple[int, Any]]) -> Any:
        pids = {one.number: one.transport.pid for one in self._there()}  # type: ignore[union-attr]
        workers = [{"worker": number, "pid": pids.get(number)} for number, _ in found]
        return shares.status_of_all(_said(found), workers)

    def _there(self) -> list[_Process]:
        return [one for _, one in sorted(self._workers.items())]

    def _ask_all(self, verb: str, *arguments: object) -> Deferred[list[tuple[int, Any]]]:
        """What each worker that is there answers, with its number. An error of one of them is the answer of all."""
        asked = [
            one.asker.ask(verb, *arguments).addCallbacks(
                lambda answer, number: [(number, answer)],
                lambda failure: [] if failure.check(Gone) else failure,
                callbackArgs=(one.number,),
            )
            for one in self._there()
            if one.prepared  # nobody waits for one that is just being started
        ]
        found = gatherResults(asked, consumeErrors=True)
        return found.addErrback(_first).addCallback(lambda parts: [one for part in parts for one in part])

    def _order(self, words: Sequence[str]) -> Any:
        """An order, or nonsense. Who dies now, or is just being started, is told of it when it begins."""
        if not self._workers:
            raise Gone(f"{shares.NOBODY}; try again in a moment")
        if self._onlooker is not None:
            self._onlooker.told(words)
        asked = self._ask_all("answer", words)
        match list(words):
            case [verb, name] if verb in ORDERS:
                before = self._orders.get(name)
                self._orders[name] = ORDERS[verb].value
                asked.addErrback(self._take_back, name, before)
        return asked.addCallback(self._ordered)

    def _ordered(self, found: Sequence[tuple[int, Any]]) -> Any:
        if not found:
            raise Gone(f"{shares.NOBODY}; they will be told")
        return shares.order_of_all(_said(found))

    def _take_back(self, failure: Failure, name: str, before: str | None) -> Failure:
        """The order was none: what held before holds."""
        del self._orders[name]
        if before is not None:
            self._orders[name] = before
        return failure

    def _explain(self, source: str) -> Any:
        try:
            key = source_of(source.partition("/")[0], self._config.prefix_ipv4, self._config.prefix_ipv6)
        except ValueError:
            raise BadInput(f"expected a source's IP address, and found {source[:80]!r}") from None
        number = self.spread.worker_of(key)
        if number not in self._workers or not self._workers[number].prepared:
            raise Gone(f"worker {number}, which has this source, is just being started anew")
        asked = self._workers[number].asker.ask("answer", ["explain", source])
        return asked.addCallback(lambda answer: {**answer, "worker": number})

    def _all_serve(self, verb: str, *arguments: object) -> Deferred[None]:
        """Who has died meanwhile, or dies now, is replaced."""
        self._serving = True
        asked = [one.asker.ask(verb, *arguments).addErrback(lambda one: one.trap(Gone)) for one in self._there()]
        for number in set(range(self._config.workers)) - set(self._workers):
            self._restart(number)
        return _all(asked)

    def _prepared(self, number: int) -> Deferred[Any]:
        """Start worker ``number``, and have it get ready."""
        one = _Process(number, self._ended)
        inherited: dict[int, int | str] = {
            0: 0,
            1: "r",
            2: "r",
            HEARS: "w",
            SAYS: "r",
            LISTENS: self._sockets[number].fileno(),
        }
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # this same program
        self._reactor.spawnProcess(one, _COMMAND[0], _COMMAND, env, str(self._directory), childFDs=inherited)
        self._workers[number] = one
        configured = one.asker.ask("configure", number, self._told)
        return configured.addCallback(lambda _: one.asker.ask("prepare")).addCallback(self._is_prepared, one)

    @staticmethod
    def _is_prepared(_: object, one: _Process) -> None:
        one.prepared = True

    def _restart(self, number: int) -> None:
        self._restarts.pop(number, None)
        prepared = self._prepared(number)
        one = self._workers[number]
        prepared.addCallback(lambda _: one.asker.ask("begin", self._orders) if self._serving else None)
        prepared.addErrback(self._give_up, one)

    def _give_up(self, failure: Failure, one: _Process) -> None:
        if not failure.check(Gone):
            self._log.error("worker {worker} cannot begin: {why}", worker=one.number, why=failure.getErrorMessage())
            one.transport.signalProcess("KILL")  # type: ignore[union-attr]

    def _ended(self, one: _Process, how: str) -> None:
        number = one.number
        if self._workers.get(number) is one:
            del self._workers[number]
        self._tell_if_gone()
        if not self._serving:
            return
        long = time.monotonic() - one.since >= _LONG_ENOUGH_S
        wait_s = self._pause_s[number] = _SHORTEST_S if long else min(_LONGEST_S, 2 * self._pause_s.get(number, 0.05))
        self._log.error("worker {worker} has died ({how}): it is replaced", worker=number, how=how)
        self._restarts[number] = self._reactor.callLater(wait_s, self._restart, number)

    def _tell_if_gone(self) -> None:
        if not self._workers and self._finishing:
            everybody, self._gone = self._gone, []
            for gone in everybody:
                gone.callback(None)


def _all(asked: Sequence[Deferred[Any]]) -> Deferred[None]:
    """Fires when all have; fails with the first that does."""
    return gatherResults(asked, consumeErrors=True).addErrback(_first).addCallback(_none)


def _first(failure: Failure) -> Failure:
    return failure.value.subFailure  # type: ignore[no-any-return, union-attr]


def _none(_: object) -> None:
    return None


def _said(found: Sequence[tuple[int, Any]]) -> list[Any]:
    return [answer for _, answer in found]
