"""The cookie: what a client presents is read with bounded work, and what it is told is enough."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.core.session.cookies import (
    NOTHING,
    Presented,
    cookie_name,
    delete_cookies,
    marker,
    marker_life_s,
    presented,
    set_cookie,
    set_cookies,
)
from farmsyncd.core.session.token import HIGHEST_VERSION, Token, new_id
from farmsyncd.errors import ConfigError
from farmsyncd.sessions.settings import CookieSettings
from tests.browser import Browser

PLAIN = CookieSettings()
ID, OTHER_ID = new_id(bytes(32)), new_id(bytes(range(32)))
TOKEN = Token(ID, 5)
MARK = TOKEN.digest.hex()[:8]


def read(header: str | None, choices: CookieSettings = PLAIN, secure: bool = False) -> Presented:
    return presented(header, choices, secure)


@given(st.text(max_size=80) | st.from_regex(r"(farmsync(-v[0-9]{0,18})?=?[A-Za-z0-9_.;\" -]{0,50}; ?){0,5}"))
def test_no_header_is_too_odd_to_be_read(header: str) -> None:
    assert read(header).token is None or len(header) > 44


@given(st.integers(1, HIGHEST_VERSION), st.text(st.characters(exclude_characters=";"), max_size=30), st.booleans())
def test_the_session_is_found_beside_whatever_other_cookies_there_are(version: int, other: str, first: bool) -> None:
    token = Token(ID, version)
    ours = f"farmsync={token.spell()}"
    found = read(f"x{other}; {ours}" if first else f"{ours};x{other}")
    assert found == Presented(token)
    assert not found.marked


@pytest.mark.parametrize("header", [None, "", ";", "farmsync", "farmsync=", "farmsync=x.1", "other=1; farmsync=a;"])
def test_no_session_is_presented_without_a_token(header: str | None) -> None:
    assert read(header) is NOTHING


@pytest.mark.parametrize(
    "header",
    [
        f"xfarmsync={TOKEN.spell()}",
        f"farmsyncs={TOKEN.spell()}",
        f"a=farmsync={TOKEN.spell()}",
        f"a=b farmsync={TOKEN.spell()}",
        f"__Host-farmsync={TOKEN.spell()}",
        f"farmsync-v5={TOKEN.spell()}",
        f"Farmsync={TOKEN.spell()}",
        f"farmsync {TOKEN.spell()}",
    ],
)
def test_a_cookie_of_another_name_is_not_ours(header: str) -> None:
    assert read(header).token is None


def test_spaces_and_quotes_around_the_token_do_not_matter() -> None:
    for header in (f'farmsync="{TOKEN.spell()}"', f" \tfarmsync = {TOKEN.spell()} ;", f"a;;farmsync={TOKEN.spell()};"):
        assert read(header).token == TOKEN


def test_of_two_cookies_of_our_name_the_first_that_can_be_ours_counts() -> None:
    other = Token(OTHER_ID, 9)
    assert read(f"farmsync=rubbish; farmsync={TOKEN.spell()}; farmsync={other.spell()}").token == TOKEN


def test_no_more_than_64_cookies_whose_names_begin_like_ours_are_looked_at() -> None:
    own = f"farmsync={TOKEN.spell()}"
    assert read("farmsync-x=1; " * 63 + own).token == TOKEN
    assert read("farmsync-x=1; " * 64 + own) == NOTHING


def test_markers_raise_the_version_of_their_own_session_only() -> None:
    others = Token(OTHER_ID, 1).digest.hex()[:8]
    header = f"farmsync-v7-{MARK}=1; farmsync={TOKEN.spell()}; farmsync-v3-{MARK}=1; farmsync-v12-{others}=1"
    assert read(header) == Presented(Token(ID, 7), (3, 7))
    assert read(f"farmsync-v3-{MARK}=1; farmsync={TOKEN.spell()}") == Presented(TOKEN, (3,))
    assert read(f"farmsync-v7-{MARK}=1") is NOTHING


@pytest.mark.parametrize(
    "marked",
    [
        f"farmsync-v0-{MARK}=1",
        f"farmsync-v07-{MARK}=1",
        f"farmsync-v{HIGHEST_VERSION + 1}-{MARK}=1",
        f"farmsync-v{10**30}-{MARK}=1",
        f"farmsync-v7-{MARK}x=1",
        f"farmsync-v7-{MARK[:-1]}=1",
        f"farmsync-w7-{MARK}=1",
        f"farmsync-v7-{MARK}",
        f"farmsync-v7-{MARK}=",
        f"farmsync-v7={MARK}",
        "farmsync-v7=",
    ],
)
def test_what_is_no_marker_does_nothing(marked: str) -> None:
    assert read(f"farmsync={TOKEN.spell()}; {marked}") == Presented(TOKEN)


def test_a_secure_cookie_has_the_host_prefix_and_no_other_is_taken_for_it() -> None:
    hosted, plain = f"__Host-farmsync={TOKEN.spell()}", f"farmsync={Token(OTHER_ID, 1).spell()}"
    for header in (f"{hosted}; {plain}", f"{plain}; {hosted}"):
        assert read(header, secure=True).token == TOKEN
        assert read(header, CookieSettings(secure=True)).token == TOKEN
    assert read(plain, secure=True) is NOTHING
    assert cookie_name(CookieSettings(domain="shop.example"), True) == "farmsync"
    assert cookie_name(CookieSettings(path="/shop"), True) == "farmsync"
    assert cookie_name(CookieSettings(secure=False), True) == "farmsync"


@pytest.mark.parametrize(
    "header",
    [
        "a=b; " * 2_000_000,
        "farmsync" * 1_000_000,
        "farmsync=;" * 1_000_000,
        f"farmsync={TOKEN.spell()};" * 100_000,
        " " * 10_000_000 + "farmsync",
        "farmsync-v1=0;" * 500_000,
        "farm;" * 1_000_000,
        f"farmsync={TOKEN.spell()};" + f"farmsync-v7-{MARK}=1;" * 100_000,
    ],
)
def test_a_header_of_many_megabytes_costs_no_more_than_one_of_64_kibibytes(header: str) -> None:
    started = time.process_time()
    for _ in range(20):
        read(header)
    assert time.process_time() - started < 2  # looking at each character would take minutes


@pytest.mark.parametrize(
    ("choices", "secure", "expected"),
    [
        (PLAIN, False, f"farmsync={TOKEN.spell()}; Max-Age=60; Path=/; HttpOnly; SameSite=Lax"),
        (PLAIN, True, f"__Host-farmsync={TOKEN.spell()}; Max-Age=60; Path=/; Secure; HttpOnly; SameSite=Lax"),
        (
            CookieSettings(name="sid", path="/a", domain="shop.example", same_site="Strict"),
            True,
            f"sid={TOKEN.spell()}; Max-Age=60; Path=/a; Domain=shop.example; Secure; HttpOnly; SameSite=Strict",
        ),
    ],
)
def test_the_cookie_has_the_attributes_that_were_chosen(choices: CookieSettings, secure: bool, expected: str) -> None:
    assert set_cookie(choices, secure, TOKEN, 60) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        *({"name": name} for name in ("", "a b", "a;b", "a\n", "ä", "x" * 65)),
        *({"path": path} for path in ("", "shop", "/a b", "/;Domain=evil", "/\r\nSet-Cookie: a=b", "/ä")),
        *({"domain": domain} for domain in ("", "a b", "shop.example; Secure", "a..b", "shop.example\n")),
    ],
)
def test_settings_that_would_break_the_header_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"^expected a "):
        CookieSettings(**wrong)  # type: ignore[arg-type]
    CookieSettings(name="__shop-1", path="/a/b:c", domain=".shop.example")


def test_without_a_life_the_cookie_goes_with_the_browser_and_none_outlives_what_browsers_keep() -> None:
    assert "Max-Age" not in set_cookie(PLAIN, False, TOKEN, None)
    assert "; Max-Age=34560000;" in set_cookie(PLAIN, False, TOKEN, 10**12)


def answer(seen: Presented, shown: Token, own_writes: int = 1, marker_s: int | None = 605, **more: Any) -> list[str]:
    lines = set_cookies(PLAIN, False, seen, shown, own_writes=own_writes, life_s=None, marker_s=marker_s, **more)
    return [line.partition(";")[0] for line in lines]


def test_a_client_that_knows_the_version_is_told_nothing() -> None:
    assert answer(Presented(TOKEN), TOKEN, 0) == []
    assert answer(Presented(TOKEN), Token(ID, 4), 0) == []
    assert answer(Presented(TOKEN, (5,)), TOKEN, 0) == []


def test_a_change_of_ones_own_is_told_by_the_cookie_alone() -> None:
    assert answer(NOTHING, TOKEN) == [f"farmsync={TOKEN.spell()}"]
    assert answer(Presented(TOKEN), Token(ID, 6)) == [f"farmsync={ID}.6"]
    assert answer(Presented(TOKEN), Token(ID, 8), own_writes=3) == [f"farmsync={ID}.8"]
    assert answer(Presented(Token(OTHER_ID, 5)), Token(ID, 6)) == [f"farmsync={ID}.6"]


def test_a_change_of_others_is_told_by_a_marker_unless_no_copy_is_ever_trusted_unasked() -> None:
    assert answer(Presented(TOKEN), Token(ID, 6), 0) == [f"farmsync-v6-{MARK}=1"]
    assert answer(Presented(TOKEN), Token(ID, 7)) == [f"farmsync-v7-{MARK}=1"]
    assert answer(Presented(TOKEN), Token(ID, 7), marker_s=None) == [f"farmsync={ID}.7"]
    assert answer(Presented(TOKEN), Token(ID, 7), 0, marker_s=None) == []


def test_who_has_a_marker_gets_a_newer_one_in_its_place() -> None:
    assert answer(Presented(TOKEN, (3, 5)), Token(ID, 6)) == [
        f"farmsync={ID}.6",
        f"farmsync-v6-{MARK}=1",
        f"farmsync-v3-{MARK}=",
        f"farmsync-v5-{MARK}=",
    ]
    many = tuple(range(1, 60))
    assert len(answer(Presented(Token(ID, 59), many), Token(ID, 60))) < 20


def test_another_id_leaves_the_markers_of_the_one_before_it() -> None:
    assert answer(Presented(TOKEN, (5,)), Token(OTHER_ID, 6)) == [f"farmsync={OTHER_ID}.6"]


def test_markers_live_until_no_older_copy_is_trusted_and_no_older_response_can_come() -> None:
    assert marker_life_s(0) is None
    assert marker_life_s(0.1) == 601
    assert marker_life_s(5) == 605
    assert marker_life_s(float("inf")) == 34_560_000
    assert f"; Max-Age={605};" in marker(PLAIN, False, TOKEN, 605)


def test_a_browser_takes_every_cookie_and_sends_back_what_is_read() -> None:
    for secure, choices in ((False, PLAIN), (True, PLAIN), (True, CookieSettings(domain="shop.example", path="/"))):
        browser = Browser("shop.example")
        lines = set_cookies(choices, secure, NOTHING, TOKEN, own_writes=1, life_s=100, marker_s=605)
        browser.receive(lines, secure=secure)
        seen = presented(browser.header(secure=secure), choices, secure)
        assert seen == Presented(TOKEN)
        lines = set_cookies(choices, secure, seen, Token(ID, 9), own_writes=1, life_s=100, marker_s=605)
        browser.receive(lines, secure=secure)
        browser.receive([set_cookie(choices, secure, Token(ID, 6), 100)], secure=secure)  # comes late
        seen = presented(browser.header(secure=secure), choices, secure)
        assert seen == Presented(Token(ID, 9), (9,))
        lines = set_cookies(choices, secure, seen, Token(ID, 10), own_writes=1, life_s=100, marker_s=605)
        browser.receive(lines, secure=secure)
        seen = presented(browser.header(secure=secure), choices, secure)
        assert seen == Presented(Token(ID, 10), (10,))
        browser.receive([set_cookie(choices, secure, Token(ID, 7), 100)], secure=secure)  # comes later still
        seen = presented(browser.header(secure=secure), choices, secure)
        assert seen == Presented(Token(ID, 10), (10,))
        browser.receive(delete_cookies(choices, secure), secure=secure)
        assert presented(browser.header(secure=secure), choices, secure) is NOTHING
        browser.receive([set_cookie(choices, secure, Token(ID, 7), 100)], secure=secure)  # comes after the end
        seen = presented(browser.header(secure=secure), choices, secure)
        assert seen == Presented(Token(ID, 10), (10,))
        assert not browser.refused
