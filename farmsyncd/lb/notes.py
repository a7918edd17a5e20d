"""What is known of the farm outlives the balancer's process, too: the operator's orders, and where the nodes were last.

A balancer that starts while the data server is away serves the farm as it was; and a node that was drained stays so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import msgspec
from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from farmsyncd.core.eligibility import Order
from farmsyncd.edges.content.durable import write_file
from farmsyncd.errors import LocalError
from farmsyncd.lb.config import NodeAddress
from farmsyncd.lb.dispatcher import Dispatcher
from farmsyncd.lb.farm import Sighting

PERIOD_S = 0.5


@attrs.frozen
class Noted:
    """The file's content. ``nodes`` are those that a data server told of."""

    orders: dict[str, Order]
    nodes: list[NodeAddress]


class Notes(Service):
    """Keeps the file at ``path`` in step with the farm of ``dispatcher`` while it runs.

    Only one of several processes ``writes``; all know the same.
    """

    _log = Logger()

    def __init__(self, path: Path, dispatcher: Dispatcher, reactor: Any, *, writes: bool) -> None:
        self._path = path
        self._dispatcher = dispatcher
        self._writes = writes
        self._written: Noted | None = None
        self._troubled = False
        self._loop = LoopingCall(self._keep)
        self._loop.clock = reactor

    def load(self) -> None:
        """Have the farm be as it was. LocalError when the file is unreadable; one that is damaged is left out."""
        try:
            noted = msgspec.json.decode(self._path.read_bytes(), type=Noted)
        except FileNotFoundError:
            return
        except OSError as error:
            raise LocalError(f"reading {self._path} failed: {error.strerror}; make it readable for this user") from None
        except msgspec.DecodeError as error:
            self._log.warn("{path} is left out: {why}", path=str(self._path), why=str(error))
            return
        sightings = {address.name: Sighting(address) for address in noted.nodes}
        if sightings:
            self._dispatcher.observe(sightings, settled=False)
        for name, order in noted.orders.items():
            self._dispatcher.command(name, order)

    def startService(self) -> None:  # noqa: N802 - IService
        """Begin to keep it."""
        super().startService()  # type: ignore[no-untyped-call]
        if self._writes:
            self._loop.start(PERIOD_S)

    def stopService(self) -> None:  # noqa: N802 - IService
        """Keep it one last time."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._loop.running:
            self._loop.stop()
            self._keep()

    def _keep(self) -> None:
        farm = self._dispatcher.farm
        nodes = [node.address for _, node in sorted(farm.nodes.items()) if not node.fixed]
        now = Noted(dict(sorted(farm.orders.items())), nodes)
        if now == self._written:
            return
        try:
            write_file(self._path, msgspec.json.encode(now) + b"\n", mode=0o600)
        except (OSError, LocalError) as error:
            if not self._troubled:
                self._troubled = True
                self._log.error("what is known of the farm is not written: {why}. It is tried again", why=str(error))
            return
        self._written, self._troubled = now, False
