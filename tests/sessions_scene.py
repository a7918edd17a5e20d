"""What there is in the farm of tests/sessions_world.py: nodes with clocks of their own, shoppers, what is between them,
and time.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs

from farmsyncd.core.session.token import Token, new_id
from farmsyncd.sessions.engine import Sessions
from farmsyncd.sessions.exchange import Exchange
from farmsyncd.sessions.settings import SessionSettings
from farmsyncd.sessions.stores.base import Store
from tests.browser import Browser
from tests.sessions_reach import Reach
from tests.sessions_truth import Doing, Truth

LATEST_S = 600.0  # a response that is longer on its way does not arrive


@attrs.define(eq=False)
class Node:
    """One process of the farm. Its clock began at ``zero_s`` and gains ``rate`` seconds a second."""

    reach: Reach
    zero_s: float
    rate: float
    sessions: Sessions


@attrs.define(eq=False)
class Shopper:
    """A browser, and for each id the highest version that a response has shown it."""

    jar: Browser = attrs.Factory(Browser)
    seen: dict[bytes, int] = attrs.Factory(dict)


@attrs.define(eq=False)
class Request:
    """A request that runs. ``floors`` is what its shopper had seen when it was sent; None for what nobody sent."""

    shopper: Shopper | None
    node: Node
    exchange: Exchange
    floors: dict[bytes, int]
    sent_s: float
    doing: Doing = attrs.Factory(Doing)
    opened: bool = False
    asked: int = 0
    failed: bool = False


@attrs.define(eq=False)
class Response:
    """What is on its way to a shopper. ``shown`` is the id and version that it shows; ``stored_s`` is when that was."""

    shopper: Shopper
    lines: list[str]
    shown: tuple[bytes, int] | None
    stored_s: float


class Surroundings:
    """The farm, its shoppers, and what is between them. ``counts`` says how often it came to what."""

    def __init__(
        self,
        stores: Callable[[], Store],
        set_clock: Callable[[float], None],
        settings: SessionSettings,
        *,
        exact: bool,
        counts: Counter[str],
    ) -> None:
        self.now_s = 1000.0
        self.counts = counts
        self.settings = settings
        self.exact = exact
        self.truth = Truth(settings.idle_s, settings.absolute_s)
        self.nodes: list[Node] = []
        self.shoppers = [Shopper(), Shopper()]
        self.requests: list[Request] = []
        self.responses: list[Response] = []
        self.headers: list[str] = []
        self.news: list[tuple[Node, bytes]] = []
        self.interruption: tuple[str, Callable[[], None]] | None = None
        self._stores = stores
        self._set_clock = set_clock
        self._acting: list[Request] = []
        self.issued: dict[bytes, Token] = {}
        self.checked: dict[bytes, int | None] = {}
        self.marked = 0
        self._set_clock(self.now_s)

    # -- the farm -------------------------------------------------------------------------------------------------

    def add_node(self, zero_s: float, rate: float) -> Node:
        reach = Reach(self, self._stores(), self.exact)
        node = Node(reach, zero_s, rate, None)  # type: ignore[arg-type]
        self.begin(node)
        self.nodes.append(node)
        return node

    def begin(self, node: Node) -> None:
        """Start the node's process, with no copies."""

        def clock() -> float:
            return node.zero_s + node.rate * self.now_s

        node.sessions = Sessions(
            node.reach, self.settings, clock=clock, entropy=self._entropy, pause=lambda _seconds: None
        )

    def die(self, node: Node) -> None:
        """The process ends, with all requests that it was at; it is started anew."""
        self.requests = [one for one in self.requests if one.node is not node]
        self.news = [one for one in self.news if one[0] is not node]
        node.reach.ended = None
        node.zero_s += 12345
        self.begin(node)
        self.counts["node died"] += 1

    def tell(self, digest: bytes) -> None:
        """News of an end is on its way to each node that listens."""
        self.news += [(node, digest) for node in self.nodes if node.reach.ended is not None]

    def hear(self, index: int, lost: bool) -> None:
        """One piece of news arrives, or is lost."""
        node, digest = self.news.pop(index)
        if not lost and node.reach.ended is not None:
            node.reach.ended(digest)

    def passes(self, seconds: float) -> None:
        self.now_s += seconds
        self._set_clock(self.now_s)
        for shopper in self.shoppers:
            shopper.jar.later(seconds)
        self.responses = [one for one in self.responses if self.now_s - one.stored_s < LATEST_S]

    def interrupted(self, when: str) -> None:
        """In the middle of a use of the database, something else happens, once."""
        if self.interruption is not None and self.interruption[0] == when:
            happens = self.interruption[1]
            self.interruption = None
            self.counts[f"something else happened {when} the database was asked"] += 1
            happens()

    def at_rest(self) -> list[Node]:
        """The nodes that wait for no answer of the database: within a node, requests of one session take turns."""
        busy = [one.node for one in self._acting]
        return [node for node in self.nodes if node not in busy]

    @property
    def acting(self) -> Request:
        return self._acting[-1]

    @contextmanager
    def by(self, request: Request) -> Iterator[None]:
        """What is written now is this request's doing."""
        self._acting.append(request)
        try:
            yield
        finally:
            self._acting.pop()

    def _entropy(self, size: int) -> bytes:
        raw = hashlib.sha256(b"%d" % len(self.issued)).digest()
        assert size == len(raw)
        token = Token(new_id(raw), 1)
        self.issued[token.digest] = token
        return raw
