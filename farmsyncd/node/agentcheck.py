"""What HAProxy asks an agent: whether this node should be given clients. One line for each connection::

    up 100%                               it serves what it should
    up 0% #shop: cycle 7 was missed       it missed an activation: no new clients; those that stick to it may come
    down #no active version of shop       there is nothing to serve

Weights say it, not the words ``drain`` and ``ready``: those would undo what an operator told HAProxy about the server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from farmsyncd.core.standing import due
from farmsyncd.node.report import ready

if TYPE_CHECKING:
    from farmsyncd.core.standing import Known, Turn
    from farmsyncd.node.node import Node

PATIENCE_S = 5.0
"""For so long may a client stay after it was answered."""
_LONGEST = 200


def answer(node: Node, stale_after_ns: int) -> str:
    """What is said of ``node`` now, without the end of the line."""
    useful, why = ready(node)
    if not useful:
        return _line("down", why)
    estimate = node.timekeeper.estimate()
    farm_ns = None if estimate is None else estimate.farm_ns(node.clock.now_ns())
    for name, replica in node.followed():
        late = missed(replica.known, replica.pointing.current(), farm_ns, stale_after_ns)
        if late is not None:
            return _line("up 0%", f"{name}: cycle {late.cycle} was missed")
    return "up 100%"


def missed(known: Known, active: Turn | None, farm_ns: int | None, stale_after_ns: int) -> Turn | None:
    """The turn that should have been active for longer than ``stale_after_ns``, and is not; None when all is well.

    While the time is not known nothing was missed, nor by a node that does not believe the data server.
    """
    wanted = due(known, farm_ns)
    if wanted is None or farm_ns is None or known.objection:
        return None
    if active is not None and active.cycle >= wanted.cycle:
        return None
    return wanted if farm_ns - wanted.at_ns > stale_after_ns else None


def _line(state: str, why: str) -> str:
    text = "".join(char if char.isascii() and char.isprintable() else "?" for char in why)
    return f"{state} #{text[:_LONGEST]}"


class Agent(Protocol):
    """Says its line, and waits until the client has gone: what it may have sent is no reason for a reset."""

    _log = Logger()

    def __init__(self, answer: Callable[[], str], clock: IReactorTime) -> None:
        self._answer = answer
        self._clock = clock
        self._patience: IDelayedCall | None = None

    def connectionMade(self) -> None:  # noqa: N802 - Protocol
        """Say it."""
        self._patience = self._clock.callLater(PATIENCE_S, self.transport.abortConnection)  # type: ignore[union-attr]
        try:
            line = self._answer()
        except Exception:
            self._log.failure("the agent has no answer, for a reason that lies in the node")
            self.transport.abortConnection()  # type: ignore[union-attr]
            return
        self.transport.write(f"{line}\n".encode("ascii"))  # type: ignore[union-attr]
        self.transport.loseWriteConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002, N802 - Protocol
        """The client has gone."""
        if self._patience is not None and self._patience.active():
            self._patience.cancel()


class AgentFactory(Factory):
    """Agents that say what ``answer`` returns."""

    noisy = False

    def __init__(self, answer: Callable[[], str], clock: IReactorTime) -> None:
        self._answer = answer
        self._clock = clock

    def buildProtocol(self, addr: IAddress | None) -> Agent:  # noqa: ARG002, N802 - Factory
        """For one client."""
        return Agent(self._answer, self._clock)
