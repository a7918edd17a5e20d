"""The application, its threads and its sessions, from the node's start to its end."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from farmsyncd.edges.startup import one_line
from farmsyncd.edges.workthread import WorkThread
from farmsyncd.node.application.crew import Crew
from farmsyncd.node.application.environ import ErrorLines, environ_of
from farmsyncd.node.application.loading import Application, load
from farmsyncd.node.application.receiving import BodyRequest
from farmsyncd.node.application.records import told_to_the_node
from farmsyncd.node.application.reply import Reply
from farmsyncd.node.application.running import Run
from farmsyncd.node.application.side import ApplicationSite
from farmsyncd.node.application.snapshots import Snapshots
from farmsyncd.node.config import NodeConfig

if TYPE_CHECKING:
    from farmsyncd.node.application.opening import Opened

# The interpreter lets a thread compute for so long while others wait; by itself, for ten times that. A swap's last
# stretch is in the reactor's thread.
_SWITCH_S = 0.0005
_GLANCE_S = 0.02


@attrs.define
class Counts:
    """What has become of requests to the application."""

    requests: int = 0
    refused: int = 0
    failed: int = 0


class ApplicationService(Service):
    """Runs the application that ``config`` names.

    ``datasets`` names those of the node, ``program`` is what messages about a failed start begin with.
    """

    log = Logger()

    def __init__(self, program: str, config: NodeConfig, reactor: Any, datasets: Callable[[], Iterable[str]]) -> None:
        assert config.wsgi is not None
        self.counts = Counts()
        self.opened: Opened | None = None
        self._program = program
        self._name = config.wsgi
        self._config = config
        self._reactor = reactor
        self._application: Application | None = None
        self._snapshots = Snapshots(config.state, datasets)
        self._crew = Crew(config.application.threads, config.application.queue)
        self._site: ApplicationSite | None = None
        self._until_the_end = contextlib.ExitStack()

    @property
    def in_work(self) -> int:
        """How many requests are in work or wait for a thread."""
        return self._crew.jobs

    def startService(self) -> None:  # noqa: N802 - IService
        """Import the application and open its sessions, or end the process with one line and status 78."""
        super().startService()  # type: ignore[no-untyped-call]
        config = self._config
        with one_line(self._program):
            application = load(self._name)
            self._until_the_end.enter_context(told_to_the_node(self._reactor))
            if config.sessions is not None:
                from farmsyncd.node.application.opening import opened  # noqa: PLC0415 - a node without needs none of it

                self.opened = opened(config.sessions, config.session.settings())
                application = self.opened.around(application, config.session.cookies())
        self._application = application
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_S))
        self.log.info("{name} answers with {threads} threads", name=self._name, threads=config.application.threads)

    def serve_at(self, site: ApplicationSite) -> None:
        """Requests come from ``site``, whose connections are ended in good order with this service."""
        self._site = site

    def begin(self, request: BodyRequest) -> bool:
        """Have the application answer ``request``; False when there is no room for another one."""
        self.counts.requests += 1
        if self._application is None or not self._crew.has_room:
            self.counts.refused += 1
            return False
        reply = Reply(request, self._reactor, self._config.application.client_timeout_ns / 1e9)
        body, size = request.take_body()
        environ = environ_of(request, body, ErrorLines(self._app_says), size)
        request.responseHeaders.removeHeader(b"x-content-type-options")
        request.defaultContentType = None
        return self._crew.begin(partial(self._answer, self._application, environ, reply))

    def _answer(self, application: Application, environ: dict[str, Any], reply: Reply) -> None:
        """In a thread of the application's: answer one request."""
        with contextlib.ExitStack() as held:
            held.callback(environ["wsgi.input"].close)
            if reply.gone:
                return
            snapshots = self._snapshots.take(held)
            first = next((snapshots.get(name) for name in self._snapshots.names()), None)
            environ["farmsync.node"] = self._config.name
            environ["farmsync.snapshots"] = snapshots
            environ["farmsync.snapshot"] = first
            adding = [] if first is None else [("x-farmsync-version", first.version)]
            if not Run(application, environ, reply, adding)():
                self.counts.failed += 1
            environ["wsgi.errors"].flush()

    def _app_says(self, line: str) -> None:
        self._reactor.callFromThread(self.log.info, "{name}: {line}", name=self._name, line=line)

    def stopService(self) -> Deferred[None]:  # noqa: N802 - IService
        """Finish what is in work, within the limit; fires when that is done and the sessions are closed."""
        super().stopService()  # type: ignore[no-untyped-call]
        return ensureDeferred(self._end())

    async def _end(self) -> None:
        left_s = self._config.application.stop_limit_ns / 1e9
        leaving = [] if self._site is None else [self._site.leave()]
        while left_s > 0 and (self._crew.jobs or not all(one.called for one in leaving)):
            await deferLater(self._reactor, _GLANCE_S)
            left_s -= _GLANCE_S
        if self._crew.jobs:
            self.log.warn("{count} requests did not end in time, and are cut off", count=self._crew.jobs)
        self._crew.close()
        if self._site is not None:
            self._site.abort()
        self._snapshots.close()
        if self.opened is not None:
            closing = WorkThread("sessions", self._reactor)
            await closing.run(self.opened.close)
            await closing.stop()
        self._until_the_end.close()
