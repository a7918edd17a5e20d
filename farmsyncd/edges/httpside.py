"""A daemon's HTTP side: ``/status``, ``/metrics``, ``/ready``, and whatever else the daemon serves.

It reads and never changes anything: only GET and HEAD are answered, and a request's body goes nowhere. Other methods
are for the application that a node may serve beside.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Site
from twisted.web.server import Request as ServedRequest

from farmsyncd.errors import FarmsyncError

Answer = tuple[int, bytes]
"""A status and a body."""
T = TypeVar("T")

_READS = frozenset({b"GET", b"HEAD"})
_TEXT = b"text/plain; charset=utf-8"
_JSON = b"application/json"
_PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"
_IDLE_S = 60.0


class Page(Resource):
    """One answer of a daemon's own, made anew for each request."""

    isLeaf = True  # noqa: N815 - twisted.web's name

    def __init__(self, content_type: bytes, answer: Callable[[], Answer | Deferred[Answer]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._content_type = content_type
        self._answer = answer

    def render(self, request: Request) -> bytes | int:
        """Answer any method; :class:`HttpSide` lets only those through that read."""
        answer = self._answer()
        if not isinstance(answer, Deferred):
            return self._told(request, answer)
        ended: list[object] = []
        request.notifyFinish().addBoth(ended.append)
        answer.addErrback(_unavailable)
        answer.addCallback(lambda found: None if ended else self._finish(request, found))
        return NOT_DONE_YET

    def _finish(self, request: Request, answer: Answer) -> None:
        request.write(self._told(request, answer))
        request.finish()

    def _told(self, request: Request, answer: Answer) -> bytes:
        code, body = answer
        request.setResponseCode(code)
        request.setHeader(b"content-type", self._content_type)
        request.setHeader(b"content-length", b"%d" % len(body))
        request.setHeader(b"cache-control", b"no-store")
        request.setHeader(b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
        if request.method == b"HEAD":
            request.write(b"")
            return b""
        return body


def plain(code: int, text: str) -> Page:
    """A page of plain text, for errors that people read."""
    return Page(_TEXT, lambda: (code, f"{text}\n".encode()))


class HttpSide(Resource):
    """The root of a daemon's HTTP side.

    ``status`` gives what ``/status`` shows as JSON, ``metrics`` the text of ``/metrics`` in Prometheus's format, and
    ``ready`` whether the daemon is of use, with the reason (``/ready``: 200 or 503). Every other path is for
    ``others``, or not found. These three names shadow only the exact paths. Each of the three may give a Deferred.
    """

    def __init__(
        self,
        status: Callable[[], Mapping[str, object] | Deferred[Mapping[str, object]]],
        metrics: Callable[[], str | Deferred[str]],
        ready: Callable[[], tuple[bool, str] | Deferred[tuple[bool, str]]],
        others: IResource | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._others = others
        self._pages = {
            b"status": Page(_JSON, lambda: _of(status(), lambda told: (200, msgspec.json.encode(told) + b"\n"))),
            b"metrics": Page(_PROMETHEUS, lambda: _of(metrics(), lambda text: (200, text.encode()))),
            b"ready": Page(_TEXT, lambda: _of(ready(), lambda told: _readiness(*told))),
        }

    def getChild(self, path: bytes, request: ServedRequest) -> IResource:  # noqa: N802 - twisted.web's name
        """The resource for the first part of a path."""
        if path in self._pages and not request.postpath:
            return self._pages[path]
        if self._others is not None:
            return self._others
        return plain(404, "There is nothing here; try /status, /metrics or /ready.")

    def site(self, reactor: IReactorTime) -> Site:
        """The factory to listen with; ``reactor`` ends connections that idle."""
        return SideSite(self, reactor)


def _readiness(good: bool, reason: str) -> Answer:
    return (200 if good else 503), f"{reason}\n".encode()


def _unavailable(failure: Failure) -> Answer:
    if failure.check(FarmsyncError) is None:
        Logger().failure("cannot answer over HTTP", failure)
    return 503, b"This cannot be told at the moment.\n"


def _of(found: T | Deferred[T], answer: Callable[[T], Answer]) -> Answer | Deferred[Answer]:
    """The answer made of ``found``, now or when it is there."""
    return found.addCallback(answer) if isinstance(found, Deferred) else answer(found)


class _Nowhere(io.BytesIO):
    """The body of a request: nobody reads it, so it is not kept."""

    def write(self, data: object, /) -> int:
        return len(data) if isinstance(data, bytes) else 0


class SideSite(Site):
    """A site that says no more about itself than it must, and writes no line per request.

    It only reads: other methods reach nothing but resources with a true attribute ``takes_all_methods``.
    """

    noisy = False

    def __init__(self, root: HttpSide, reactor: IReactorTime, requests: type[ServedRequest] = ServedRequest) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            root, requests, timeout=_IDLE_S, reactor=reactor, parsePOSTFormSubmission=False
        )

    def getContentFile(self, length: int | None) -> io.BytesIO:  # noqa: ARG002, N802 - twisted.web's name
        """Where a request's body goes."""
        return _Nowhere()

    def getResourceFor(self, request: Request) -> IResource:  # noqa: N802 - twisted.web's name
        """What answers ``request``."""
        request.setHeader(b"server", b"farmsync")
        request.setHeader(b"x-content-type-options", b"nosniff")
        found: IResource = super().getResourceFor(request)  # type: ignore[no-untyped-call]
        if request.method not in _READS and not getattr(found, "takes_all_methods", False):
            request.setHeader(b"allow", b"GET, HEAD")
            return plain(405, "This side only reads: use GET or HEAD.")
        return found

    def log(self, request: Request) -> None:
        """Nothing: the log has one line for each change of state, and a request changes none."""
