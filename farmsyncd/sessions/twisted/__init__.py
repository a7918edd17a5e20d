"""Sessions for twisted.web: a ``Site`` that stores them, and ``farmsync_session(request)``, a Deferred of one.

::

    class Cart(Resource):
        isLeaf = True

        def render_POST(self, request):
            ensureDeferred(self.add(request)).addErrback(request.processingFailed)
            return NOT_DONE_YET

        async def add(self, request):
            session = await farmsync_session(request)
            session["count"] = session.get("count", 0) + 1
            request.write(b"%d in your cart" % session["count"])
            request.finish()

    site = SessionSite(root, Sessions.at("postgresql://..."))

The Deferred has fired already for a session that this node knows; otherwise the database is asked in a thread. The
reactor never waits for it. The session is stored between the request's first ``write`` (or ``finish``) and the first
byte that leaves; what is written meanwhile is kept, and producers are paused. When it cannot be stored, the whole
response is another one: 409 when another request changed the same key, 503 when the database is away. A response code
of 500 and above leaves the session as it was.

Twisted's own ``request.getSession()`` is another session, and works as ever. ``session.commit()``, ``reload()`` and
``change()`` ask the database at once: call them in a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.web.iweb import IRequest
from twisted.web.server import Site

from farmsyncd.sessions.engine import Sessions
from farmsyncd.sessions.session import Session
from farmsyncd.sessions.settings import CookieSettings
from farmsyncd.sessions.twisted.request import SessionRequest

__all__ = ["SessionRequest", "SessionSite", "farmsync_session"]

_T = TypeVar("_T")


def farmsync_session(request: IRequest) -> Deferred[Session]:
    """The session of a request of a :class:`SessionSite`; fails with StoreUnavailable when the database is away."""
    if not isinstance(request, SessionRequest):
        raise TypeError(
            f"expected a request of a SessionSite, found {request!r}; "
            "serve the resource by farmsyncd.sessions.twisted.SessionSite"
        )
    return request.open_session()


class SessionSite(Site):
    """A Site whose requests have farmsync's sessions.

    ``in_thread`` calls a function that blocks, and returns a Deferred of its result; by default it uses the reactor's
    thread pool. A ``requestFactory`` must be a subclass of :class:`SessionRequest`.
    """

    def __init__(
        self,
        resource: Any,
        sessions: Sessions,
        *args: Any,
        cookies: CookieSettings | None = None,
        in_thread: Callable[[Callable[[], Any]], Deferred[Any]] | None = None,
        requestFactory: Callable[..., SessionRequest] | None = None,  # noqa: N803  # as Site calls it
        **kwargs: Any,
    ) -> None:
        make = partial(
            SessionRequest if requestFactory is None else requestFactory,
            sessions=sessions,
            cookies=CookieSettings() if cookies is None else cookies,
            in_thread=self._in_pool if in_thread is None else in_thread,
        )
        Site.__init__(self, resource, make, *args, **kwargs)

    def _in_pool(self, function: Callable[[], _T]) -> Deferred[_T]:
        reactor: Any = self.reactor
        return deferToThreadPool(reactor, reactor.getThreadPool(), function)
