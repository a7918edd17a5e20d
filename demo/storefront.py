"""The demo's shop: a small WSGI application, which farmsync-node serves.

Products and prices are from the active version of the data, ``environ["farmsync.snapshot"]``: one version for a whole
page, across a flip. The cart is in the session, ``environ["farmsync.session"]``: a key for each article, so that two
requests that put different things into it at once do not meet; when they put in the same thing, the later one counts
again from what the other has left.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import attrs

from demo import pages
from demo.pages import PriceList, Product

Start = Callable[..., object]
_CART = "cart:"
_MOST = 99
_FORM_BYTES = 10_000


@attrs.frozen
class Visit:
    """One request: what it asks for, the prices, and the shopper's session."""

    method: str
    path: str
    form: Mapping[str, str]
    prices: PriceList
    session: Any
    node: str

    def cart(self) -> dict[str, int]:
        """How many of each article are in the cart."""
        found = {name.removeprefix(_CART): count for name, count in self.session.items() if name.startswith(_CART)}
        return {name: count for name, count in sorted(found.items()) if name in self.prices.products}


@attrs.frozen
class Answer:
    """A status, and a page or where to go next."""

    status: str
    title: str = ""
    main: str = ""
    location: str | None = None


def application(environ: dict[str, Any], start_response: Start) -> list[bytes]:
    """Answer one request."""
    snapshot = environ["farmsync.snapshot"]
    if snapshot is None:
        start_response("503 Service Unavailable", [("Content-Type", "text/plain"), ("Retry-After", "1")])
        return [b"The shop has no prices yet.\n"]
    visit = Visit(
        environ["REQUEST_METHOD"],
        environ["PATH_INFO"],
        _form(environ),
        price_list(snapshot.version, snapshot["products.json"]),
        environ["farmsync.session"],
        environ["farmsync.node"],
    )
    answer = _answer(visit)
    headers = [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "private, no-cache")]
    headers.append(("X-Shop-Node", visit.node))
    if answer.location is not None:
        start_response(answer.status, [*headers, ("Location", answer.location), ("Content-Length", "0")])
        return [b""]
    body = pages.page(visit.prices, visit.node, visit.cart(), answer.title, answer.main).encode()
    start_response(answer.status, headers)
    return [body]


@functools.lru_cache(maxsize=4)
def price_list(version: str, text: bytes) -> PriceList:
    """The price list of a version, read once."""
    told = json.loads(text)
    products = [Product(**one) for one in told["products"]]
    return PriceList(version, told["edition"], {one.id: one for one in products})


def _answer(visit: Visit) -> Answer:
    if visit.method == "POST":
        return _change(visit)
    if visit.path == "/":
        return Answer("200 OK", "Things that last", pages.home(visit.prices))
    if visit.path == "/cart":
        return Answer("200 OK", "Your cart", pages.cart(visit.prices, visit.cart()))
    if visit.path == "/thanks":
        return Answer("200 OK", "Thank you", pages.thanks(visit.session.get("ordered", 0)))
    product = visit.prices.products.get(visit.path.removeprefix("/product/"))
    if product is not None and visit.path.startswith("/product/"):
        return Answer("200 OK", product.name, pages.product(visit.prices, product))
    return Answer("404 Not Found", "Not found", pages.missing())


def _change(visit: Visit) -> Answer:
    if visit.path == "/checkout":
        visit.session.change(lambda _session: _order(visit))
        return Answer("303 See Other", location="/thanks")
    name, change = visit.form.get("product", ""), visit.form.get("change", "")
    if visit.path != "/cart" or name not in visit.prices.products or change not in {"+1", "-1", "remove"}:
        return Answer("404 Not Found", "Not found", pages.missing())
    visit.session.change(lambda session: _put(session, _CART + name, change))
    return Answer("303 See Other", location=f"/#{name}" if visit.form.get("then") == "/" else "/cart")


def _order(visit: Visit) -> None:
    items = visit.cart()
    visit.session["ordered"] = visit.prices.total(items)
    for name in items:
        del visit.session[_CART + name]


def _put(session: Any, key: str, change: str) -> None:
    count = 0 if change == "remove" else session.get(key, 0) + int(change)
    if count > 0:
        session[key] = min(count, _MOST)
    else:
        session.pop(key, None)


def _form(environ: dict[str, Any]) -> dict[str, str]:
    if environ["REQUEST_METHOD"] != "POST":
        return {}
    text = environ["wsgi.input"].read(_FORM_BYTES).decode("utf-8", "replace")
    return {name: values[-1] for name, values in parse_qs(text).items()}
