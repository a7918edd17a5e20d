"""A farm to try sessions in: requests of one shopper run at the same time, and responses come late, in another order,
or never. Everything that is shown and stored is checked against the truth.

The parts that are real: ``Sessions``, ``Exchange``, the cookies, the store. Time, the network and failures are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from farmsyncd.core.session.cookies import presented
from farmsyncd.core.session.faults import SessionConflict, SessionGone, StoreUnavailable
from farmsyncd.core.session.token import Token, read_token
from farmsyncd.sessions.exchange import Exchange
from farmsyncd.sessions.session import Session
from farmsyncd.sessions.settings import CookieSettings
from tests.sessions_scene import Node, Request, Response, Shopper, Surroundings
from tests.sessions_truth import Life, decoded, same

COOKIES = CookieSettings()
_INSTANT_S = 1e-5  # no two things happen at the same time
_PROBED_S = 60.0  # how long after its end an id is looked for


class World(Surroundings):
    """What requests do in the farm, and what must hold."""

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
        self.marked += 1
        if what == "add":
            session[f"item{self.marked}"] = view[f"item{self.marked}"] = self.marked
        elif what == "count":
            session["count"] = session.get("count", 0) + 1
            view["count"] = view.get("count", 0) + 1
        elif what == "nested":
            for one in (session, view):
                one.setdefault("cart", {"lines": []})["lines"].append(self.marked)
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
                assert token.digest in self.issued, "I-12: a client was given an id that is not ours"
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
            if digest in self.checked and self.checked[digest] == expected:
                continue
            row = store.read(digest)
            if expected is None:
                assert row is None, "I-12: an id that ended is still in the database"
            else:
                assert row is not None, "I-10: a session that lives is not in the database"
                assert (row.version, decoded(row.state)) == (life.version, life.state)
            self.checked[digest] = expected
        assert set(self.truth.lives) <= set(self.issued), "I-12: an id that the server did not issue was stored"

    def probe(self) -> None:
        """What each node would show at this moment without asking the database, to each shopper and to anybody."""
        shown = [(presented(one.jar.header(), COOKIES, False).token, one.seen) for one in self.shoppers]
        shown += [
            (self.issued[digest], {})
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
