"""The cookie jar of the tests keeps and refuses as browsers do."""

from __future__ import annotations

from tests.browser import Browser


def test_a_cookie_comes_back_until_its_age_is_over() -> None:
    browser = Browser()
    browser.receive(["cart=1; Path=/; Max-Age=10; HttpOnly; SameSite=Lax"])
    assert browser.header() == "cart=1"
    browser.later(9)
    browser.restart()
    assert browser.header() == "cart=1"
    browser.later(1)
    assert browser.header() is None


def test_a_cookie_without_an_age_goes_with_the_browser() -> None:
    browser = Browser()
    browser.receive(["cart=1; Path=/"])
    browser.later(1e9)
    assert browser.header() == "cart=1"
    browser.restart()
    assert browser.header() is None


def test_an_age_of_zero_removes_the_cookie_of_the_same_name_and_path() -> None:
    browser = Browser()
    browser.receive(["cart=1; Path=/", "cart=2; Path=/shop", "cart=; Path=/; Max-Age=0"])
    assert browser.header(path="/shop/x") == "cart=2"
    assert browser.header(path="/shopping") is None


def test_longer_paths_come_first_and_then_older_cookies() -> None:
    browser = Browser()
    browser.receive(["a=1; Path=/", "b=2; Path=/", "c=3; Path=/shop", "a=4; Path=/"])
    assert browser.header(path="/shop") == "c=3; a=4; b=2"


def test_secure_cookies_travel_over_tls_alone() -> None:
    browser = Browser()
    browser.receive(["cart=1; Path=/; Secure"], secure=True)
    assert browser.header() is None
    assert browser.header(secure=True) == "cart=1"
    browser.receive(["cart=2; Path=/", "other=2; Secure; Path=/"])
    assert browser.header(secure=True) == "cart=1"
    assert len(browser.refused) == 2


def test_host_cookies_are_refused_unless_they_are_of_the_whole_host_and_secure() -> None:
    browser = Browser()
    wrong = [
        "__Host-cart=1; Path=/",
        "__Host-cart=1; Secure; Path=/shop",
        "__Host-cart=1; Secure; Path=/; Domain=shop.example",
        "__Host-cart=1; Secure",
    ]
    browser.receive(wrong, secure=True, path="/shop/x")
    assert browser.cookies == []
    assert [text for text, _ in browser.refused] == wrong
    browser.receive(["__Host-cart=1; Secure; Path=/"], secure=True)
    assert browser.header(secure=True) == "__Host-cart=1"


def test_what_browsers_do_not_take_is_listed() -> None:
    browser = Browser()
    browser.receive(["cart", "=1", "a=" + "b" * 4096, "a=1; Domain=example.org", "a=1; SameSite=None", "a=1\r\nb: c"])
    assert browser.cookies == []
    assert len(browser.refused) == 6


def test_a_twin_has_the_same_cookies_and_goes_its_own_way() -> None:
    browser = Browser()
    browser.receive(["cart=1; Path=/"])
    twin = browser.twin()
    twin.receive(["cart=2; Path=/"])
    assert (browser.value("cart"), twin.value("cart")) == ("1", "2")
