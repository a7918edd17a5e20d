"""The demo's shop as a WSGI application: its pages, its cart, and that it keeps to PEP 3333."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from demo.shop import shop
from demo.storefront import application

VERSION = "a" * 40


class Snap(dict[str, bytes]):
    """A snapshot of the shop's data."""

    version = VERSION


class Session(dict[str, Any]):
    """A session that nobody else changes."""

    def change(self, function: Callable[[Session], object]) -> None:
        """As sessions do."""
        function(self)


class Client:
    """A shopper with a session, and the shop at some price list."""

    def __init__(self, site: Path) -> None:
        self.session = Session()
        self._snap = Snap({"products.json": (site / "products.json").read_bytes()})

    def ask(self, method: str, path: str, **form: str) -> tuple[str, dict[str, str], str]:
        """The status, the headers and the body."""
        body = urlencode(form).encode()
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        environ |= {
            "REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": "", "wsgi.input": io.BytesIO(body),
            "CONTENT_LENGTH": str(len(body)), "farmsync.session": self.session, "farmsync.snapshot": self._snap,
            "farmsync.node": "web1",
        }  # fmt: skip
        said: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], _exc_info: object = None, /) -> Any:
            said.append((status, headers))

        pieces: Any = validator(application)(environ, start)
        text = b"".join(pieces).decode()
        pieces.close()
        return said[0][0], dict(said[0][1]), text

    def change(self, product: str, change: str) -> str:
        """Change the cart; the status."""
        return self.ask("POST", "/cart", product=product, change=change, then="/cart")[0]


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(shop(tmp_path / "site", "Summer", 80))


def items(page: str) -> int:
    found = re.search(r'data-items="(\d+)"', page)
    assert found
    return int(found[1])


def test_every_page_shows_prices_of_one_version(client: Client) -> None:
    for path in ("/", "/product/kettle", "/cart", "/thanks"):
        status, headers, page = client.ask("GET", path)
        assert status == "200 OK"
        assert f"/shop@{VERSION}/style.css" in page
        assert headers["X-Shop-Node"] == "web1"
    assert "39.20 EUR" in client.ask("GET", "/product/kettle")[2]
    assert "<s>49.00 EUR</s>" in client.ask("GET", "/")[2]
    assert client.ask("GET", "/product/none")[0] == "404 Not Found"


def test_a_cart_is_a_key_for_each_article(client: Client) -> None:
    for product, change in (("kettle", "+1"), ("kettle", "+1"), ("lamp", "+1"), ("radio", "+1"), ("radio", "-1")):
        assert client.change(product, change) == "303 See Other"
    assert client.session == {"cart:kettle": 2, "cart:lamp": 1}
    page = client.ask("GET", "/cart")[2]
    assert items(page) == 3
    assert "141.60 EUR" in page
    assert client.change("kettle", "remove") == "303 See Other"
    assert client.session == {"cart:lamp": 1}
    for product, change in (("kettle", "+7"), ("nothing", "+1"), ("", "")):
        assert client.change(product, change) == "404 Not Found"


def test_an_order_empties_the_cart(client: Client) -> None:
    client.change("globe", "+1")
    assert client.ask("POST", "/checkout")[1]["Location"] == "/thanks"
    page = client.ask("GET", "/thanks")[2]
    assert items(page) == 0
    assert "79.20 EUR" in page
