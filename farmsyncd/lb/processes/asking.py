"""What a supervisor and a worker say to each other: lines of JSON over two pipes.

::

    supervisor    [NUMBER, VERB, ARGUMENT...]
    worker        [NUMBER, ANSWER]              or [NUMBER, null, ERROR, EXIT_STATUS]

Each verb is a method of :class:`~farmsyncd.lb.processes.crew.Crew`; ``configure`` comes first. Who sees the other's end
of the pipes closed knows that it has died.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from farmsyncd.errors import BadInput, ConfigError, FarmsyncError, LocalError, Unavailable

LONGEST = 1 << 28
"""A status of thousands of nodes is one line. Both sides are one program, on one machine."""
_ERRORS: dict[int, type[FarmsyncError]] = {one.exit_status: one for one in (BadInput, ConfigError, Unavailable)}


class Gone(Unavailable):
    """The worker has died before it answered."""


class Asker:
    """The supervisor's side: ``write`` sends a line."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._waiting: dict[int, Deferred[Any]] = {}
        self._number = 0
        self._gone = False
        self._rest = b""

    def ask(self, verb: str, *arguments: object) -> Deferred[Any]:
        """What it answers. Fails with the FarmsyncError that it raises, and with Gone when it dies."""
        if self._gone:
            return fail(Gone("the worker is gone"))
        self._number += 1
        answer = self._waiting[self._number] = Deferred()
        self._write(msgspec.json.encode([self._number, verb, *arguments]) + b"\n")
        return answer

    def heard(self, data: bytes) -> None:
        """The worker said this."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            number, *said = msgspec.json.decode(line)
            waiting = self._waiting.pop(number)
            if len(said) == 1:
                waiting.callback(said[0])
            else:
                _, text, status = said
                waiting.errback(_ERRORS.get(status, LocalError)(text))

    def lost(self) -> None:
        """The worker is gone."""
        self._gone = True
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            answer.errback(Gone("the worker died before it answered"))


class Answerer(LineOnlyReceiver):
    """The worker's side. ``handle(verb, arguments)`` answers, or gives a Deferred; ``lost`` is called at the end."""

    delimiter = b"\n"
    MAX_LENGTH = LONGEST
    _log = Logger()

    def __init__(self, handle: Callable[[str, Sequence[Any]], Any], lost: Callable[[], None]) -> None:
        self._handle = handle
        self._lost = lost

    def lineReceived(self, line: bytes) -> None:  # noqa: N802 - LineOnlyReceiver
        """A question."""
        number, verb, *arguments = msgspec.json.decode(line)
        answer = maybeDeferred(self._handle, verb, arguments)
        answer.addCallbacks(lambda result: [number, result], self._failed, errbackArgs=(number, verb))
        answer.addCallback(self._send)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002, N802 - IProtocol
        """The supervisor is gone."""
        self._lost()

    def _send(self, answer: object) -> None:
        if self.connected:
            self.transport.write(msgspec.json.encode(answer) + b"\n")  # type: ignore[union-attr]

    def _failed(self, failure: Failure, number: int, verb: str) -> list[object]:
        error = failure.value
        if isinstance(error, FarmsyncError):
            return [number, None, str(error), error.exit_status]
        self._log.failure("cannot answer {verb}", failure, verb=verb)
        return [number, None, f"the worker failed at {verb}; the log says more", FarmsyncError.exit_status]
