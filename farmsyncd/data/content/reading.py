"""All periodic datasets of a data server, each with its source."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from farmsyncd.data.changes import Change
from farmsyncd.data.config import DataConfig
from farmsyncd.data.content.periodic import Periodic, WallTime
from farmsyncd.data.content.publication import Publications
from farmsyncd.data.content.sources import source_of
from farmsyncd.data.keeper import Keeper
from farmsyncd.edges.webclient import web_client
from farmsyncd.edges.workthread import WorkThread


class Sources:
    """Reads what ``config`` says in ``thread``; ``clock`` is for timeouts and retries.

    Each command is waited for in a thread of its own, of ``make_thread``: others' sources do not wait for it.
    ``faults`` names the datasets whose source cannot be read, and why, for as long as that is so.
    """

    def __init__(
        self,
        config: DataConfig,
        publications: Publications,
        keeper: Keeper,
        time: WallTime,
        thread: WorkThread,
        reactor: Any,
        clock: IReactorTime,
        make_thread: Callable[[str, Any], WorkThread],
        faults: dict[str, str],
    ) -> None:
        self._stopping = threading.Event()
        work = config.state / "sources"
        self._all: list[Periodic] = []
        self._threads: list[WorkThread] = []
        for name, one in sorted(config.dataset.items()):
            own = thread
            if one.command:
                own = make_thread(f"command-{name}", reactor)
                self._threads.append(own)
            source = source_of(one, work / name, own, web_client(reactor), clock, self._stopping)
            lead_ns, cache = config.now_lead_ns, work / f"{name}.cache"
            self._all.append(Periodic(name, one, source, keeper, publications, time, lead_ns, clock, cache, faults))

    def start(self) -> None:
        """Begin."""
        for one in self._all:
            one.start()

    def stop(self) -> Deferred[list[tuple[bool, None]]]:
        """End; what is being read is given up. Fires when no command runs any more."""
        self._stopping.set()
        for one in self._all:
            one.stop()
        return DeferredList([thread.stop() for thread in self._threads])

    def changed(self, change: Change) -> None:
        """A course has changed."""
        for one in self._all:
            one.changed(change)
