"""All periodic datasets of a data server, each with its source."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet.interfaces import IReactorTime

from farmsyncd.data.changes import Change
from farmsyncd.data.config import DataConfig
from farmsyncd.data.content.periodic import Periodic
from farmsyncd.data.content.publication import Publications
from farmsyncd.data.content.sources import source_of
from farmsyncd.data.keeper import FarmTime, Keeper
from farmsyncd.edges.webclient import web_client
from farmsyncd.edges.workthread import WorkThread


class Sources:
    """Reads what ``config`` says in ``thread``; ``clock`` is for timeouts and retries."""

    def __init__(
        self,
        config: DataConfig,
        publications: Publications,
        keeper: Keeper,
        time: FarmTime,
        thread: WorkThread,
        reactor: Any,
        clock: IReactorTime,
    ) -> None:
        self._stopping = threading.Event()
        work = config.state / "sources"
        self._all: list[Periodic] = []
        for name, one in sorted(config.dataset.items()):
            source = source_of(one, work / name, thread, web_client(reactor), clock, self._stopping)
            lead_ns, cache = config.now_lead_ns, work / f"{name}.cache"
            self._all.append(Periodic(name, one, source, keeper, publications, time, lead_ns, clock, cache))

    def start(self) -> None:
        """Begin."""
        for one in self._all:
            one.start()

    def stop(self) -> None:
        """End; what is being read is given up."""
        self._stopping.set()
        for one in self._all:
            one.stop()

    def changed(self, change: Change) -> None:
        """A course has changed."""
        for one in self._all:
            one.changed(change)
