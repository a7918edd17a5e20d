"""The HTTP side of a node with an application: the node's own pages, its data, and the application for the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import IO, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.http import Request
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.server import Request as ServedRequest

from farmsyncd.edges.httpside import HttpSide, SideSite
from farmsyncd.node.application.receiving import BodyRequest

_BUSY = b"This node has as many requests in work as it takes; try again in a moment.\n"


class ApplicationResource(Resource):
    """Hands a request to the application; ``begin`` says False when there is no room for another one."""

    isLeaf = True  # noqa: N815 - twisted.web's name
    takes_all_methods = True

    def __init__(self, begin: Callable[[BodyRequest], bool]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._begin = begin

    def render(self, request: Request) -> int | bytes:
        """Answer any method."""
        assert isinstance(request, BodyRequest)
        if self._begin(request):
            return NOT_DONE_YET
        request.setResponseCode(503)
        request.responseHeaders.setRawHeaders(b"content-type", [b"text/plain; charset=utf-8"])
        request.responseHeaders.setRawHeaders(b"retry-after", [b"1"])
        return _BUSY


class ApplicationSide(HttpSide):
    """``status``, ``metrics`` and ``ready`` are as in HttpSide. ``data`` answers for whatever ``is_dataset`` names."""

    def __init__(
        self,
        status: Callable[[], Mapping[str, object]],
        metrics: Callable[[], str],
        ready: Callable[[], tuple[bool, str]],
        data: IResource,
        application: ApplicationResource,
        is_dataset: Callable[[str], bool],
    ) -> None:
        super().__init__(status, metrics, ready, data)
        self._data = data
        self._application = application
        self._is_dataset = is_dataset

    def getChild(self, path: bytes, request: ServedRequest) -> IResource:  # noqa: N802 - twisted.web's name
        """The resource for the first part of a path."""
        found = super().getChild(path, request)
        name = path.decode("utf-8", "replace").partition("@")[0]
        return found if found is not self._data or self._is_dataset(name) else self._application


class ApplicationSite(SideSite):
    """Takes requests with bodies, and ends in good order: see :meth:`factory` and :meth:`leave`."""

    def __init__(self, root: HttpSide, reactor: IReactorTime, body_limit: int, body_in_memory: int) -> None:
        super().__init__(root, reactor, BodyRequest)
        self.body_limit = body_limit
        self.body_in_memory = body_in_memory
        self.factory = _Connections(self)
        """What to listen with."""
        self._busy: dict[ProtocolWrapper, Any] = {}
        self._leaving: Deferred[None] | None = None

    def getContentFile(self, length: int | None) -> IO[bytes]:  # type: ignore[override]  # noqa: N802 - twisted.web's name
        """Never asked for: BodyRequest makes its own."""
        raise NotImplementedError

    def began(self, request: ServedRequest) -> None:
        """``request`` is about to be answered: its connection is not idle until that is done."""
        channel: Any = request.channel
        connection = channel.transport
        self._busy[connection] = channel
        if self._leaving is not None:
            request.responseHeaders.setRawHeaders(b"connection", [b"close"])

        def over(_result: object) -> None:
            self._busy.pop(connection, None)
            if self._leaving is not None:
                channel.loseConnection()

        request.notifyFinish().addBoth(over)

    def leave(self) -> Deferred[None]:
        """Close idle connections, and others as soon as they are answered; fires when all are closed."""
        if self._leaving is None:
            self._leaving = Deferred()
        for connection in list(self.factory.protocols):
            if connection not in self._busy:
                connection.loseConnection()
        if not self.factory.protocols:
            return succeed(None)
        return self._leaving

    def abort(self) -> None:
        """Close all connections that are left, at once."""
        for connection in list(self.factory.protocols):
            connection.abortConnection()

    def closed(self) -> None:
        """A connection has been closed."""
        if self._leaving is not None and not self.factory.protocols and not self._leaving.called:
            self._leaving.callback(None)


class _Connections(WrappingFactory[ProtocolWrapper]):
    """All connections of a site."""

    noisy = False

    def __init__(self, site: ApplicationSite) -> None:
        super().__init__(site)  # type: ignore[no-untyped-call]
        self._site = site

    def unregisterProtocol(self, p: IProtocol) -> None:  # noqa: N802 - WrappingFactory's name
        """One of them is closed."""
        super().unregisterProtocol(p)  # type: ignore[no-untyped-call]
        self._site.closed()
