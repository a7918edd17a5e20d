"""Requests with bodies: bounded, kept in memory while they are small and in a temporary file above that.

What is too long is refused with 413 as soon as that is known. The rest of it is read, up to a bound, and thrown away:
a connection that is closed while the client still writes is reset, and the client would not see the answer.
"""

from __future__ import annotations

import tempfile
from typing import IO, Any, Protocol

from twisted.web.server import Request

_PATIENCE = 32 * 1024 * 1024  # bytes that are read on and thrown away after a refusal
_REFUSAL = b"The request's body is too large: at most %d bytes are taken here.\n"


class Host(Protocol):
    """The site of a :class:`BodyRequest`."""

    body_limit: int
    body_in_memory: int

    def began(self, request: Request) -> None:
        """``request`` is about to be answered."""


class BodyRequest(Request):
    """A request whose body is for the application. The site bounds it: ``body_limit``, ``body_in_memory``."""

    channel: Any
    _refused = False
    _taken = 0

    def gotLength(self, length: int | None) -> None:  # noqa: N802 - twisted.web's name
        """The headers are there, and say how long the body is, if they do."""
        site: Host = self.channel.site
        spool = tempfile.SpooledTemporaryFile(max_size=site.body_in_memory)  # noqa: SIM115 - closed with the request
        self.content: IO[bytes] | None = spool
        if length is not None and length > site.body_limit:
            self._refuse(site.body_limit)

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802 - twisted.web's name
        """A piece of the body."""
        self._taken += len(data)
        limit: int = self.channel.site.body_limit
        if not self._refused and self._taken > limit:
            self._refuse(limit)
        if not self._refused:
            assert self.content is not None
            self.content.write(data)
        elif self._taken > limit + _PATIENCE:
            self.channel.transport.abortConnection()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:  # noqa: N802 - twisted.web's name
        """The whole request is there."""
        if self._refused:
            self.channel.loseConnection()
        else:
            super().requestReceived(command, path, version)  # type: ignore[no-untyped-call]

    def process(self) -> None:
        """Answer it."""
        self.channel.site.began(self)
        super().process()  # type: ignore[no-untyped-call]

    def take_body(self) -> tuple[Any, int]:
        """The body, at its beginning, and its size; whoever takes it closes it."""
        assert self.content is not None
        body, self.content = self.content, None
        return body, self._taken

    def _refuse(self, limit: int) -> None:
        self._refused = True
        self.requestHeaders.removeHeader(b"expect")  # it is not to continue
        text = _REFUSAL % limit
        self.channel.transport.writeSequence(
            [
                b"HTTP/1.1 413 Content Too Large\r\nserver: farmsync\r\nconnection: close\r\n"
                b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n\r\n" % len(text),
                text,
            ]
        )
