"""``twistd farmsync-data``: the data server as a service, from the first lock to the last goodbye."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import serverFromString
from twisted.logger import Logger

from farmsyncd.data.config import DataConfig
from farmsyncd.data.options import Options
from farmsyncd.data.ticking import Ticking
from farmsyncd.data.window import http_side
from farmsyncd.data.wiring import Parts, assemble
from farmsyncd.edges.listening import AddressBook, Listener
from farmsyncd.edges.startup import one_line
from farmsyncd.edges.statelock import StateLock, lock
from farmsyncd.edges.timing.farmclock import FarmClockKeeper

PROGRAM = "farmsync-data"


class DataServer(Service):
    """A data server, put together when it starts and taken apart in order when it stops."""

    _log = Logger()

    def __init__(self, config: DataConfig, state_lock: StateLock, reactor: Any) -> None:
        self._config = config
        self._lock = state_lock
        self._reactor = reactor
        self._parts: Parts | None = None
        self._running = MultiService()

    def privilegedStartService(self) -> None:  # noqa: N802 - IService
        """Read the state and open the ports, or end the process with one clear line."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        with one_line(PROGRAM):
            self._parts = assemble(self._config, self._reactor)
        for service in _services(self._parts, self._reactor):
            service.setServiceParent(self._running)
        self._running.privilegedStartService()

    def startService(self) -> None:  # noqa: N802 - IService
        """Begin to serve."""
        super().startService()  # type: ignore[no-untyped-call]
        assert self._parts is not None
        self._running.startService()
        self._parts.housekeeping.soon()
        self._parts.sources.start()
        self._log.info(
            "Serving {count} datasets, epoch {epoch}",
            count=len(self._parts.keeper.courses), epoch=self._parts.clock.epoch,
        )  # fmt: skip

    def stopService(self) -> Deferred[None]:  # noqa: N802 - IService
        """Say goodbye to all, finish what is being written, and give the state back."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        parts = self._parts
        assert parts is not None
        reading = parts.sources.stop()
        await self._running.stopService()
        links = parts.links.links
        for link in links:
            link.close("the data server is being stopped")
        await DeferredList([link.when_lost() for link in links])
        await parts.housekeeping.idle()
        try:
            await parts.roster.write()
        except Exception:
            self._log.failure("What is known of the nodes could not be written")
        await reading
        for thread in (parts.reading_thread, parts.delta_thread, parts.content_thread, parts.catalog_thread):
            await thread.stop()
        parts.catalog.close()
        self._lock.release()


def _services(parts: Parts, reactor: Any) -> list[Service]:
    config = parts.config
    listeners = {
        "listen": Listener(
            PROGRAM, "the data server", config.listen, serverFromString(reactor, config.listen), parts.links
        )
    }
    if config.http is not None:
        site = http_side(parts).site(reactor)
        endpoint = serverFromString(reactor, config.http)
        listeners["http"] = Listener(PROGRAM, "the HTTP side", config.http, endpoint, site)
    return [
        FarmClockKeeper(parts.clock, parts.steady, parts.catalog_thread.run),
        Ticking("rolling over", 1.0, parts.keeper.roll_over_overdue, parts.steady),
        Ticking("writing down what is known of the nodes", 2.0, parts.roster.write, parts.steady),
        Ticking("forgetting nodes", 3600.0, parts.roster.forget_strangers, parts.steady),
        Ticking("forgetting old cycles", 3600.0, parts.housekeeping.forget_history, parts.steady),
        *listeners.values(),
        AddressBook(config.addresses_file, listeners),
    ]


def makeService(options: Options) -> IService:  # noqa: N802 - IServiceMaker
    """The service that twistd runs."""
    with one_line(PROGRAM):
        state_lock = lock(options.config.state, PROGRAM)
    service = DataServer(options.config, state_lock, the_reactor)
    assert IService.providedBy(service)
    return service
