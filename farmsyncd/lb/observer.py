"""What the data server knows of the farm: which nodes there are, where they serve, and what each has active.

The observer is an operator who only asks. While the data server is away, the farm stays as it was known last: that a
node serves does not depend on the data server. When it is back it may have been started anew, and must see its nodes
again first: for a while nobody is forgotten, and nobody counts as not seen.
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

from farmsyncd.core.eligibility import Activation, missed
from farmsyncd.core.messages import Message, Side
from farmsyncd.core.messages.greeting import PROTOCOL, Hello, No
from farmsyncd.core.messages.operating import Answer, Status
from farmsyncd.edges.link import Link, reconnecting
from farmsyncd.edges.settings import HOST_PORT
from farmsyncd.errors import PeerError
from farmsyncd.lb.config import NodeAddress
from farmsyncd.lb.dispatcher import Dispatcher
from farmsyncd.lb.farm import Sighting

PERIOD_S = 1.0
_RECENT_NS = 600 * 10**9  # a node that the data server saw within this time may well serve


class Observer(MultiService):
    """Asks the data server at ``endpoint`` each second, and tells ``dispatcher``. ``random`` jitters reconnecting.

    A node that missed an activation is stale after ``stale_after_ns``; ``settle_ns`` is how long a data server that is
    back may take to see its nodes again.
    """

    _log = Logger()

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        dispatcher: Dispatcher,
        me: Hello,
        reactor: Any,
        random: Callable[[], float],
        *,
        stale_after_ns: int,
        settle_ns: int,
        now_ns: Callable[[], int],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.connected = False
        """Whether the data server is there."""
        self._dispatcher = dispatcher
        self._stale_after_ns = stale_after_ns
        self._settle_ns = settle_ns
        self._now_ns = now_ns
        self._settled_ns: int | None = None  # None before the data server first came
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
        self._settled_ns = self._now_ns() + (0 if self._settled_ns is None else self._settle_ns)
        self._log.info("the data server {name} tells of the farm", name=hello.name)
        if not self._loop.running:
            self._loop.start(PERIOD_S)

    def received(self, link: Link, message: Message) -> None:  # noqa: ARG002 - Session
        """Its answer."""
        match message:
            case Answer(verb="STATUS"):
                self._asked = False
                settled = self._settled_ns is not None and self._now_ns() >= self._settled_ns
                sightings = read_status(message.json, self._stale_after_ns)
                self._dispatcher.observe(sightings, settled=settled)
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


def read_status(answer: bytes, stale_after_ns: int) -> dict[str, Sighting]:
    """The nodes that serve, and how the data server sees them.

    A node is seen when it is connected and has data to serve, of one dataset at least. Raises PeerError when ``answer``
    is not what STATUS is answered with.
    """
    sightings: dict[str, Sighting] = {}
    try:
        status = json.loads(answer)
        farm_ns = status["farm_time_ns"]
        active = {name: _activation(dataset["active"]) for name, dataset in status["datasets"].items()}
        for node in status["nodes"]:
            if node.get("serve"):
                one = _sighting(node, active.get(node["dataset"]), farm_ns, stale_after_ns)
                sightings[one.address.name] = _together(one, sightings.get(one.address.name))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PeerError(f"expected the farm's status with its nodes, and {error!r} stands against it") from None
    return sightings


def _activation(active: dict[str, Any] | None) -> Activation | None:
    return None if active is None else Activation(active["cycle"], active["version"], active["activated_at_ns"])


def _sighting(node: dict[str, Any], active: Activation | None, farm_ns: int, stale_after_ns: int) -> Sighting:
    """What one row says, which is about a node and one dataset."""
    version, cycle, seen_ns = node["active"], node.get("active_cycle"), node["last_seen_ns"]
    serves, connected = version is not None, bool(node.get("connected"))
    late = ""
    if active and connected and missed(active, cycle, version, seen_ns, farm_ns, stale_after_ns):
        late = f"it missed cycle {active.cycle} of {node['dataset']}" + (f" and has {cycle}" if cycle else "")
    address = NodeAddress(node["name"], *HOST_PORT.read(node["serve"]))
    return Sighting(address, connected and serves, serves and farm_ns - seen_ns < _RECENT_NS, late)


def _together(one: Sighting, other: Sighting | None) -> Sighting:
    """What two rows say of a node that follows several datasets."""
    if other is None:
        return one
    return Sighting(one.address, one.seen or other.seen, one.recent or other.recent, one.missed or other.missed)
