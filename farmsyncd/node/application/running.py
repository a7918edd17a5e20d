"""One request in a thread of the application's: the server's side of PEP 3333."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from twisted.logger import Logger

from farmsyncd.errors import FarmsyncError
from farmsyncd.node.application.loading import Application
from farmsyncd.node.application.reply import ClientGoneError, Head, Reply

ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

_STATUS = re.compile(r"([2-9][0-9]{2})(?: (.*))?", re.ASCII)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# What concerns the connection is the server's affair.
_OF_THE_CONNECTION = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
_NO_BODY = frozenset({204, 304})
_FAILED = Head(500, b"Internal Server Error", ((b"content-type", b"text/plain; charset=utf-8"),))
_FAILED_TEXT = b"The application failed; this node's log says why.\n"


class Misuse(Exception):
    """The application does not keep to PEP 3333."""


class Run:
    """Calls ``application`` with ``environ`` and sends what it answers to ``reply``.

    ``adding`` are headers that the answer gets if the application does not set them itself, their names in small
    letters.
    """

    log = Logger()

    def __init__(
        self, application: Application, environ: dict[str, Any], reply: Reply, adding: Iterable[tuple[str, str]]
    ) -> None:
        self._application = application
        self._environ = environ
        self._reply = reply
        self._adding = tuple(adding)
        self._head: Head | None = None
        self._begun = False
        self._length: int | None = None
        self._sent = 0
        self._with_body = True

    def __call__(self) -> bool:
        """Do it; whatever goes wrong is told to the log and the client, and never raised: False then."""
        try:
            self._run()
        except ClientGoneError:
            pass
        except FarmsyncError as error:  # of the session: the database is away, another request was first
            from farmsyncd.sessions.exchange import answer_for  # noqa: PLC0415 - where there are sessions

            code, headers, body = answer_for(error)
            self._fail(Head(code, b"", tuple((name.encode(), value.encode()) for name, value in headers)), body)
            return code < 500
        except BaseException:
            environ = self._environ
            self.log.failure(
                "the application failed at {method} {path}",
                method=environ["REQUEST_METHOD"],
                path=environ["PATH_INFO"],
            )
            self._fail(_FAILED, _FAILED_TEXT)
            return False
        return True

    def _run(self) -> None:
        pieces = self._application(self._environ, self._start_response)
        try:
            whole = _length_of(pieces)
            for piece in pieces:
                if self._reply.gone:
                    raise ClientGoneError("the client has gone")
                if piece:
                    if not self._begun and whole == 1:
                        self._end(piece)
                        return
                    self._write(piece)
            self._end(b"")
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        if exc_info is not None:
            try:
                if self._begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no circle of references through the frames
        elif self._head is not None:
            raise Misuse("start_response was called a second time, without exc_info")
        self._head = self._checked(status, headers)
        return self._write

    def _checked(self, status: str, headers: list[tuple[str, str]]) -> Head:
        found = _STATUS.fullmatch(status) if isinstance(status, str) else None
        if found is None or _CONTROL.search(status):
            raise Misuse(f"expected a status such as '200 OK', found {status!r}")
        code = int(found[1])
        self._length = None
        named = set()
        kept = []
        for name, value in headers:
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise Misuse(f"expected the name of a header, found {name!r}")
            if not isinstance(value, str) or _CONTROL.search(value):
                raise Misuse(f"expected text without control characters for the header {name}, found {value!r}")
            small = name.lower()
            if small in _OF_THE_CONNECTION:
                continue
            if small == "content-length":
                if not value.isdecimal():
                    raise Misuse(f"expected a number of bytes for Content-Length, found {value!r}")
                self._length = int(value)
            named.add(small)
            kept.append((name.encode("latin-1"), value.encode("latin-1")))
        kept += [(name.encode(), value.encode()) for name, value in self._adding if name not in named]
        self._with_body = self._environ["REQUEST_METHOD"] != "HEAD" and code not in _NO_BODY
        return Head(code, (found[2] or "").encode("latin-1"), tuple(kept))

    def _write(self, piece: bytes) -> None:
        head = self._to_send(piece)
        self._sent += len(piece)
        self._reply.send(head, piece if self._with_body else b"", last=False)

    def _end(self, piece: bytes) -> None:
        """Send what is the whole of the answer, or the end of it."""
        size = self._sent + len(piece)
        if self._with_body and self._length is not None and size < self._length:
            raise Misuse(f"expected {self._length} bytes as Content-Length says, and the application gave {size}")
        head = self._to_send(piece)
        self._sent = size
        if head is not None and self._with_body and self._length is None:
            head = Head(head.code, head.reason, (*head.headers, (b"content-length", b"%d" % len(piece))))
        self._reply.send(head, piece if self._with_body else b"", last=True)

    def _to_send(self, piece: bytes) -> Head | None:
        """The head, when it has not been sent yet."""
        if not isinstance(piece, bytes):
            raise Misuse(f"expected bytes for the body, found {type(piece).__name__}")
        if self._head is None:
            raise Misuse("expected start_response to be called before the body's first byte, and it was not")
        if self._with_body and self._length is not None and self._sent + len(piece) > self._length:
            raise Misuse(f"expected {self._length} bytes as Content-Length says, and the application gave more")
        if self._begun:
            return None
        self._begun = True
        return self._head

    def _fail(self, head: Head, text: bytes) -> None:
        if self._begun:
            self._reply.cut()
            return
        try:
            self._reply.send(head, text, last=True)
        except ClientGoneError:
            return


def _length_of(pieces: Any) -> int | None:
    try:
        return len(pieces)
    except TypeError:
        return None
