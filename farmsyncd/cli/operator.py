"""A conversation with the data server: connect, ask, and be told in plain words what went wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import attrs
from twisted.internet import defer
from twisted.internet import error as neterror
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.interfaces import IReactorCore, IReactorTime
from twisted.python.failure import Failure

from farmsyncd.core.messages import Message, Side
from farmsyncd.core.messages.greeting import PROTOCOL, Hello, No
from farmsyncd.core.messages.operating import Answer
from farmsyncd.edges.link import Extent, Link, LinkSettings
from farmsyncd.edges.release import RELEASE
from farmsyncd.errors import BadInput, ConfigError, LocalError, NotAllowed, Unavailable

T = TypeVar("T")
M = TypeVar("M", bound=Message)

CONNECT_PATIENCE = 10.0  # seconds until a data server that does not answer counts as away

_REFUSALS: dict[str, type[LocalError]] = {
    "bad": BadInput,
    "unknown": BadInput,
    "gone": BadInput,
    "refused": BadInput,
    "frozen": BadInput,
    "full": Unavailable,
    "busy": Unavailable,
    "internal": Unavailable,
    "forbidden": NotAllowed,
}


def converse(data: str, talk: Callable[[Operator], Awaitable[T]]) -> T:
    """Connect to the data server at endpoint ``data``, run ``talk``, and give back its result.

    Owns the process's reactor, so it is called once. Raises Unavailable when there is no data server, KeyboardInterrupt
    when a signal ends it, and whatever ``talk`` raises.
    """
    from twisted.internet import reactor  # noqa: PLC0415 - a program's edge: importing it installs it

    outcome: list[T | Failure] = []
    _run(reactor, lambda: _connected(data, reactor, talk), outcome.append)
    if not outcome:
        raise KeyboardInterrupt
    result = outcome[0]
    if isinstance(result, Failure):
        result.raiseException()
    return result


def _run(reactor: IReactorCore, work: Callable[[], Awaitable[T]], done: Callable[[T | Failure], None]) -> None:
    running: list[defer.Deferred[T]] = []
    unwound: defer.Deferred[None] = defer.Deferred()
    interrupted = False

    def begin() -> None:
        running.append(defer.ensureDeferred(work()))  # type: ignore[arg-type]
        running[0].addBoth(finish)

    def finish(result: T | Failure) -> None:
        unwound.callback(None)
        if not interrupted:
            done(result)
            reactor.stop()

    def stopping() -> defer.Deferred[None] | None:
        nonlocal interrupted
        if unwound.called or not running:
            return None
        # What is under way is left in good order: bars go, the cursor comes back, the connection is closed. Whoever
        # does not want to wait for that, or for a thread that is reading a large file, says so again.
        interrupted = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        running[0].cancel()
        return unwound

    reactor.callWhenRunning(begin)
    reactor.addSystemEventTrigger("before", "shutdown", stopping)
    reactor.run()


async def _connected(data: str, reactor: IReactorTime, talk: Callable[[Operator], Awaitable[T]]) -> T:
    async with connection(data, reactor) as operator:
        return await talk(operator)


@asynccontextmanager
async def connection(data: str, reactor: IReactorTime) -> AsyncIterator[Operator]:
    """A greeted conversation with the data server at endpoint ``data``, closed at the end of the block."""
    try:
        endpoint = clientFromString(reactor, data)
    except (ValueError, TypeError, LookupError) as error:
        raise ConfigError(
            f"expected an endpoint such as tcp:127.0.0.1:7420 for --data, and found {data!r} ({error})"
        ) from None
    operator = Operator()
    hello = Hello(PROTOCOL, "operator", operator_name(), (f"software=farmsync/{RELEASE}",))
    link = Link(operator, hello, Side.CLIENT, reactor, LinkSettings())
    attempt: defer.Deferred[Any] = connectProtocol(endpoint, link)
    attempt.addTimeout(CONNECT_PATIENCE, reactor)
    try:
        await attempt
    except (neterror.ConnectError, neterror.DNSLookupError, defer.TimeoutError, OSError) as error:
        raise Unavailable(
            f"expected a data server at {data}, and found none ({_plainly(error)}); "
            "is `twistd farmsync-data` running, and is this its --listen address?"
        ) from None
    try:
        await operator.ready()
        yield operator
    finally:
        link.close("done")
        await operator.gone()


def _plainly(error: BaseException) -> str:
    cause = getattr(error, "osError", None) or error
    number = getattr(cause, "errno", None)
    return os.strerror(number).lower() if number else str(error).rstrip(".").lower() or "no answer in time"


def _refusal(no: No) -> LocalError:
    return _REFUSALS[no.code](no.why.decode("utf-8", "replace"))


def operator_name() -> str:
    """Who is asking, for the data server's log: the machine's name, as far as it can be a name."""
    kept = "".join(
        char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in socket.gethostname()
    )
    return kept.lstrip("._-")[:64] or "operator"


@attrs.define
class _Question:
    verb: str
    answers: tuple[type[Message], ...]
    answered: defer.Deferred[Message]


class Operator:
    """The session of an operator's link: requests go out one after another, answers come back in that order."""

    def __init__(self) -> None:
        self._link: Link | None = None
        self._questions: deque[_Question] = deque()
        self._ready: defer.Deferred[None] = defer.Deferred()
        self._gone: defer.Deferred[None] = defer.Deferred()
        self._over: str | None = None
        self._objection: LocalError | None = None  # to something that was poured

    def ready(self) -> defer.Deferred[None]:
        """Fires once the data server has greeted; fails with Unavailable when it hangs up instead."""
        return self._ready

    def gone(self) -> defer.Deferred[None]:
        """Fires once the connection is closed."""
        return self._gone

    def greeted(self, link: Link, hello: Hello) -> None:
        """The data server is there."""
        if hello.role != "data":
            link.close("an operator talks with a data server only")
            return
        self._link = link
        self._ready.callback(None)

    def received(self, link: Link, message: Message) -> None:
        """An answer: it belongs to the oldest question."""
        if not self._questions:
            if isinstance(message, No):
                self._objection = _refusal(message)
            return
        question = self._questions.popleft()
        if isinstance(message, No):
            question.answered.errback(_refusal(message))
        elif isinstance(message, question.answers):
            question.answered.callback(message)
        else:
            question.answered.errback(Unavailable(f"expected an answer to {question.verb}, and {message.VERB} came"))
            link.close("an answer that fits no question")

    def lost(self, link: Link, reason: str) -> None:  # noqa: ARG002 - the session's interface
        """The connection is over: whoever waits is told."""
        greeted = self._ready.called
        self._over = f"{'the data server hung up' if greeted else 'no data server has greeted there'}: {reason}"
        failure = Unavailable(self._over)
        if not greeted:
            self._ready.errback(failure)
        while self._questions:
            self._questions.popleft().answered.errback(failure)
        self._gone.callback(None)

    async def ask(self, message: Message, *answers: type[M]) -> M:
        """Send a request; the answer, which is of one of these classes.

        A refusal is raised as the LocalError that fits its code: BadInput, NotAllowed, Unavailable.
        """
        if self._over is not None or self._link is None:
            raise Unavailable(self._over or "the data server has not greeted yet")
        question = _Question(message.VERB, answers, defer.Deferred())
        self._questions.append(question)
        self._link.send(message)
        return await question.answered  # type: ignore[return-value]

    async def answer(self, message: Message) -> Any:
        """Send a request that is answered with JSON; the JSON, read."""
        answer = await self.ask(message, Answer)
        return json.loads(answer.json)

    async def pour(self, pieces: Iterator[bytes | Extent]) -> None:
        """Send frames that are encoded already, as fast as the data server takes them.

        Raises what the data server objected to, should it refuse in between.
        """
        if self._link is None:
            raise Unavailable(self._over or "the data server has not greeted yet")
        try:
            await self._link.pour(pieces)
        except LocalError as error:
            raise self._objection or Unavailable(self._over or f"the upload was cut off: {error}") from error
        if self._objection is not None:
            raise self._objection
