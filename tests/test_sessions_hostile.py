"""Clients that mean harm, over real HTTP and a real database: they learn nothing, cost little, and leave nothing."""

from __future__ import annotations

import json
import logging
import secrets
import threading
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from farmsyncd.errors import ConfigError
from farmsyncd.sessions import CookieSettings, Sessions, SessionSettings
from farmsyncd.sessions.wsgi import SessionMiddleware
from tests.browser import Browser
from tests.session_farm import QUIET, Farm
from tests.session_shop import Shop
from tests.sessions_memory import MemoryStore

HIGHEST = 2**53
ANY_ID = "A" * 43


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sessions.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Shop(f"sqlite:///{tmp_path}/sessions.db") as one:
        yield one


@pytest.fixture
def any_shop(url: str) -> Iterator[Shop]:
    with Shop(url) as one:
        yield one


def fresh_id() -> str:
    return urlsafe_b64encode(secrets.token_bytes(32))[:43].decode()


def token(browser: Browser) -> str:
    value = browser.value("farmsync")
    assert value is not None
    return value


def own_id(cookie: str) -> str:
    return cookie.partition(".")[0]


def planted(cookie: str) -> Browser:
    """A victim's browser in which an attacker has put a cookie."""
    browser = Browser()
    browser.receive([f"farmsync={cookie}; Path=/"])
    return browser


# -- fixation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 7, HIGHEST])
def test_an_id_that_an_attacker_made_up_is_never_used(any_shop: Shop, version: int) -> None:
    made_up = f"{fresh_id()}.{version}"
    victim = planted(made_up)
    assert any_shop.put(victim, card="4111").status == 200
    assert own_id(token(victim)) != own_id(made_up)
    assert any_shop.ask("cart", f"farmsync={made_up}").told == {}
    assert any_shop.ask("cart", victim).told == {"card": "4111"}
    assert len(any_shop.rows()) == 1


def test_an_id_that_was_valid_once_is_never_used_again(any_shop: Shop) -> None:
    attacker = Browser()
    any_shop.put(attacker, bait=1)
    once = token(attacker)
    any_shop.ask("logout", attacker)
    assert attacker.cookies == []
    victim = planted(once)
    assert any_shop.put(victim, card="4111").told == {"card": "4111"}
    assert own_id(token(victim)) != own_id(once)
    assert any_shop.ask("cart", f"farmsync={once}").told == {}
    assert len(any_shop.rows()) == 1


def test_an_id_that_an_operator_revoked_is_never_used_again(any_shop: Shop) -> None:
    attacker = Browser()
    any_shop.put(attacker, bait=1)
    (row,) = any_shop.rows()
    assert any_shop.store.delete(row.digest)
    any_shop.sessions.forget(row.digest)
    victim = planted(token(attacker))
    assert any_shop.put(victim, card="4111").told == {"card": "4111"}
    assert any_shop.ask("cart", attacker).told == {}


def test_an_id_that_has_expired_is_never_used_again() -> None:
    farm, attacker = Farm(), Browser()
    app = SessionMiddleware(counting, farm.node().sessions)
    direct(app, None, attacker)
    victim = planted(token(attacker))
    farm.pass_s(QUIET.idle_s + 1)
    assert direct(app, None, victim)[1] == b"1"
    assert own_id(token(victim)) != own_id(token(attacker))
    assert direct(app, None, attacker)[1] == b"1"
    assert direct(app, None, victim)[1] == b"2"


def test_who_logs_in_with_an_attackers_session_leaves_it(any_shop: Shop) -> None:
    attacker = Browser()
    any_shop.put(attacker, bait=1)
    victim = planted(token(attacker))
    assert any_shop.ask("login", victim, b"alice").status == 200
    assert any_shop.ask("cart", victim).told == {"bait": 1, "user": "alice"}
    assert any_shop.ask("cart", attacker).told == {}
    any_shop.put(attacker, mine=1)
    assert any_shop.ask("cart", victim).told == {"bait": 1, "user": "alice"}
    assert any_shop.ask("cart", attacker).told == {"mine": 1}


@pytest.mark.parametrize("ends", ["logout", "login"])
def test_a_request_that_began_before_the_id_ended_brings_nothing_back(any_shop: Shop, ends: str) -> None:
    shopper, answers = Browser(), list[Any]()
    any_shop.put(shopper, card="4111")
    stolen = shopper.twin()
    slow = threading.Thread(target=lambda: answers.append(any_shop.ask("slow", stolen)))
    slow.start()
    assert any_shop.waiting.wait(30)
    assert any_shop.ask(ends, shopper, b"alice").status == 200
    any_shop.goes_on.set()
    slow.join()
    assert answers[0].status == 409
    assert any_shop.ask("cart", stolen).told == {}
    assert any_shop.ask("cart", shopper).told == {"logout": {}, "login": {"card": "4111", "user": "alice"}}[ends]
    assert len(any_shop.rows()) == {"logout": 0, "login": 1}[ends]


def test_of_two_logins_at_once_one_is_refused(any_shop: Shop) -> None:
    shopper, answers = Browser(), list[Any]()
    any_shop.put(shopper, card="4111")
    other = shopper.twin()
    slow = threading.Thread(target=lambda: answers.append(any_shop.ask("slow?login", other)))
    slow.start()
    assert any_shop.waiting.wait(30)
    assert any_shop.ask("login", shopper, b"alice").status == 200
    any_shop.goes_on.set()
    slow.join()
    assert (answers[0].status, answers[0].all("Set-Cookie")) == (409, [])
    assert any_shop.ask("cart", shopper).told == {"card": "4111", "user": "alice"}
    assert any_shop.ask("cart", other).told == {}
    assert len(any_shop.rows()) == 1


def test_over_tls_a_cookie_that_plain_http_could_have_planted_is_not_taken(tmp_path: Path) -> None:
    with Shop(f"sqlite:///{tmp_path}/sessions.db", secure=True) as shop:
        attacker, victim = Browser(), Browser()
        shop.put(attacker, bait=1)
        stolen = attacker.value("__Host-farmsync")
        victim.receive([f"__Host-farmsync={stolen}; Path=/"], secure=False)
        assert victim.cookies == []
        victim.receive([f"farmsync={stolen}; Path=/"], secure=False)
        assert shop.ask("cart", victim).told == {}
        shop.put(victim, card="4111")
        assert shop.ask("cart", attacker).told == {"bait": 1}
        assert shop.ask("cart", victim).told == {"card": "4111"}


# -- tampering --------------------------------------------------------------------------------------------------------


def test_each_byte_of_a_cookie_counts(shop: Shop) -> None:
    browser = Browser()
    shop.put(browser, card="4111")
    good = token(browser)
    shop.calls()
    bad = [good[:-1], good[1:], good + "0", good + "A", "." + good, good.replace(".", ""), good.upper(), good.lower()]
    for at, old in enumerate(good):
        others = set('AQw-. "\x00\xff') if at < 42 else {chr(code) for code in range(32, 256)}
        bad += [good[:at] + new + good[at + 1 :] for new in sorted(others - {old, ";"})]
    asked, shown = 0, []
    for cookie in bad:
        answer = shop.ask("cart", f"farmsync={cookie}".encode("latin-1"))
        asked += 1
        assert answer.status == 200, cookie
        if answer.told:
            shown.append(cookie)
    # The id is right in those that are shown: another version is the client's own, and the row decides.
    assert {own_id(cookie.strip(" \t\"'")) for cookie in shown} <= {own_id(good)}
    calls = shop.calls()
    assert set(calls) <= {"read", "revalidate"}
    assert sum(calls.values()) <= asked
    assert len(shop.rows()) == 1
    assert shop.ask("cart", browser).told == {"card": "4111"}


ODD_VERSIONS = [
    *("", "0", "-1", "+1", "01", "1.0", "1e3", "0x1", "1_0", " 1", "1 1", "NaN", "inf", "None", "1;", "\x00", "1\x00"),
    *(str(HIGHEST), str(HIGHEST + 1), str(2**63), str(2**64), str(10**30), "9" * 5_000, "1" + "0" * 30_000),
    *("٣", "²", "1٣", "\uff13", "१", "Ⅷ", "\u200b1"),
]


@pytest.mark.parametrize("version", ODD_VERSIONS, ids=[ascii(one[:12]) for one in ODD_VERSIONS])
def test_odd_versions_are_no_version_or_the_rows(version: str) -> None:
    store = MemoryStore()
    sessions, browser = Sessions(store, QUIET), Browser()
    app = SessionMiddleware(counting, sessions)
    assert direct(app, None, browser)[1] == b"1"
    before, good = store.calls.copy(), own_id(token(browser))
    status, body = direct(app, f"farmsync={good}.{version}".encode().decode("latin-1"))
    assert status == 200
    assert body in (b"1", b"2")
    assert (store.calls - before).total() <= 2
    assert len(store.database.rows) <= 2
    if body == b"2":
        assert version.strip().isascii()
        assert direct(app, None, browser)[1] == b"3"  # nobody else is harmed by it


def counting(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    session = environ["farmsync.session"]
    session["count"] = session.get("count", 0) + 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % session["count"]]


def reading(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [json.dumps(dict(environ["farmsync.session"])).encode()]


def direct(app: Any, cookie: str | None, browser: Browser | None = None) -> tuple[int, bytes]:
    """A request without a server between, which would refuse what is too large for it."""
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    header = browser.header() if browser is not None else cookie
    if header is not None:
        environ["HTTP_COOKIE"] = header
    begun: list[tuple[str, list[tuple[str, str]]]] = []
    body = b"".join(app(environ, lambda status, headers: begun.append((status, headers))))
    (status, headers) = begun[0]
    if browser is not None:
        browser.receive([value for name, value in headers if name == "Set-Cookie"])
    return int(status[:3]), body


def test_a_version_that_no_row_has_reached_costs_a_read_and_shows_the_row(shop: Shop) -> None:
    browser = Browser()
    shop.put(browser, card="4111")
    own = own_id(token(browser))
    shop.calls()
    for _ in range(5):
        assert shop.ask("cart", f"farmsync={own}.{HIGHEST}").told == {"card": "4111"}
    assert sum(shop.calls().values()) <= 5
    assert shop.put(planted(f"{own}.{HIGHEST}"), more=1).told == {"card": "4111", "more": 1}
    assert shop.ask("cart", browser).told == {"card": "4111", "more": 1}


def test_made_up_markers_harm_nobody(shop: Shop) -> None:
    browser = Browser()
    shop.put(browser, card="4111")
    (row,) = shop.rows()
    good, mine = token(browser), row.digest.hex()[:8]
    shop.calls()
    for marker in (
        f"-v{HIGHEST}={mine}",
        f"-v9={mine}",
        "-v9=00000000",
        "-v-1=x",
        f"-v{'9' * 400}={mine}",
        "-v=",
        "-v9",
    ):
        answer = shop.ask("cart", f"farmsync={good}; farmsync{marker}")
        assert (answer.status, answer.told) == (200, {"card": "4111"})
    many = "; ".join(f"farmsync-v{number}={mine}" for number in range(1, 1_000))
    answer = shop.ask("cart", f"farmsync={good}; {many}")
    assert (answer.status, answer.told) == (200, {"card": "4111"})
    assert len(answer.all("Set-Cookie")) <= 20
    assert sum(shop.calls().values()) <= 8
    assert len(shop.rows()) == 1


# -- size and number --------------------------------------------------------------------------------------------------


def test_cookie_headers_of_any_size_are_read_in_bounded_work(shop: Shop) -> None:
    browser = Browser()
    shop.put(browser, card="4111")
    good = f"farmsync={token(browser)}"
    shop.calls()
    for line in (
        f"{good}; other={'x' * 60_000}",
        "; ".join([good, *(f"c{number}=x" for number in range(5_000))]),
        "; ".join([*(f"c{number}=x" for number in range(5_000)), good]),
    ):
        answer = shop.ask("cart", line)
        assert (answer.status, answer.told) == (200, {"card": "4111"})
    answer = shop.ask("cart", f"other={'x' * 100 * 1024}; {good}")
    assert answer.status in (200, 400, 431)  # the server's own limit
    assert sum(shop.calls().values()) <= 4
    assert len(shop.rows()) == 1


FLOODS = {
    "one huge value": "farmsync=" + "A" * 1_048_576,
    "100 KiB of another's": "other=" + "x" * 102_400,
    "a huge name": "farmsync" * 131_072 + "=1",
    "ours, thousands of times": f"farmsync={ANY_ID}.1; " * 5_000,
    "ours, damaged, thousands of times": "farmsync=x; " * 20_000,
    "markers": "".join(f"farmsync-v{number}=00000000; " for number in range(1, 20_000)),
    "our name in others' values": "a=farmsync; " * 20_000,
    "our name in others' names": "xfarmsync=1; " * 20_000,
    "spaces": " " * 500_000 + "farmsync=x",
    "spaces after each name": ("farmsync" + " " * 50_000 + "x; ") * 8,
    "semicolons": ";" * 500_000,
    "no separators": "farmsync" * 60_000,
    "equal signs": "=" * 500_000,
    "quotes": '"' * 500_000,
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_flood_of_cookies_asks_the_database_at_most_once_and_stores_nothing(flood: str) -> None:
    store = MemoryStore()
    sessions = Sessions(store, QUIET)
    assert direct(SessionMiddleware(reading, sessions), flood) == (200, b"{}")
    assert store.calls.total() <= 1
    assert not store.database.rows
    assert sessions.statistics().entries == 0


def test_thousands_of_ids_from_one_client_store_nothing(shop: Shop) -> None:
    asked = 1_000
    for _ in range(asked):
        assert shop.ask("cart", f"farmsync={fresh_id()}.1").told == {}
    assert shop.calls() == {"read": asked}
    for _ in range(100):
        assert shop.ask("static", f"farmsync={fresh_id()}.1").status == 200
        assert shop.ask("cart").told == {}
    assert shop.calls() == {}
    assert shop.rows() == []
    statistics = shop.sessions.statistics()
    assert (statistics.entries, statistics.bytes) == (0, 0)


def test_a_session_is_stored_only_when_something_is_put_in(shop: Shop) -> None:
    browser = Browser()
    for path in ("cart", "logout", "static"):
        shop.ask(path, browser)
    assert shop.ask("put", browser, b"{}").told == {}
    assert (browser.cookies, shop.rows(), shop.calls()) == ([], [], {})


def test_a_session_of_just_the_limit_is_kept_and_one_byte_more_is_not(
    any_shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    limit, browser = SessionSettings().limit_bytes, Browser()
    any_shop.put(browser, text="x" * 60_000)
    (row,) = any_shop.rows()
    longest = 60_000 + limit - row.size
    assert any_shop.put(browser, text="y" * longest).status == 200
    assert [row.size for row in any_shop.rows()] == [limit]
    caplog.clear()
    answer = any_shop.put(browser, text="z" * (longest + 1))
    assert answer.status == 500
    assert b"zzz" not in answer.body
    assert "'text'" in caplog.text
    assert str(limit) in caplog.text
    assert any_shop.ask("cart", browser).told == {"text": "y" * longest}
    assert [row.size for row in any_shop.rows()] == [limit]


# -- what is put in ---------------------------------------------------------------------------------------------------


def test_unicode_in_keys_and_values_comes_back_exactly(any_shop: Shop) -> None:
    browser = Browser()
    state = {
        "": "empty",
        "é": "composed",
        "e\u0301": "decomposed",
        "🛒": "👩‍👩‍👧‍👦",
        "עגלה": "\u202eright to left\u202c",
        "\x00": "a\x00b",
        "\r\nSet-Cookie: evil=1": "\r\n\r\n<script>",
        "nested": {"ключ": ["значение", {"": "\uffff\U0010ffff"}]},
    }
    assert any_shop.put(browser, **state).told == state
    assert any_shop.ask("cart", browser).told == state
    elsewhere = Sessions(any_shop.store, QUIET)
    status, body = direct(SessionMiddleware(reading, elsewhere), browser.header())
    assert (status, json.loads(body)) == (200, state)
    assert browser.refused == []


@pytest.mark.parametrize("odd", ["set", "surrogate", "cycle"])
def test_what_cannot_be_kept_is_refused_and_changes_nothing(shop: Shop, odd: str) -> None:
    browser = Browser()
    shop.put(browser, card="4111")
    answer = shop.ask(f"odd?{odd}", browser)
    assert answer.status == 500
    assert b"object" not in answer.body
    assert shop.ask("cart", browser).told == {"card": "4111"}


@pytest.mark.parametrize(
    "kind",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=" + "x" * 1_000,
        "text/plain; charset=utf-16",
        "application/msgpack",
        "\xff\xfe",
        "x" * 10_000,
        "",
    ],
    ids=lambda kind: ascii(kind[:20]),
)
def test_a_request_of_any_content_type_has_its_body_whole_and_its_session(shop: Shop, kind: str) -> None:
    browser, body = Browser(), bytes(range(256)) * 4
    answer = shop.ask("echo", browser, body, ("Content-Type", kind))
    assert (answer.status, answer.told.encode("latin-1")) == (200, body)
    assert set(shop.ask("cart", browser).told) == {"kind"}


@pytest.mark.parametrize(
    "lines",
    [
        b"Cookie: farmsync=\xff\xfe\x00\x01\r\n",
        b"Cookie: farmsync=" + ANY_ID.encode() + b".1\r\n folded=1\r\n",
        b"Cookie: farmsync=" + ANY_ID.encode() + b".1\nCookie: x=1\r\n",
        b"Cookie: a=1\r\nCookie: farmsync=" + ANY_ID.encode() + b".1\r\n",
        b"Cookie:\r\n",
        b"Cookie: farmsync\r\n",
        b"Cookie : farmsync=x\r\n",
        b"Cookie: farmsync=" + "é🛒".encode() + b"\r\n",
    ],
)
def test_damaged_headers_are_no_error_of_ours(shop: Shop, lines: bytes) -> None:
    came = shop.send(b"GET /cart HTTP/1.0\r\nHost: shop.example\r\n" + lines + b"\r\n")
    assert came.split()[1] in (b"200", b"400")
    assert came.endswith(b"{}") or came.split()[1] == b"400"
    assert b"Set-Cookie" not in came
    assert shop.rows() == []


# -- the cookie's settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chosen",
    [
        {"name": "a; Domain=evil.example"},
        {"name": "a\r\nSet-Cookie: evil"},
        {"name": "a=b"},
        {"name": "a\n"},
        {"name": ""},
        {"name": "ä"},
        {"name": "__Host-farmsync"},
        {"name": "__secure-farmsync"},
        {"path": "/; Domain=evil.example"},
        {"path": "/\r\nSet-Cookie: evil=1"},
        {"path": "/\n"},
        {"path": "shop"},
        {"path": ""},
        {"path": "/ä"},
        {"domain": "shop.example; Path=/x"},
        {"domain": "shop.example\r\nSet-Cookie: evil=1"},
        {"domain": "shop.example\n"},
        {"domain": ""},
        {"domain": "shop example"},
        {"same_site": "Lax; Domain=evil.example"},
        {"same_site": "Lax\r\nSet-Cookie: evil=1"},
        {"same_site": "lax"},
        {"same_site": "None", "secure": False},
    ],
    ids=ascii,
)
def test_no_setting_of_the_cookie_can_break_its_header(chosen: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        CookieSettings(**chosen)


def test_ids_are_in_no_log(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    browser = Browser()
    shop.put(browser, card="4111")
    known = {own_id(token(browser))}
    shop.ask("cart", f"farmsync={own_id(token(browser))}.{HIGHEST}")
    shop.ask("login", browser, b"alice")
    known.add(own_id(token(browser)))
    shop.put(browser, text="x" * 70_000)
    shop.ask("odd?cycle", browser)
    shop.ask("logout", browser)
    assert len(known) == 2
    assert not [one for one in known if one in caplog.text]
