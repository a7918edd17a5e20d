"""Requests to a Django site whose sessions farmsync keeps: cookies, logins, messages, errors, other nodes."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import attrs
import pytest
from django.contrib import messages
from django.contrib.auth import alogin, authenticate, get_user_model, login, logout
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import AsyncClient, Client, override_settings
from django.utils import timezone
from django.utils.safestring import mark_safe

from farmsyncd.sessions import NotStorable, SessionClosed, SessionConflict, Sessions, SessionSettings, StoreUnavailable
from farmsyncd.sessions.django import SessionStore
from farmsyncd.sessions.django.wiring import wiring
from tests.django_site import DJANGOS, OURS, VIEWS, View, in_a_loop, middleware, pieces, shown
from tests.sessions_memory import MemoryDatabase, MemoryStore

COOKIE = "sessionid"


@attrs.define
class Site:
    """The site as one process of a farm serves it, and a browser."""

    store: MemoryStore
    browser: Client
    overriding: Any = None

    def get(self, view: View, browser: Client | None = None, **more: Any) -> Any:
        """Ask for a page that does this."""
        VIEWS["page"] = view
        return (browser or self.browser).get("/page", **more)

    def state(self) -> dict[str, Any]:
        """The session as the browser's next request sees it."""
        return shown(self.get(lambda _request: None))

    def cookie(self) -> str:
        """What the browser has."""
        return self.browser.cookies[COOKIE].value

    def move(self) -> None:
        """The browser's next request comes to another process, which knows no session yet."""
        self.store = MemoryStore(self.store.database)
        self.serve()

    def serve(self) -> None:
        """Serve with this store."""
        self.end()
        sessions = Sessions(self.store, SessionSettings(absolute_s=1e10, sweep_every_s=0))
        self.overriding = override_settings(FARMSYNC_SESSIONS=sessions)
        self.overriding.enable()

    def end(self) -> None:
        """Stop serving."""
        if self.overriding is not None:
            wiring.sessions().close()
            self.overriding.disable()
            self.overriding = None


@pytest.fixture(params=[OURS, DJANGOS], ids=["ours", "djangos"])
def either(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A site with our middleware, and one with Django's own."""
    with override_settings(MIDDLEWARE=middleware(request.param)):
        yield from served()


@pytest.fixture
def site() -> Iterator[Site]:
    """A site with our middleware."""
    yield from served()


def served() -> Iterator[Site]:
    database = MemoryDatabase(now_us=int(timezone.now().timestamp() * 1_000_000))
    made = Site(MemoryStore(database), Client())
    made.serve()
    yield made
    made.end()
    VIEWS.clear()


@pytest.fixture(scope="module")
def users() -> Iterator[None]:
    """The database of users."""
    call_command("migrate", verbosity=0)
    for name in ("ann", "ben"):
        people().create_user(name, password="secret")
    yield
    connection.close()


def people() -> Any:
    """The site's users."""
    return get_user_model()._default_manager


def put(**values: object) -> View:
    def view(request: HttpRequest) -> None:
        request.session.update(values)

    return view


def quiet(_request: HttpRequest) -> HttpResponse:
    return HttpResponse("a page that needs no session")


def test_what_is_put_in_is_there_at_the_next_request(either: Site) -> None:
    response = either.get(put(cart=["pear"], html=mark_safe("<b>"), sizes=OrderedDict({1: "s"})))
    assert response.cookies[COOKIE]["httponly"]
    assert response.headers["Vary"] == "Cookie"
    either.move()
    assert either.state() == {"cart": ["pear"], "html": "<b>", "sizes": {"1": "s"}}


def test_a_page_without_the_session_costs_nothing(either: Site) -> None:
    either.get(put(x=1))
    either.store.calls.clear()
    response = either.get(quiet)
    assert "Vary" not in response.headers
    assert not response.cookies
    assert not either.store.calls


def test_a_page_that_reads_the_session_varies_by_the_cookie_and_sets_none(either: Site) -> None:
    either.get(put(x=1))
    response = either.get(lambda request: HttpResponse(str(request.session["x"])))
    assert (response.headers["Vary"], len(response.cookies)) == ("Cookie", 0)


def test_with_our_middleware_a_hit_asks_no_database_and_with_djangos_it_asks_once(either: Site) -> None:
    either.get(put(x=1))
    either.store.calls.clear()
    assert either.state() == {"x": 1}
    ours = "." in either.cookie()
    assert dict(either.store.calls) == ({} if ours else {"revalidate": 1})


def test_a_client_that_comes_back_to_a_node_sees_its_last_write(either: Site) -> None:
    either.get(put(x=1))
    one, other = (
        Sessions(MemoryStore(either.store.database), SessionSettings(absolute_s=1e10, sweep_every_s=0))
        for _ in range(2)
    )
    with override_settings(FARMSYNC_SESSIONS=one):
        assert either.state() == {"x": 1}  # a copy is kept here
    with override_settings(FARMSYNC_SESSIONS=other):
        either.get(put(x=2))
    with override_settings(FARMSYNC_SESSIONS=one):
        assert either.state() == {"x": 2}
    one.close()
    other.close()


def test_an_empty_session_sets_no_cookie_and_has_no_row(either: Site) -> None:
    def view(request: HttpRequest) -> None:
        request.session["x"] = 1
        del request.session["x"]
        request.session.flush()

    response = either.get(view)
    assert len(response.cookies) == 0
    assert response.headers["Vary"] == "Cookie"
    assert not either.store.database.rows


def test_a_session_that_was_emptied_and_has_a_key_is_stored(either: Site) -> None:
    either.get(put(x=1))
    either.get(lambda request: request.session.clear())
    assert either.state() == {}
    assert len(either.store.database.rows) == 1


def test_flushing_deletes_the_row_and_the_cookie(either: Site) -> None:
    either.get(put(x=1))
    response = either.get(lambda request: request.session.flush())
    cookie = response.cookies[COOKIE]
    assert (cookie.value, cookie["max-age"], cookie["path"]) == ("", 0, "/")
    assert response.headers["Vary"] == "Cookie"
    assert not either.store.database.rows


def test_the_cookie_is_as_djangos_settings_say(either: Site) -> None:
    with override_settings(
        SESSION_COOKIE_NAME="cart",
        SESSION_COOKIE_PATH="/shop/",
        SESSION_COOKIE_DOMAIN="shop.example",
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_HTTPONLY=False,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_AGE=600,
    ):
        cookie = either.get(put(x=1)).cookies["cart"]
        deleted = either.get(lambda request: request.session.flush()).cookies["cart"]
    attributes = {name: cookie[name] for name in ("path", "domain", "secure", "httponly", "samesite", "max-age")}
    assert attributes == {
        "path": "/shop/",
        "domain": "shop.example",
        "secure": True,
        "httponly": "",
        "samesite": "Strict",
        "max-age": 600,
    }
    assert cookie["expires"]
    assert (deleted["path"], deleted["domain"], deleted["samesite"]) == ("/shop/", "shop.example", "Strict")


@pytest.mark.parametrize(
    ("choice", "by_setting", "max_age"),
    [(0, False, ""), (None, True, ""), (300, True, 300), (None, False, 1_209_600), (timedelta(seconds=-5), False, 0)],
)
def test_the_cookie_lives_as_long_as_the_session(choice: Any, by_setting: bool, max_age: object, either: Site) -> None:
    def view(request: HttpRequest) -> None:
        request.session["x"] = 1
        request.session.set_expiry(choice)

    with override_settings(SESSION_EXPIRE_AT_BROWSER_CLOSE=by_setting):
        found = either.get(view).cookies[COOKIE]["max-age"]
    assert max(found, 0) == max_age if isinstance(found, int) else found == max_age


def test_saving_every_request_prolongs_the_session_and_its_cookie_each_time(either: Site) -> None:
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True, SESSION_COOKIE_AGE=100):
        assert len(either.get(quiet).cookies) == 0
        either.get(put(x=1))
        for _ in range(4):
            either.store.database.pass_s(60)
            assert either.get(quiet).cookies[COOKIE]["max-age"] == 100
        assert either.state() == {"x": 1}
        either.store.database.pass_s(101)
        either.move()
        either.browser.raise_request_exception = False
        either.get(quiet)
    assert len(either.store.database.rows) == 1


@pytest.mark.parametrize("view", [quiet, lambda request: HttpResponse(str(request.session.get("x")))])
def test_ids_that_nobody_issued_leave_nothing_behind(view: View, either: Site) -> None:
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        for number in range(20):
            either.browser.cookies[COOKIE] = f"{number:042d}A" + (f".{number}" if number % 2 else "")
            response = either.get(view)
            assert [cookie.value for cookie in response.cookies.values() if cookie.value] == []
    assert not either.store.database.rows


@pytest.mark.parametrize("status", [500, 503])
def test_a_response_of_500_and_above_is_not_saved(status: int, either: Site) -> None:
    either.get(put(x=1))

    def view(request: HttpRequest) -> HttpResponse:
        request.session["x"] = 2
        return HttpResponse("failed", status=status)

    response = either.get(view)
    assert (response.status_code, len(response.cookies)) == (status, 0)
    assert response.wsgi_request.session.load() == {"x": 1}
    assert either.state() == {"x": 1}


def test_a_login_that_ends_in_500_leaves_the_client_its_session(site: Site) -> None:
    site.get(put(x=1))

    def view(request: HttpRequest) -> HttpResponse:
        request.session.cycle_key()
        return HttpResponse("failed", status=500)

    site.get(view)
    assert site.state() == {"x": 1}


@pytest.mark.usefixtures("users")
def test_login_gives_a_new_key_logout_ends_it(either: Site) -> None:
    either.get(put(cart=["pear"]))
    anonymous = either.cookie()

    def sign_in(request: HttpRequest) -> None:
        user = authenticate(request, username="ann", password="secret")
        assert user is not None
        login(request, user)

    either.get(sign_in)
    signed_in = either.cookie()
    assert signed_in[:43] != anonymous[:43]
    assert len(either.store.database.rows) == 1
    either.move()
    who = either.get(lambda request: HttpResponse(f"{request.user} {request.session['cart']}"))
    assert who.content == b"ann ['pear']"
    thief = Client()
    thief.cookies[COOKIE] = anonymous
    assert either.get(lambda request: HttpResponse(f"{request.user}"), thief).content == b"AnonymousUser"
    either.get(logout)
    assert not either.store.database.rows
    either.browser.cookies[COOKIE] = signed_in
    assert either.get(lambda request: HttpResponse(f"{request.user}")).content == b"AnonymousUser"


@pytest.mark.usefixtures("users")
def test_another_user_never_gets_the_former_ones_session(either: Site) -> None:
    either.browser.force_login(people().get(username="ann"))
    either.get(put(cart=["pear"]))

    def sign_in(request: HttpRequest) -> None:
        login(request, people().get(username="ben"))

    either.get(sign_in)
    assert "cart" not in either.state()


@pytest.mark.usefixtures("users")
def test_djangos_test_client_logs_in_and_out_and_edits_sessions(either: Site) -> None:
    assert either.browser.login(username="ann", password="secret")
    assert either.get(lambda request: HttpResponse(f"{request.user}")).content == b"ann"
    session = either.browser.session
    session["x"] = 1
    session.save()
    assert either.state()["x"] == 1
    either.browser.logout()
    assert either.state() == {}
    fresh = Client().session
    fresh["y"] = 2
    fresh.save()


def test_messages_are_kept_until_they_are_shown(either: Site) -> None:
    def add(request: HttpRequest) -> HttpResponse:
        messages.warning(request, mark_safe("<b>low</b>"))
        messages.success(request, "saved")
        return HttpResponse("added")

    def show(request: HttpRequest) -> HttpResponse:
        return JsonResponse([[one.level_tag, str(one)] for one in messages.get_messages(request)], safe=False)

    either.get(add)
    assert either.get(show).json() == [["warning", "<b>low</b>"], ["success", "saved"]]
    assert either.get(show).json() == []


def test_changes_inside_values_are_noticed(either: Site) -> None:
    either.get(put(cart={"lines": []}))
    either.get(lambda request: request.session["cart"]["lines"].append("pear"))
    assert either.state() == {"cart": {"lines": ["pear"]}}


def test_what_is_said_to_be_unmodified_is_left_alone_until_something_is_set(site: Site) -> None:
    site.get(put(x=1))

    def leave(request: HttpRequest) -> None:
        request.session["x"] = 2
        request.session.modified = False

    site.get(leave)
    assert site.state() == {"x": 1}
    version = site.cookie().partition(".")[2]
    site.get(lambda request: setattr(request.session, "modified", True))
    assert site.cookie().partition(".")[2] == str(int(version) + 1)


def test_a_stream_reads_the_session_and_cannot_change_it(site: Site) -> None:
    site.get(put(x=1))
    sessions: list[SessionStore] = []

    def view(request: HttpRequest) -> Any:
        request.session["y"] = 2
        assert isinstance(request.session, SessionStore)
        sessions.append(request.session)
        return pieces("one", "two")

    response = site.get(view)
    with pytest.raises(SessionClosed):
        sessions[0]["x"] = 3
    assert sessions[0]["x"] == 1
    assert response.getvalue() == b"onetwo"
    assert site.state() == {"x": 1, "y": 2}


def while_another(site: Site, **values: object) -> View:
    """A view that adds one to ``x`` while another request of the session puts these values in."""

    def view(request: HttpRequest) -> HttpResponse:
        request.session["x"] += 1
        other = SessionStore(site.cookie())
        other.update(values)
        other.save()
        return HttpResponse("the page")

    return view


def test_parallel_requests_are_merged_and_real_conflicts_are_answered_with_409(site: Site) -> None:
    site.get(put(x=1, y=1))
    assert site.get(while_another(site, y=2)).content == b"the page"
    assert site.state() == {"x": 2, "y": 2}
    response = site.get(while_another(site, x=7))
    assert (response.status_code, b"the page" in response.content) == (409, False)
    assert response.headers["Content-Type"].startswith("text/plain")
    assert site.state() == {"x": 7, "y": 2}


def test_nothing_is_stored_of_a_request_that_was_answered_with_409(site: Site) -> None:
    site.get(put(x=1))

    def view(request: HttpRequest) -> None:
        request.session["x"] = 2
        raise SessionConflict("y")

    assert site.get(view).status_code == 409
    assert site.state() == {"x": 1}


def test_with_djangos_middleware_a_conflict_is_an_error_and_nothing_is_lost() -> None:
    with override_settings(MIDDLEWARE=middleware(DJANGOS)):
        for either in served():
            either.get(put(x=1, y=1))
            with pytest.raises(SessionConflict):
                either.get(while_another(either, x=7))
            assert either.state() == {"x": 7, "y": 1}


def test_a_client_is_never_shown_an_older_state_after_its_answers_came_in_another_order(site: Site) -> None:
    site.get(put(x=1, y=1))
    stale = site.cookie()
    settings = SessionSettings(absolute_s=1e10, revalidate_after_s=3600, sweep_every_s=0)
    elsewhere = Sessions(MemoryStore(site.store.database), settings)
    with override_settings(FARMSYNC_SESSIONS=elsewhere):
        assert site.state() == {"x": 1, "y": 1}
    site.get(while_another(site, y=2))  # the client has seen what two requests made
    assert [name for name in site.browser.cookies if name.startswith(f"{COOKIE}-v")]
    site.browser.cookies[COOKIE] = stale  # an answer that was on its way for longer
    with override_settings(FARMSYNC_SESSIONS=elsewhere):
        assert site.state() == {"x": 2, "y": 2}, "its copy is as old as the cookie, and trusted for an hour"
    elsewhere.close()


def test_a_session_that_ended_meanwhile_is_answered_with_409_and_not_brought_back(site: Site) -> None:
    site.get(put(x=1))

    def view(request: HttpRequest) -> None:
        request.session["x"] = 2
        SessionStore(site.cookie()).delete()

    assert site.get(view).status_code == 409
    assert not site.store.database.rows


def test_with_djangos_middleware_a_session_that_ended_meanwhile_is_answered_as_django_does() -> None:
    with override_settings(MIDDLEWARE=middleware(DJANGOS)):
        for either in served():
            either.get(put(x=1))

            def view(request: HttpRequest) -> None:
                request.session["x"] = 2
                SessionStore(request.session.session_key).delete()

            assert either.get(view).status_code == 400
            assert not either.store.database.rows


@pytest.mark.parametrize("when", ["reading", "storing", "between"])
def test_a_database_that_is_away_is_answered_with_503(when: str, site: Site) -> None:
    site.get(put(x=1))
    site.move()

    def view(request: HttpRequest) -> HttpResponse:
        request.session["x"] = 2
        site.store.away = True
        return HttpResponse("the page")

    site.store.away = when != "storing"
    if when == "between":  # a layer of Django's meets the error, and makes a page that says 500 of it
        site.browser.raise_request_exception = False
        with override_settings(MIDDLEWARE=[*middleware(OURS), "tests.test_sessions_django_requests.reading"]):
            response = site.browser.get("/page")
    else:
        response = site.get(view)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert (b"the page" in response.content, len(response.cookies)) == (False, 0)
    site.store.away = True
    assert site.get(quiet).status_code == 200
    site.store.away = False
    assert site.state() == {"x": 1}


def reading(get_response: Any) -> Any:
    """A middleware that reads the session of each request."""

    def answer(request: HttpRequest) -> Any:
        request.session.get("x")
        return get_response(request)

    return answer


def test_a_view_may_answer_itself_when_the_database_is_away(site: Site) -> None:
    site.get(put(x=1))
    site.move()
    site.store.away = True

    def view(request: HttpRequest) -> HttpResponse:
        try:
            return HttpResponse(str(request.session["x"]))
        except StoreUnavailable:
            return HttpResponse("a page without a cart")

    assert site.get(view).content == b"a page without a cart"


def test_what_cannot_be_stored_is_an_error_of_the_application(site: Site) -> None:
    site.get(put(x=1))
    with pytest.raises(NotStorable, match=r"x: expected .* found object"):
        site.get(put(x=object()))
    site.browser.raise_request_exception = False
    assert site.get(put(x="x" * 70_000)).status_code == 500
    assert site.state() == {"x": 1}


def test_damaged_rows_are_reported_to_djangos_security_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.get(put(x=1))
    ((digest, row),) = site.store.database.rows.items()
    site.store.database.rows[digest] = attrs.evolve(row, state=b"\xc1 damaged")
    site.move()
    with caplog.at_level(logging.WARNING, "django.security.SuspiciousSession"):
        assert site.state() == {}
    assert "Session data corrupted" in caplog.text
    assert site.cookie()[:43] not in caplog.text


def test_the_admins_check_takes_our_middleware_for_djangos() -> None:
    apps = ["django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.messages"]
    with override_settings(INSTALLED_APPS=[*apps, "django.contrib.sessions"]):
        assert "admin.E410" not in {found.id for found in run_checks()}


def test_the_middleware_wants_its_engine(site: Site) -> None:
    with (
        override_settings(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies"),
        pytest.raises(ImproperlyConfigured, match=r"farmsyncd\.sessions\.django"),
    ):
        site.get(put(x=1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "expected FARMSYNC_SESSIONS to be the URL of a database"),
        ({"url": "sqlite:///x.db", "idle_s": 60}, "'idle_s' is said by SESSION_COOKIE_AGE"),
        ({"url": "mysql://x"}, "mysql"),
    ],
)
def test_wrong_settings_are_named(given: object, message: str) -> None:
    with override_settings(FARMSYNC_SESSIONS=given), pytest.raises(ImproperlyConfigured, match=message):
        SessionStore()["x"] = 1


def test_the_database_can_be_named_in_the_settings(tmp_path: Any) -> None:
    with override_settings(FARMSYNC_SESSIONS={"url": f"sqlite:///{tmp_path}/sessions.db", "revalidate_after_s": 0}):
        browser = Client()
        VIEWS["page"] = put(x=1)
        browser.get("/page")
        VIEWS["page"] = lambda _request: None
        assert shown(browser.get("/page")) == {"x": 1}
        assert wiring.sessions().settings.absolute_s > 3e9


def test_asynchronous_sites_have_the_same_sessions(site: Site) -> None:
    async def add(request: HttpRequest) -> None:
        count = await request.session.aget("n", 0)
        await request.session.aset("n", count + 1)

    async def fail(request: HttpRequest) -> None:
        await request.session.aset("n", 0)
        site.store.away = True

    async def use() -> list[object]:
        browser = AsyncClient()
        VIEWS["add"], VIEWS["fail"], VIEWS["quiet"] = add, fail, done
        await browser.get("/a/add")
        site.move()
        await browser.get("/a/add")
        site.store.calls.clear()
        assert (await browser.get("/a/quiet")).status_code == 200
        assert not site.store.calls
        refused = await browser.get("/a/fail")
        site.store.away = False
        session = await browser.asession()
        return [refused.status_code, await session.aget("n")]

    async def done(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(await request.session.aget("n")))

    assert in_a_loop(use) == [503, 2]


@pytest.mark.usefixtures("users")
def test_asynchronous_logins_give_a_new_key(site: Site) -> None:
    async def sign_in(request: HttpRequest) -> None:
        await alogin(request, await people().aget(username="ann"))

    async def use() -> tuple[str, str]:
        browser = AsyncClient()
        VIEWS["in"], VIEWS["page"] = sign_in, put(x=1)
        await browser.get("/page")
        before = browser.cookies[COOKIE].value
        await browser.get("/a/in")
        return before, browser.cookies[COOKIE].value

    before, after = in_a_loop(use)
    assert before[:43] != after[:43]
    assert len(site.store.database.rows) == 1
