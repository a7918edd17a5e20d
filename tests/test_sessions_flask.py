"""Flask's sessions, kept by farmsync: what Flask's documentation says of ``flask.session``, and farmsync's answers."""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import flask
import pytest
from flask.testing import FlaskClient
from markupsafe import Markup
from werkzeug.test import TestResponse

from farmsyncd.errors import ConfigError
from farmsyncd.sessions import SessionClosed, SessionConflict, Sessions, SessionSettings, StoreUnavailable
from farmsyncd.sessions.flask import FarmsyncSession, FarmsyncSessionInterface, FarmsyncSessions
from tests.sessions_memory import MemoryStore

Do = Callable[[], Any]
DAY_S = 86_400


class Site:
    """A Flask application whose pages do what the test says, and a browser."""

    def __init__(self, **config: object) -> None:
        self.store = MemoryStore()
        self.sessions = Sessions(self.store, SessionSettings(sweep_every_s=0))
        self.app = flask.Flask("site")
        self.app.config.update(config)
        FarmsyncSessions(self.app, self.sessions)
        self.pages: dict[str, Do] = {}
        self.app.add_url_rule("/<name>", "page", self._page, methods=["GET", "POST"])
        self.browser = self.app.test_client()

    def _page(self, name: str) -> Any:
        answer = self.pages[name]()
        return "done" if answer is None else answer

    def get(self, page: Do, browser: FlaskClient | None = None, **more: Any) -> TestResponse:
        """Ask for a page that does this."""
        self.pages["page"] = page
        return (browser or self.browser).get("/page", **more)

    def state(self, browser: FlaskClient | None = None) -> dict[str, Any]:
        """The session as the browser's next request sees it."""
        seen: dict[str, Any] = {}
        self.get(lambda: seen.update(flask.session), browser)
        return seen

    def other_process(self) -> Site:
        """The same application in another process of the farm, with the same database."""
        other = Site()
        other.store = MemoryStore(self.store.database)
        other.sessions.close()
        other.sessions = Sessions(other.store, SessionSettings(sweep_every_s=0))
        FarmsyncSessions(other.app, other.sessions)
        return other


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.sessions.close()


def put(**values: object) -> Do:
    return lambda: flask.session.update(values)


def empty() -> None:
    flask.session.clear()


def cookies(response: TestResponse) -> list[str]:
    return response.headers.getlist("Set-Cookie")


def current() -> FarmsyncSession:
    """The session itself, with all that farmsync adds."""
    session = flask.session._get_current_object()  # type: ignore[attr-defined]
    assert isinstance(session, FarmsyncSession)
    return session


def test_what_is_put_in_is_there_at_the_next_request(site: Site) -> None:
    (cookie,) = cookies(site.get(put(cart=["pear"], when=datetime(2026, 1, 2, tzinfo=UTC), pair=(1, 2))))
    assert cookie.startswith("session=")
    assert "; Path=/; HttpOnly; SameSite=Lax" in cookie
    assert "Max-Age" not in cookie
    assert site.state() == {"cart": ["pear"], "when": datetime(2026, 1, 2, tzinfo=UTC), "pair": (1, 2)}
    assert site.state(site.app.test_client()) == {}


def test_changes_inside_values_are_noticed_without_modified(site: Site) -> None:
    site.get(put(cart={"lines": []}))
    seen: list[bool] = []

    def change() -> None:
        seen.append(flask.session.modified)
        flask.session["cart"]["lines"].append("pear")
        seen.append(flask.session.modified)

    site.get(change)
    assert seen == [False, True]
    assert site.state() == {"cart": {"lines": ["pear"]}}


def test_a_page_without_the_session_costs_nothing_and_says_nothing_of_cookies(site: Site) -> None:
    site.get(put(x=1))
    site.store.calls.clear()
    response = site.get(lambda: None)
    assert "Vary" not in response.headers
    assert cookies(response) == []
    assert not site.store.calls


@pytest.mark.parametrize(
    "look", [lambda: str(flask.session.get("x")), lambda: str("x" in flask.session), lambda: str(bool(flask.session))]
)
def test_a_page_that_looks_at_the_session_varies_by_the_cookie(site: Site, look: Do) -> None:
    for _ in range(2):
        response = site.get(look)
        assert response.headers.getlist("Vary") == ["Cookie"]
        assert cookies(response) == []
        site.get(put(x=1))


def test_what_the_application_says_of_caches_is_left_alone(site: Site) -> None:
    def page() -> flask.Response:
        flask.session["x"] = flask.session.get("x", 0) + 1
        response = flask.Response("x")
        response.headers.update({"Vary": "Accept", "Cache-Control": "private"})
        return response

    response = site.get(page)
    assert (response.headers["Vary"], response.headers["Cache-Control"]) == ("Accept, Cookie", "private")
    assert site.get(put(y=1)).headers["Cache-Control"] == 'no-cache="Set-Cookie"'


def test_a_session_is_new_until_it_is_stored(site: Site) -> None:
    seen: list[bool] = []

    def page() -> None:
        seen.append(flask.session.new)
        if len(seen) > 1:
            flask.session["x"] = 1

    for _ in range(3):
        site.get(page)
    assert seen == [True, True, False]


def test_a_new_session_that_stays_empty_is_not_stored(site: Site) -> None:
    for page in (empty, lambda: setattr(flask.session, "modified", True)):
        assert cookies(site.get(page)) == []
    assert not site.store.database.rows


def test_emptying_a_session_ends_it_and_deletes_its_cookie(site: Site) -> None:
    site.get(put(x=1))
    (cookie,) = cookies(site.get(empty))
    assert cookie.startswith("session=; Max-Age=0;")
    assert not site.store.database.rows
    assert site.browser.get_cookie("session") is None


def test_a_permanent_session_lives_as_long_as_flask_says_and_is_renewed_when_it_is_used(site: Site) -> None:
    site.app.permanent_session_lifetime = timedelta(days=40)

    def keep() -> None:
        flask.session["x"] = 1
        flask.session.permanent = True

    (cookie,) = cookies(site.get(keep))
    assert f"; Max-Age={40 * DAY_S};" in cookie
    site.store.database.pass_s(39 * DAY_S)
    elsewhere = site.other_process()
    elsewhere.browser.set_cookie("session", cookie.partition(";")[0].partition("=")[2])
    seen: dict[str, Any] = {}
    elsewhere.app.permanent_session_lifetime = timedelta(days=40)
    (renewed,) = cookies(elsewhere.get(lambda: seen.update(flask.session)))
    assert seen == {"x": 1, "_permanent": True}
    assert f"; Max-Age={40 * DAY_S};" in renewed
    elsewhere.sessions.close()


def test_a_session_that_is_not_permanent_goes_with_the_browser_and_after_the_idle_time(site: Site) -> None:
    site.get(put(x=1, _permanent=False))
    (cookie,) = cookies(site.get(put(x=2)))
    assert "Max-Age" not in cookie
    (row,) = site.store.database.rows.values()
    assert row.idle_expires_us - row.changed_us == 14 * DAY_S * 1_000_000


def test_a_permanent_session_that_is_committed_at_once_lives_as_long(site: Site) -> None:
    def keep() -> None:
        flask.session.permanent = True
        current().commit()

    site.get(keep)
    (row,) = site.store.database.rows.values()
    assert row.idle_expires_us - row.changed_us == 31 * DAY_S * 1_000_000


def test_modified_true_stores_and_modified_false_leaves_alone(site: Site) -> None:
    site.get(put(x=1))
    (row,) = site.store.database.rows.values()
    (cookie,) = cookies(site.get(lambda: setattr(flask.session, "modified", True)))
    assert [one.version for one in site.store.database.rows.values()] == [row.version + 1]
    assert f".{row.version + 1};" in cookie

    def leave() -> None:
        flask.session["x"] = 2
        flask.session.modified = False

    assert cookies(site.get(leave)) == []
    assert site.state() == {"x": 1}

    def set_again() -> None:
        leave()
        flask.session["y"] = 3

    site.get(set_again)
    assert site.state() == {"x": 2, "y": 3}


def test_a_response_of_500_and_an_exception_leave_the_session_as_it_was(site: Site) -> None:
    site.get(put(x=1))

    def fail() -> None:
        flask.session["x"] = 2
        raise ValueError("a bug")

    site.app.logger.disabled = True

    def refuse() -> tuple[str, int]:
        flask.session["x"] = 2
        return "sorry", 500

    assert site.get(refuse).status_code == 500
    assert site.get(fail).status_code == 500
    assert site.state() == {"x": 1}


def test_flashed_messages_arrive_once_and_markup_stays_markup(site: Site) -> None:
    def flash() -> None:
        flask.flash("saved")
        flask.flash(Markup("<b>bold</b>"), "warning")

    site.get(flash)
    seen: list[Any] = []
    site.get(lambda: seen.extend(flask.get_flashed_messages(with_categories=True)))
    assert seen == [("message", "saved"), ("warning", Markup("<b>bold</b>"))]
    assert [type(text) for _category, text in seen] == [str, Markup]
    assert site.state() == {}


class Size(enum.IntEnum):
    LARGE = 3


class Point(NamedTuple):
    x: int
    y: int


def test_what_flasks_own_sessions_take_is_kept_as_they_keep_it(site: Site) -> None:
    counts: defaultdict[Any, int] = defaultdict(int)
    kept = put(counts=counts, size=Size.LARGE, at=Point(1, 2), html=[Markup("<i>")])

    def page() -> None:
        kept()
        counts[7] += 1  # after it was put in

    site.get(page)
    state = site.state()
    assert state == {"counts": {"7": 1}, "size": 3, "at": (1, 2), "html": [Markup("<i>")]}
    assert [type(state[key]) for key in ("counts", "size", "at")] == [dict, int, tuple]


def test_what_a_client_sends_never_becomes_markup(site: Site) -> None:
    attack = [{"\x00Markup": "<script>"}, ["\x00Markup", "<script>"], {"a": {"\x00Markup": "<script>"}}]
    site.get(put(attack=attack, html=Markup("<i>")))
    assert site.state()["attack"] == attack
    assert type(site.state()["attack"][1][1]) is str


def test_a_test_clients_session_transaction_reads_and_writes(site: Site) -> None:
    with site.browser.session_transaction() as session:
        session["user"] = 7
        session["list"] = []
    with site.browser.session_transaction() as session:
        session["list"].append(1)
    assert site.state() == {"user": 7, "list": [1]}


def test_a_session_transaction_that_cannot_be_stored_raises(site: Site) -> None:
    def change() -> None:
        with site.browser.session_transaction() as session:
            session["x"] = 1
            site.store.away = True

    with pytest.raises(StoreUnavailable):
        change()


def test_a_stream_can_read_the_session_and_not_change_it(site: Site) -> None:
    site.get(put(x=1))
    errors: list[Exception] = []

    def stream() -> flask.Response:
        def pieces() -> Iterator[str]:
            yield "x is "
            yield str(flask.session["x"])
            try:
                flask.session["x"] = 2
            except SessionClosed as error:
                errors.append(error)

        flask.session["y"] = 1
        return flask.Response(flask.stream_with_context(pieces()))

    response = site.get(stream)
    assert response.text == "x is 1"
    assert len(errors) == 1
    assert len(cookies(response)) == 1
    assert site.state() == {"x": 1, "y": 1}


def test_a_stream_may_be_the_first_to_look_at_the_session(site: Site) -> None:
    site.get(put(x=1))

    def stream() -> flask.Response:
        return flask.Response(flask.stream_with_context(str(flask.session["x"]) for _ in range(1)))

    assert site.get(stream).text == "1"


def test_rotation_gives_a_new_id_and_ends_the_old_one(site: Site) -> None:
    site.get(put(x=1))
    before = site.browser.get_cookie("session")
    assert before is not None
    site.get(lambda: current().rotate())
    after = site.browser.get_cookie("session")
    assert after is not None
    assert after.value[:43] != before.value[:43]
    assert site.state() == {"x": 1}
    site.browser.set_cookie("session", before.value)
    assert site.state() == {}


def test_parallel_requests_are_merged_and_real_conflicts_are_answered_with_409(site: Site) -> None:
    site.get(put(x=1, y=1))
    cookie = site.browser.get_cookie("session")
    assert cookie is not None

    def while_another(**values: object) -> Do:
        def page() -> str:
            flask.session["x"] += 1
            other = site.app.test_client()
            other.set_cookie("session", cookie.value)
            with other.session_transaction() as session:
                session.update(values)
            return "the page"

        return page

    assert site.get(while_another(y=2)).text == "the page"
    assert site.state() == {"x": 2, "y": 2}
    response = site.get(while_another(x=5))
    assert (response.status_code, "the page" in response.text) == (409, False)
    assert response.mimetype == "text/plain"
    assert "repeat" in response.text
    assert site.state() == {"x": 5, "y": 2}


def test_a_change_is_made_again_when_another_request_came_first(site: Site) -> None:
    site.get(put(n=1))
    cookie = site.browser.get_cookie("session")
    assert cookie is not None
    calls: list[int] = []

    def add(session: Any) -> None:
        calls.append(session["n"])
        session["n"] += 1
        if len(calls) == 1:
            other = site.app.test_client()
            other.set_cookie("session", cookie.value)
            with other.session_transaction() as theirs:
                theirs["n"] += 10

    site.get(lambda: current().change(add))
    assert calls == [1, 11]
    assert site.state() == {"n": 12}


def test_a_session_that_ended_meanwhile_is_answered_with_409(site: Site) -> None:
    site.get(put(x=1))

    def page() -> None:
        flask.session["x"] = 2
        site.store.database.rows.clear()

    assert site.get(page).status_code == 409
    assert not site.store.database.rows


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_database_that_is_away_is_answered_with_503(site: Site, when: str) -> None:
    other = site.other_process()
    site.get(put(x=1))
    cookie = site.browser.get_cookie("session")
    assert cookie is not None
    other.browser.set_cookie("session", cookie.value)
    closed: list[bool] = []

    def page() -> flask.Response:
        other.store.away = when == "before"
        flask.session["x"] = 2
        other.store.away = True
        response = flask.Response(piece for piece in ("some", "page"))
        response.call_on_close(lambda: closed.append(True))
        return response

    response = other.get(page)
    assert (response.status_code, response.headers["Retry-After"], response.mimetype) == (503, "1", "text/plain")
    assert "page" not in response.text
    response.close()
    assert closed == ([True] if when == "after" else [])
    assert cookies(response) == []
    assert other.get(lambda: "no session here").text == "no session here"
    other.store.away = False
    assert other.state() == {"x": 1}
    other.sessions.close()


def test_what_cannot_be_stored_is_an_error_of_the_application(site: Site) -> None:
    site.app.logger.disabled = True
    site.get(put(x=1))
    assert site.get(put(x=object())).status_code == 500
    assert site.get(put(x="x" * 70_000)).status_code == 500

    def inside() -> None:
        flask.session["x"] = []
        flask.session["x"].append(object())

    assert site.get(inside).status_code == 500
    assert site.state() == {"x": 1}
    site.app.testing = True
    with pytest.raises(Exception, match=r"x: expected .* found object"):
        site.get(put(x=object()))


def test_the_applications_own_handlers_are_asked_by_the_error_and_by_its_number(site: Site) -> None:
    site.app.register_error_handler(409, lambda error: (f"number {error.code}", 409))
    site.app.register_error_handler(StoreUnavailable, lambda _error: ("ours", 503, {"X-Ours": "yes"}))
    site.get(put(x=1))

    def conflict() -> None:
        flask.session["x"] = 2
        raise SessionConflict("x")

    def away() -> None:
        flask.session["x"] = 2
        site.store.away = True

    assert site.get(conflict).text == "number 409"
    response = site.get(away)
    assert (response.text, response.status_code, response.headers["X-Ours"]) == ("ours", 503, "yes")
    site.store.away = False
    assert site.state() == {"x": 1}


def test_an_interface_without_the_extension_answers_too(site: Site) -> None:
    app = flask.Flask("bare")
    app.session_interface = FarmsyncSessionInterface(site.sessions)

    @app.get("/")
    def page() -> str:
        flask.session["x"] = 1
        site.store.away = True
        return "the page"

    assert app.test_client().get("/").status_code == 503


def test_a_subclass_may_keep_a_response_from_storing(site: Site) -> None:
    class Quiet(FarmsyncSessionInterface):
        def should_set_cookie(self, app: flask.Flask, session: Any) -> bool:
            return not flask.request.args.get("quiet") and super().should_set_cookie(app, session)

    site.app.session_interface = Quiet(site.sessions)
    site.pages["page"] = put(x=1)
    assert cookies(site.browser.get("/page?quiet=1")) == []
    assert not site.store.database.rows
    assert len(cookies(site.browser.get("/page"))) == 1


def test_without_a_database_sessions_are_null_sessions() -> None:
    app = flask.Flask("bare")
    app.session_interface = FarmsyncSessionInterface()
    with app.test_request_context("/"):
        assert flask.session.get("x") is None
        with pytest.raises(RuntimeError, match="FARMSYNC_SESSIONS"):
            flask.session["x"] = 1
    with pytest.raises(ConfigError, match="expected FARMSYNC_SESSIONS to be the URL of a database"):
        FarmsyncSessions(app)


def test_the_cookie_is_as_flasks_settings_say() -> None:
    site = Site(
        SESSION_COOKIE_NAME="cart",
        SESSION_COOKIE_PATH="/shop",
        SESSION_COOKIE_DOMAIN="shop.example",
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_PARTITIONED=True,
    )
    (cookie,) = cookies(site.get(put(x=1)))
    assert cookie.startswith("cart=")
    attributes = "; Path=/shop; Domain=shop.example; Secure; HttpOnly; SameSite=Strict; Partitioned"
    assert cookie.endswith(attributes)
    site.sessions.close()


def test_over_tls_the_cookie_is_secure_and_of_this_host_alone(site: Site) -> None:
    (cookie,) = cookies(site.get(put(x=1), base_url="https://localhost"))
    assert cookie.startswith("__Host-session=")
    assert "; Secure; HttpOnly; SameSite=Lax" in cookie


@pytest.mark.parametrize("config", [{"SESSION_COOKIE_SAMESITE": "Never"}, {"SESSION_COOKIE_NAME": "a b"}])
def test_settings_that_cannot_be_are_refused_at_the_start(config: dict[str, object], site: Site) -> None:
    app = flask.Flask("wrong")
    app.config.update(config)
    with pytest.raises(ConfigError):
        FarmsyncSessions(app, site.sessions)


def test_the_database_can_be_named_in_the_configuration(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/sessions.db"
    for given in (url, {"url": url, "idle_s": 60, "limit_bytes": 1000}):
        app = flask.Flask("named")
        app.config["FARMSYNC_SESSIONS"] = given
        FarmsyncSessions().init_app(app)
        sessions: Sessions = app.extensions["farmsync_sessions"]

        @app.get("/")
        def page() -> str:
            flask.session["n"] = flask.session.get("n", 0) + 1
            return str(flask.session["n"])

        browser = app.test_client()
        assert [browser.get("/").text for _ in range(3)] == ["1", "2", "3"]
        assert sessions.settings.idle_s == (60 if isinstance(given, dict) else 14 * DAY_S)
        sessions.close()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "FARMSYNC_SESSIONS to be the URL of a database"),
        ({}, "expected 'url' to be text"),
        ({"url": "sqlite:///x.db", "idle": 3}, "there is no 'idle', did you mean 'idle_s'"),
        ({"url": "sqlite:///x.db", "idle_s": "3"}, "expected 'idle_s' to be a number"),
        ({"url": "sqlite:///x.db", "idle_s": 0}, "FARMSYNC_SESSIONS: expected idle_s to be at least 1"),
        ({"url": "redis://x"}, "redis"),
    ],
)
def test_a_wrong_configuration_is_named(given: object, message: str) -> None:
    app = flask.Flask("wrong")
    app.config["FARMSYNC_SESSIONS"] = given
    with pytest.raises(ConfigError, match=message):
        FarmsyncSessions(app)
