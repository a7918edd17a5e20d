"""One connection that brings content: questions with one answer, and streams of parts that end with SENT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from farmsyncd.core.messages import Message
from farmsyncd.core.messages.content import Chunk, Delta, GetChunks, GetDelta, GetManifest, ManifestIs, Sent
from farmsyncd.core.messages.greeting import Hello, No
from farmsyncd.edges.link import Link
from farmsyncd.errors import PeerError, Unavailable

Part = Chunk | Delta


class Cut(Unavailable):
    """The connection ended before everything had come."""


class Declined(Unavailable):
    """The data server will not send what was asked for; ``code`` is that of its NO."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(f"the data server refused ({code}): {why}")
        self.code = code


class Conversation:
    """The session of a stager's link. One question at a time; :meth:`start` fires once the server has greeted."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self._greeted: Deferred[None] = Deferred()
        self._waiting: Deferred[Any] | None = None
        self._wanted: type[Message] | None = None
        self._version = ""
        self._part: Callable[[Part], None] | None = None
        self._reason: str | None = None

    def start(self) -> Deferred[None]:
        """Fires when questions may be asked, and fails with Cut when it never comes to that."""
        return self._greeted

    def manifest(self, version: str) -> Deferred[ManifestIs]:
        """The manifest of ``version``, as it travels."""
        return self._ask(GetManifest(version), ManifestIs, version, None)

    def chunks(self, version: str, ranges: bytes, part: Callable[[Part], None]) -> Deferred[Sent]:
        """Hand each chunk in ``ranges`` to ``part``; fires when all were sent."""
        return self._ask(GetChunks(version, ranges), Sent, version, part)

    def step(self, old: str, new: str, part: Callable[[Part], None]) -> Deferred[Sent]:
        """Hand each part of the difference between two versions to ``part``; fires when all were sent."""
        return self._ask(GetDelta(old, new), Sent, new, part)

    def _ask(
        self, question: Message, wanted: type[Message], version: str, part: Callable[[Part], None] | None
    ) -> Deferred[Any]:
        assert self._waiting is None, "one question at a time"
        if self._reason is not None or self.link is None:
            return fail(Cut(f"the connection to the data server has ended: {self._reason}"))
        self._wanted, self._version, self._part = wanted, version, part
        self._waiting = Deferred(lambda _: self._forget())
        answer = self._waiting
        self.link.send(question)
        return answer

    def _forget(self) -> None:
        # Parts of the abandoned answer may still be on their way: nothing else can be asked over this connection.
        self._waiting = None
        self._part = None
        if self.link is not None:
            self.link.abort("no longer wanted")

    # Session

    def greeted(self, link: Link, hello: Hello) -> None:
        """The data server is there."""
        del hello
        self.link = link
        self._greeted.callback(None)

    def received(self, link: Link, message: Message) -> None:
        """Pass on what was asked for. PeerError for anything else."""
        del link
        if isinstance(message, Chunk | Delta):
            if self._part is None:
                raise PeerError(f"expected an answer to a question, and {message.VERB} came")
            self._part(message)
        elif isinstance(message, No):
            self._answer(Failure(Declined(message.code, message.why.decode("utf-8", "replace"))))
        elif self._wanted is not None and isinstance(message, self._wanted):
            if getattr(message, "version", None) != self._version:
                raise PeerError(f"expected {message.VERB} of version {self._version}, and that of another came")
            self._answer(message)
        else:
            raise PeerError(f"expected content, and {message.VERB} came")

    def lost(self, link: Link, reason: str) -> None:
        """The connection is gone; whoever waits is told."""
        del link
        self._reason = reason
        cut = Cut(f"the connection to the data server ended: {reason}")
        if not self._greeted.called:
            self._greeted.errback(cut)
        self._answer(Failure(cut))

    def _answer(self, answer: Message | Failure) -> None:
        waiting, self._waiting = self._waiting, None
        self._part = self._wanted = None
        if waiting is not None and not waiting.called:
            if isinstance(answer, Failure):
                waiting.errback(answer)
            else:
                waiting.callback(answer)
