"""What the data server knows of the farm: which nodes there are, where they serve, and whether it sees them.

The observer is an operator who only asks. While the data server is away, the farm stays as it was known last: that a
node serves does not depend on the data server.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from farmsyncd.core.messages import Message, Side
from farmsyncd.core.messages.greeting import PROTOCOL, Hello, No
from farmsyncd.core.messages.operating import Answer, Status
from farmsyncd.edges.link import Link, reconnecting
from farmsyncd.edges.settings import HOST_PORT
from farmsyncd.errors import PeerError
from farmsyncd.lb.config import NodeAddress
from farmsyncd.lb.farm import Farm

PERIOD_S = 1.0


class Observer(MultiService):
    """Asks the data server at ``endpoint`` each second, and tells ``farm``. ``random`` jitters reconnecting."""

    _log = Logger()

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        farm: Farm,
        me: Hello,
        reactor: Any,
        random: Callable[[], float],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.connected = False
        """Whether the data server is there."""
        self._farm = farm
        self._link: Link | None = None
        self._asked = False
        self._loop = LoopingCall(self._ask)
        self._loop.clock = reactor
        connection = reconnecting(endpoint, lambda: Link(self, me, Side.CLIENT, reactor), reactor, random)
        connection.setServiceParent(self)  # type: ignore[no-untyped-call]

    def stopService(self) -> Deferred[None]:  # noqa: N802 - IService
        """Hang up."""
        self._stop_asking()
        return super().stopService()  # type: ignore[no-any-return, no-untyped-call]

    def greeted(self, link: Link, hello: Hello) -> None:
        """The data server is there."""
        self.connected = True
        self._link = link
        self._log.info("the data server {name} tells of the farm", name=hello.name)
        if not self._loop.running:
            self._loop.start(PERIOD_S)

    def received(self, link: Link, message: Message) -> None:  # noqa: ARG002 - Session
        """Its answer."""
        match message:
            case Answer(verb="STATUS"):
                self._asked = False
                present, away = read_status(message.json)
                self._farm.observe(present, away)
            case No():
                self._asked = False
                self._log.warn(
                    "the data server does not tell of the farm: {why}", why=message.why.decode("utf-8", "replace")
                )

    def lost(self, link: Link, reason: str) -> None:  # noqa: ARG002 - Session
        """The data server went: the farm stays as it was known last."""
        if self.connected:
            self._log.warn("the data server is away ({reason}); the farm is as it was known last", reason=reason)
        self.connected = False
        self._stop_asking()

    def _ask(self) -> None:
        if self._link is None or self._asked:
            return
        try:
            self._link.send(Status())
            self._asked = True
        except Exception:  # a LoopingCall that fails once never asks again
            self._log.failure("cannot ask the data server")

    def _stop_asking(self) -> None:
        self._link = None
        self._asked = False
        if self._loop.running:
            self._loop.stop()


def me(name: str, release: str) -> Hello:
    """How a balancer introduces itself."""
    return Hello(PROTOCOL, "operator", name, (f"software=farmsync-lb/{release}",))


def read_status(answer: bytes) -> tuple[dict[str, NodeAddress], set[str]]:
    """The nodes that serve: where those are that may get new sources, and the names of those that may not.

    A node may when the data server sees it and it has data to serve, of one dataset at least. Raises PeerError when
    ``answer`` is not what STATUS is answered with.
    """
    present: dict[str, NodeAddress] = {}
    away: set[str] = set()
    try:
        for node in json.loads(answer)["nodes"]:
            name, serve = node["name"], node.get("serve")
            if not serve:
                continue
            if node.get("connected") and node["active"] is not None:
                present[name] = NodeAddress(name, *HOST_PORT.read(serve))
            else:
                away.add(name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PeerError(f"expected the farm's status with its nodes, and {error!r} stands against it") from None
    return present, away - set(present)
