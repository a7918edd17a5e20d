"""The pages of the demo's shop, as HTML."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import attrs

DATASET = "shop"


@attrs.frozen
class Product:
    """What the shop sells. Prices are cents; ``was`` is what it cost before, None without a reduction."""

    id: str
    name: str
    price: int
    text: str
    was: int | None = None


@attrs.frozen
class PriceList:
    """All products, from one version of the data."""

    version: str
    edition: str
    products: Mapping[str, Product]

    def asset(self, name: str) -> str:
        """Where a file of the same version is."""
        return f"/{DATASET}@{self.version}/{name}"

    def total(self, cart: Mapping[str, int]) -> int:
        """What a cart costs."""
        return sum(self.products[name].price * count for name, count in cart.items() if name in self.products)


def money(cents: int) -> str:
    """``49.00 EUR``."""
    return f"{cents / 100:.2f} EUR"


def page(prices: PriceList, node: str, cart: Mapping[str, int], title: str, main: str) -> str:
    """A whole page: the header with the cart, ``main``, and where it all came from."""
    items = sum(cart.values())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · The Corner Shop</title>
<link rel="stylesheet" href="{prices.asset("style.css")}">
</head>
<body>
<header><a class="name" href="/">The Corner Shop</a><span class="pill">{escape(prices.edition)} prices</span>
<a class="pill" href="/cart" data-items="{items}">Cart <b>{items}</b></a></header>
<main>
{main}
</main>
<footer>Answered by <b>{escape(node)}</b> · prices of version <code>{prices.version[:12]}</code> ·
every price on every page is from one list, at every moment</footer>
</body>
</html>
"""


def home(prices: PriceList) -> str:
    """All products."""
    cards = "\n".join(
        f"""<section class="card" id="{one.id}"><a href="/product/{one.id}"><img src="{_image(prices, one)}" alt=""></a>
<div><h2><a href="/product/{one.id}">{escape(one.name)}</a></h2><p>{escape(one.text)}</p>
<div class="buy">{_price(one)}{_button(one, "+1", "Add to cart", "/")}</div></div></section>"""
        for one in prices.products.values()
    )
    return f"""<h1>Things that last</h1>
<p class="lead">Put something into your cart; it stays yours, whichever server answers.</p>
<div class="cards">
{cards}
</div>"""


def product(prices: PriceList, one: Product) -> str:
    """One product."""
    return f"""<article><img src="{_image(prices, one)}" alt="">
<div><h1>{escape(one.name)}</h1><p class="lead">{escape(one.text)}</p>{_price(one)}
<p>{_button(one, "+1", "Add to cart", "/cart")}</p></div></article>"""


def cart(prices: PriceList, items: Mapping[str, int]) -> str:
    """What is in the cart, at today's prices."""
    if not items:
        return '<h1>Your cart</h1><p class="empty">There is nothing in it yet. <a href="/">Look around</a></p>'
    rows = "\n".join(_row(prices, prices.products[name], count) for name, count in items.items())
    return f"""<h1>Your cart</h1>
<p class="lead">At the prices of this moment.</p>
<table>
<tr><th></th><th>Article</th><th class="number">Price</th><th class="number">Quantity</th>
<th class="number">Sum</th></tr>
{rows}
<tr class="total"><td></td><td>Total</td><td></td><td></td><td class="number">{money(prices.total(items))}</td></tr>
</table>
<div class="row"><a href="/">Look around some more</a>
<form method="post" action="/checkout"><button>Order</button></form></div>"""


def thanks(total: int) -> str:
    """After an order."""
    return f"""<h1>Thank you</h1>
<p class="empty">You have ordered for {money(total)}. Since this is a demo, nothing will come.
<a href="/">Look around some more</a></p>"""


def missing() -> str:
    """There is no such page."""
    return '<h1>There is no such page</h1><p class="empty"><a href="/">To the shop</a></p>'


def _row(prices: PriceList, one: Product, count: int) -> str:
    less, more = (_button(one, change, text, "/cart", "small") for change, text in (("-1", "&minus;"), ("+1", "+")))
    return f"""<tr><td><img src="{_image(prices, one)}" alt=""></td>
<td><a href="/product/{one.id}">{escape(one.name)}</a><br>{_button(one, "remove", "remove", "/cart", "plain")}</td>
<td class="number">{money(one.price)}</td>
<td class="number">{less} {count} {more}</td>
<td class="number">{money(one.price * count)}</td></tr>"""


def _image(prices: PriceList, one: Product) -> str:
    return prices.asset(f"img/{one.id}.svg")


def _price(one: Product) -> str:
    was = "" if one.was is None else f"<s>{money(one.was)}</s>"
    return f'<span class="price">{was}{money(one.price)}</span>'


def _button(one: Product, change: str, text: str, then: str, kind: str = "") -> str:
    return (
        f'<form method="post" action="/cart"><input type="hidden" name="product" value="{one.id}">'
        f'<input type="hidden" name="then" value="{then}">'
        f'<button class="{kind}" name="change" value="{change}">{text}</button></form>'
    )
