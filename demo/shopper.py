"""Shoppers who never stop looking: through the balancer, page after page, noting which version each came from.

In the shop they put something into their carts now and then, and look at each page whether all of it is still there.
"""

from __future__ import annotations

import random
import re
import threading
from collections import Counter
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Self
from urllib.parse import quote, urlencode, urlsplit

ADDRESSES = tuple(f"127.0.1.{number}" for number in range(1, 7))
ARTICLES = ("kettle", "lamp", "clock", "chair", "globe", "radio")
_PAUSE = 0.1  # seconds between two pages of one shopper
_PATIENCE = 10.0  # seconds for a page to come
_BUYS = 0.15  # of the turns
_ITEMS = re.compile(rb'data-items="(\d+)"')


class Shopper:
    """One shopper, with an address and cookies of its own, in a thread of its own until the block is left."""

    def __init__(self, url: str, address: str = ADDRESSES[0], *, buys: bool = False) -> None:
        self.address = address
        self.pages: Counter[str] = Counter()
        self.failures = 0
        self.bought = 0
        self.lost = 0
        self.node = ""
        self._url = urlsplit(url)
        self._buys = buys
        self._cookies: dict[str, str] = {}
        self._random = random.Random(address)
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._shop, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self._thread.join()

    def look(self, path: str) -> int:
        """Fetch a page; how many things it says are in the cart. OSError, HTTPException: there was no answer."""
        answer, body = self._ask("GET", path)
        self.pages[answer.headers["X-Farmsync-Version"]] += 1
        self.failures += answer.status >= 400
        self.node = answer.headers["X-Shop-Node"] or ""
        found = _ITEMS.search(body)
        return int(found[1]) if found else 0

    def buy(self, article: str) -> None:
        """Put one article into the cart."""
        form = urlencode({"product": article, "change": "+1"})
        answer, _ = self._ask("POST", "/cart", form, {"Content-Type": "application/x-www-form-urlencoded"})
        if answer.status == 303:
            self.bought += 1
        else:
            self.failures += 1

    def _shop(self) -> None:
        while not self._leave.wait(_PAUSE):
            try:
                if self._buys and self._random.random() < _BUYS:
                    self.buy(self._random.choice(ARTICLES))
                items = self.look(quote(self._url.path))
                self.lost += self._buys and items != self.bought
            except (HTTPException, OSError):
                self.failures += 1

    def _ask(
        self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[HTTPResponse, bytes]:
        # A connection for each page, so that the balancer decides anew each time.
        connection = HTTPConnection(self._url.netloc, timeout=_PATIENCE, source_address=(self.address, 0))
        cookies = {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
        try:
            connection.request(method, path, body, {**(headers or {}), **(cookies if self._cookies else {})})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        for one in answer.headers.get_all("Set-Cookie") or []:
            self._keep(one)
        return answer, content

    def _keep(self, cookie: str) -> None:
        name, _, value = cookie.partition(";")[0].strip().partition("=")
        if "max-age=0" in cookie.lower().replace(" ", "").split(";"):
            self._cookies.pop(name, None)
        else:
            self._cookies[name] = value
