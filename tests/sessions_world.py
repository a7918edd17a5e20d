"""A farm to try sessions in: nodes with clocks of their own over one database, shoppers whose requests run at the same
time, and responses that come late, in another order, or never. Everything that happens is checked against the truth.

The parts that are real: ``Sessions``, ``Exchange``, the cookies, the store. Time, the network and failures are not.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from farmsyncd.core.session.cookies import presented
from farmsyncd.core.session.faults import SessionConflict, SessionGone, StoreUnavailable
from farmsyncd.core.session.token import Token, new_id, read_token
from farmsyncd.sessions.engine import Sessions
from farmsyncd.sessions.exchange import Exchange
from farmsyncd.sessions.session import Session
from farmsyncd.sessions.settings import CookieSettings, SessionSettings
from farmsyncd.sessions.stores.base import Lifetime, Row, Same, Store, Written
from tests.browser import Browser
from tests.sessions_truth import Doing, Life, Truth, decoded, same

if TYPE_CHECKING:
    from collections.abc import Iterator

LATEST_S = 600.0  # a response that is longer on its way does not arrive
COOKIES = CookieSettings()
_INSTANT_S = 1e-5  # no two things happen at the same time
_PROBED_S = 60.0  # how long after its end an id is looked for


class Reach:
    """A node's way to the database: tells the truth of each write, and fails and tarries when the test wants it to.

    ``away``: nothing is reached. ``lose``: so many of the next writes are done, and their answers lost.
    """

    def __init__(self, world: World, store: Store, exact: bool) -> None:
        self._world = world
        self.store = store
        self._exact = exact
        self.away = False
        self.lose = 0
        self.ended: Callable[[bytes | None], None] | None = None

    def prepare(self) -> None:
        self.store.prepare()

    def create(self, digest: bytes, state: bytes, life: Lifetime) -> Written:
        self._begin()
        written = self.store.create(digest, state, life)
        self._world.truth.created(self._world.acting.doing, digest, state, self._world.now_s)
        self._end(True)
        return written

    def read(self, digest: bytes) -> Row | None:
        self._begin()
        answer = self.store.read(digest)
        self._expect(digest, answer)
        self._end(False)
        return answer

    def revalidate(self, digest: bytes, version: int) -> Row | Same | None:
        self._begin()
        answer = self.store.revalidate(digest, version)
        if isinstance(answer, Same):
            life = self._world.truth.living(digest, self._world.now_s)
            assert life is not None
            assert life.version == version
        else:
            self._expect(digest, answer)
        self._end(False)
        return answer

    def write(self, digest: bytes, version: int, state: bytes, life: Lifetime) -> Written | Row | None:
        self._begin()
        answer = self.store.write(digest, version, state, life)
        if isinstance(answer, Written):
            self._world.truth.written(self._world.acting.doing, digest, answer.version, state, self._world.now_s)
        else:
            self._expect(digest, answer)
        self._end(isinstance(answer, Written))
        return answer

    def rotate(self, old: bytes, version: int, new: bytes, state: bytes, life: Lifetime) -> Written | Row | None:
        self._begin()
        answer = self.store.rotate(old, version, new, state, life)
        if isinstance(answer, Written):
            self._world.truth.rotated(self._world.acting.doing, old, new, answer.version, state, self._world.now_s)
            self._world.tell(old)
        else:
            self._expect(old, answer)
        self._end(isinstance(answer, Written))
        return answer

    def delete(self, digest: bytes) -> bool:
        self._begin()
        there = self.store.delete(digest)
        assert there == (self._world.truth.living(digest, self._world.now_s) is not None)
        self._world.truth.deleted(self._world.acting.doing, digest, self._world.now_s)
        if there:
            self._world.tell(digest)
        self._end(there)
        return there

    def sweep(self, limit: int) -> int | None:
        return self.store.sweep(limit)

    def find(self, prefix: bytes, limit: int) -> Any:
        return self.store.find(prefix, limit)

    def stats(self) -> Any:
        return self.store.stats()

    def generation(self) -> int | None:
        return self.store.generation() if self._exact and not self.away else None

    def listen(self, ended: Callable[[bytes | None], None]) -> None:
        self.ended = ended

    def close(self) -> None:
        pass

    def _begin(self) -> None:
        self._world.acting.asked += 1
        self._world.interrupted("before")
        if self.away:
            self._world.acting.failed = True
            raise StoreUnavailable("the test has taken the database away")

    def _end(self, wrote: bool) -> None:
        self._world.interrupted("after")
        if self.lose and wrote:
            self.lose -= 1
            self._world.acting.failed = True
            self._world.counts["write done, answer lost"] += 1
            raise StoreUnavailable("the test has lost the answer")

    def _expect(self, digest: bytes, row: Row | None) -> None:
        life = self._world.truth.living(digest, self._world.now_s)
        if row is None:
            assert life is None, "the database does not find a session that lives"
        else:
            assert life is not None, "the database finds a session that has ended"
            assert (row.version, decoded(row.state)) == (life.version, life.state)


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


class World:
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
        self._issued: dict[bytes, Token] = {}
        self._checked: dict[bytes, int | None] = {}
        self._marked = 0
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
        raw = hashlib.sha256(b"%d" % len(self._issued)).digest()
        assert size == len(raw)
        token = Token(new_id(raw), 1)
        self._issued[token.digest] = token
        return raw

    # -- requests -------------------------------------------------------------------------------------------------

    def send(self, shopper: Shopper, node: Node) -> Request:
        """A shopper sends a request: it presents what it knows now."""
        header = shopper.jar.header()
        if header is not None and header not in self.headers:
            self.headers.append(header)
        if any(one.shopper is shopper for one in self.requests):
            self.counts["requests of one shopper at the same time"] += 1
        return self._arrive(shopper, node, header, dict(shopper.seen))

    def present(self, node: Node, header: str | None) -> Request:
        """A request arrives with cookies from anywhere: replayed, or made up."""
        return self._arrive(None, node, header, {})

    def _arrive(self, shopper: Shopper | None, node: Node, header: str | None, floors: dict[bytes, int]) -> Request:
        exchange = Exchange(node.sessions, COOKIES, header, False)
        request = Request(shopper, node, exchange, floors, self.now_s)
        self.requests.append(request)
        return request

    def look(self, request: Request) -> bool:
        """The application looks at its session: False when it could not, and its request is over."""
        if request.opened:
            return True
        self.passes(_INSTANT_S)
        token = request.exchange.presented.token
        begun_s = self.now_s
        living_before = token is not None and self.truth.living(token.digest, begun_s) is not None
        asked_before = request.asked
        try:
            with self.by(request):
                session = request.exchange.open()
        except StoreUnavailable as error:
            assert request.failed, "the database was said to be away, and it was not"
            self.refused(request, error)
            return False
        request.opened = True
        asked = request.asked - asked_before
        assert asked <= 1, "opening a session took more than one question to the database"
        if session.row is None:
            if token is not None:
                lives = living_before and self.truth.living(token.digest, self.now_s) is not None
                assert not lives, "I-11: a session that lives was not shown"
                self.counts["ended or unknown id presented"] += 1
            return True
        assert token is not None
        assert session.digest == token.digest.hex(), "I-12: another session was shown than was presented"
        life = self.truth.lives.get(token.digest)
        assert life is not None, "I-12: an id that was not stored was adopted"
        self._check_shown(request.node, request.floors, life, session.version, begun_s, asked=bool(asked))
        request.doing.shows(life.states[session.version])
        self.check_view(request)
        return True

    def _check_shown(
        self, node: Node, floors: dict[bytes, int], life: Life, version: int, begun_s: float, *, asked: bool
    ) -> None:
        floor = floors.get(life.digest, 0)
        assert version >= floor, f"I-11: version {version} was shown to one who has seen version {floor}"
        trusted_s = 0.0 if self.exact or asked else self.settings.revalidate_after_s / node.rate
        if life.ended_s is not None:
            assert begun_s - life.ended_s <= trusted_s, (
                f"I-12: an id was opened {begun_s - life.ended_s} s after its end"
            )
            self.counts[f"copy of a {life.why} session shown"] += 1
        assert begun_s - life.expires_s <= 0.01, "a session was shown after it had expired"
        if version < life.version:
            stale_s = begun_s - life.since_s[version + 1]
            assert stale_s <= trusted_s, f"I-11: a copy was shown {stale_s} s after it had been replaced"
            if stale_s > 0:
                self.counts["older copy shown to one who may not know"] += 1
        if floor == version > 1 and not asked:
            self.counts["copy shown to one who has seen it"] += 1
        if asked and floor == version:
            self.counts["database asked for what the client has seen"] += 1

    def check_view(self, request: Request) -> None:
        """The application sees the state that it should, with what it has done to it."""
        session = request.exchange.session
        assert dict(session) == request.doing.view
        assert all(same(session[key], value) for key, value in request.doing.view.items())

    def do(self, request: Request, what: str) -> None:
        """The application changes its session."""
        session, doing, view = request.exchange.session, request.doing, request.doing.view
        self._marked += 1
        if what == "add":
            session[f"item{self._marked}"] = view[f"item{self._marked}"] = self._marked
        elif what == "count":
            session["count"] = session.get("count", 0) + 1
            view["count"] = view.get("count", 0) + 1
        elif what == "nested":
            for one in (session, view):
                one.setdefault("cart", {"lines": []})["lines"].append(self._marked)
        elif what == "same" and "count" in view:
            session["count"] = session["count"]
        elif what == "remove" and view:
            del session[min(view)], view[min(view)]
        elif what == "clear":
            session.clear()
            view.clear()
        elif what == "rotate":
            session.rotate()
            doing.rotating = True
        elif what == "destroy":
            doing.ending = doing.ending if session.row is None else session.row.digest
            doing.rotating = False
            session.destroy()
            doing.shows({})
        self.check_view(request)

    def change(self, request: Request) -> bool:
        """The application lets a change be repeated until it is stored."""

        def count(session: Session) -> None:
            if session.row is not None:
                request.doing.shows(self.truth.lives[session.row.digest].states[session.version])
            self.do(request, "count")

        return self._store(request, lambda: request.exchange.session.change(count))

    def reload(self, request: Request) -> bool:
        """The application wants to know what the session is now."""
        session, begun_s = request.exchange.session, self.now_s
        before = session.token or session.ending
        try:
            with self.by(request):
                session.reload()
        except StoreUnavailable as error:
            assert request.failed
            self.refused(request, error)
            return False
        request.doing.ending = None
        if before is None or session.row is None:
            assert before is None or self.truth.living(before.digest, self.now_s) is None
            request.doing.shows({})
            return True
        life = self.truth.lives[before.digest]
        assert session.version >= before.version, "I-11: a session went backwards when it was read again"
        self._check_shown(request.node, request.floors, life, session.version, begun_s, asked=True)
        request.doing.shows(life.states[session.version])
        self.check_view(request)
        return True

    def commit(self, request: Request) -> bool:
        """The application stores what it has done so far; False when that fails, and its request is over."""
        return self._store(request, request.exchange.session.commit)

    def finish(self, request: Request, status: int = 200) -> None:
        """The application has answered; the response goes on its way."""
        lines: list[str] = []
        unstored = request.doing.unstored()

        def finish() -> None:
            lines.extend(request.exchange.finish(status))

        if not self._store(request, finish, stores=status < 500):
            return
        assert status >= 500 or not request.doing.unstored(), "I-10: a change was answered, and not stored"
        self.counts["change answered" if unstored else "answered"] += 1
        self._respond(request, lines)

    def _store(self, request: Request, act: Callable[[], None], stores: bool = True) -> bool:
        self.passes(_INSTANT_S)
        doing = request.doing
        base, changes, life = dict(doing.base), doing.changes(), self._life(request)
        wrote = len(doing.wrote)
        try:
            with self.by(request):
                act()
        except StoreUnavailable as error:
            assert request.failed, "the database was said to be away, and it was not"
            self.counts["could not be stored"] += 1
            self.refused(request, error)
        except SessionConflict as conflict:
            assert life is not None
            assert len(doing.wrote) == wrote
            same_still = same(life.state.get(conflict.key), base.get(conflict.key))
            assert not same_still, "a conflict with nobody"
            self.counts["conflict"] += 1
            self.refused(request, conflict)
        except SessionGone as error:
            assert life is not None
            assert not life.lives(self.now_s), "a session that lives was said to be gone"
            self.counts["gone"] += 1
            self.refused(request, error)
        else:
            if stores and len(doing.wrote) > wrote and changes and doing.wrote[-1] > 1:
                version = request.exchange.session.version
                token = request.exchange.presented.token
                if token is not None and version > token.version + len(doing.wrote):
                    self.counts["merged"] += 1
            return True
        return False

    def _life(self, request: Request) -> Life | None:
        row = request.exchange.session.row
        return None if row is None else self.truth.lives.get(row.digest)

    def refused(self, request: Request, error: Any) -> None:
        """An error is answered in place of what the application said."""
        _status, headers, _body = request.exchange.answer(error)
        self._respond(request, [value for name, value in headers if name == "Set-Cookie"])

    def _respond(self, request: Request, lines: list[str]) -> None:
        if request in self.requests:
            self.requests.remove(request)
        self._check_lines(lines)
        shown, stored_s = None, self.now_s
        session = request.exchange.session
        if request.opened and session.row is not None:
            shown = (session.row.digest, session.row.version)
            stored_s = (
                self.truth.lives[shown[0]].since_s[shown[1]] if session.row.version in request.doing.wrote else stored_s
            )
        if request.shopper is not None:
            self.responses.append(Response(request.shopper, lines, shown, stored_s))

    def _check_lines(self, lines: list[str]) -> None:
        for line in lines:
            name, _, rest = line.partition("=")
            value = rest.partition(";")[0]
            if name == COOKIES.name and value:
                token = read_token(value)
                assert token is not None, "a cookie was set that cannot be read"
                assert token.digest in self._issued, "I-12: a client was given an id that is not ours"
            if name != COOKIES.name and value:
                self.counts["marker set"] += 1

    def arrives(self, index: int) -> None:
        """A response reaches its shopper."""
        response = self.responses.pop(index)
        if any(one.stored_s < response.stored_s for one in self.responses if one.shopper is response.shopper):
            self.counts["response overtaken by a later one"] += 1
        shopper = response.shopper
        shopper.jar.receive(response.lines)
        assert not shopper.jar.refused, shopper.jar.refused
        if response.shown is not None:
            digest, version = response.shown
            if version < shopper.seen.get(digest, 0):
                self.counts["response arrived that shows less than was seen"] += 1
            shopper.seen[digest] = max(version, shopper.seen.get(digest, 0))

    def check(self) -> None:
        """Every row that may have changed is what the truth says; nothing that ended is there."""
        store = self.nodes[0].reach.store
        for digest, life in self.truth.lives.items():
            expected = life.version if life.lives(self.now_s) else None
            if digest in self._checked and self._checked[digest] == expected:
                continue
            row = store.read(digest)
            if expected is None:
                assert row is None, "I-12: an id that ended is still in the database"
            else:
                assert row is not None, "I-10: a session that lives is not in the database"
                assert (row.version, decoded(row.state)) == (life.version, life.state)
            self._checked[digest] = expected
        assert set(self.truth.lives) <= set(self._issued), "I-12: an id that the server did not issue was stored"

    def probe(self) -> None:
        """What each node would show at this moment without asking the database, to each shopper and to anybody."""
        shown = [(presented(one.jar.header(), COOKIES, False).token, one.seen) for one in self.shoppers]
        shown += [
            (self._issued[digest], {})
            for digest, life in self.truth.lives.items()
            if self.now_s - life.ends_s < _PROBED_S
        ]
        for node in self.nodes:
            for token, seen in shown:
                if token is not None:
                    self._check_copy(node, token, seen)

    def _check_copy(self, node: Node, token: Token, floors: dict[bytes, int]) -> None:
        found = node.sessions.find_cached(token)
        if found is not None and found[1] is not None:
            life = self.truth.lives[token.digest]
            self._check_shown(node, floors, life, found[1].version, self.now_s, asked=False)
