"""Shoppers with browsers: they fill carts, one request or two at once, lose answers, send old cookies; and they watch.

Every article that a shopper puts into its cart is one of a kind, and none is ever taken out. So what a shopper must see
is plain: all that was acknowledged, or shown to it, before a request began is in that request's answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import Sequence

import attrs

from farmsyncd.core.session.token import ENTROPY_BYTES, new_id
from tests.browser import Browser

_PATIENCE_S = 30.0
_WAYS = ("put", "add", "look", "two puts at once", "two adds at once", "lost answer", "old cookie", "made-up id")
_OFTEN = (25, 30, 20, 7, 8, 5, 5, 5)


class Lost(Exception):
    """No whole answer came: what became of the request is not known."""


@attrs.frozen
class Answer:
    """What came back."""

    status: int
    cookies: list[str]
    body: bytes


@attrs.define
class Tally:
    """What has happened to all shoppers. The last four have to stay empty."""

    requests: Counter[str] = attrs.Factory(Counter)
    acknowledged: int = 0
    unknown: int = 0
    made_up: int = 0
    went_backwards: list[str] = attrs.Factory(list)
    lost: list[str] = attrs.Factory(list)
    ghosts: list[str] = attrs.Factory(list)
    adopted: list[str] = attrs.Factory(list)

    def __str__(self) -> str:
        answers = ", ".join(f"{count} {kind}" for kind, count in sorted(self.requests.items()))
        return (
            f"{self.acknowledged} additions acknowledged, {self.unknown} without an answer ({answers}); "
            f"lost {len(self.lost)}, gone backwards {len(self.went_backwards)}, never asked for {len(self.ghosts)}, "
            f"ids adopted {len(self.adopted)} of {self.made_up} made up"
        )


class Shopper:
    """One of them. ``source`` is the address that it comes from; ``ports`` on loopback are where the shop is.

    With one port, that is a balancer's, and the shopper stays at a node while that lives. With more than one, each
    request goes to another.
    """

    def __init__(self, source: str, ports: Sequence[int], chance: random.Random, tally: Tally) -> None:
        self._source = source
        self._ports = ports
        self._chance = chance
        self._tally = tally
        self._browser = Browser()
        self._old: list[str] = []
        self._seen: set[str] = set()
        self._additions = 0
        self.acknowledged: set[str] = set()
        self.unknown: set[str] = set()
        self.counted = 0
        self.perhaps_counted = 0
        self._number = 0
        self._moment = 0

    async def shop(self, until: asyncio.Event, pause_s: float) -> None:
        """Go on until the event is set; ``pause_s`` is how long a shopper thinks, about."""
        while not until.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(until.wait(), self._chance.uniform(0.2, 1.8) * pause_s)
            if not until.is_set():
                await self._visit(self._chance.choices(_WAYS, _OFTEN)[0])

    async def leave(self) -> None:
        """Look once more, and compare the cart with all that was ever done."""
        while True:
            with contextlib.suppress(Lost):
                if (found := await self._request("GET", "/")) is not None:
                    break
            await asyncio.sleep(0.2)
        self.compare(*found)

    def compare(self, articles: set[str], additions: int) -> None:
        """What is in the cart in the end, beside what should be."""
        self._tally.lost += sorted(self.acknowledged - articles)
        self._tally.ghosts += sorted(articles - self.acknowledged - self.unknown)
        if not self.counted <= additions <= self.counted + self.perhaps_counted:
            self._tally.lost.append(
                f"{self.counted} to {self.counted + self.perhaps_counted} counted, {additions} found"
            )
        self._tally.acknowledged += len(self.acknowledged)
        self._tally.unknown += len(self.unknown)

    async def _visit(self, way: str) -> None:
        if way == "look":
            with contextlib.suppress(Lost):
                await self._request("GET", "/")
        elif way.startswith("two") and self.acknowledged:
            how = way.split()[1].removesuffix("s")
            await asyncio.gather(self._put(how), self._put(how))
        elif way == "lost answer" and self.acknowledged:
            await self._put("put", hang_up=True)
        elif way == "old cookie" and self._old:
            with contextlib.suppress(Lost):
                await self._request("GET", "/", cookie=self._chance.choice(self._old))
        elif way == "made-up id":
            with contextlib.suppress(Lost):
                await self._make_up_an_id()
        else:
            await self._put("put" if way == "put" else "add")

    async def _put(self, how: str, *, hang_up: bool = False) -> None:
        """Put an article into the cart, until it is acknowledged or an answer is lost."""
        for _ in range(20):
            self._number += 1
            article = f"{self._source}-{self._number}"
            try:
                found = await self._request("POST", f"/{how}?{article}", hang_up=hang_up)
            except Lost:
                self.unknown.add(article)
                self.perhaps_counted += how == "add"
                return
            if found is not None:
                self.acknowledged.add(article)
                self.counted += how == "add"
                return
            await asyncio.sleep(self._chance.uniform(0.01, 0.2))

    async def _make_up_an_id(self) -> None:
        """Come with an id that no server has issued: there is nothing behind it, and what is begun has another."""
        made_up = new_id(self._chance.randbytes(ENTROPY_BYTES))
        answer = await self._exchange("POST", "/put?alone", f"farmsync={made_up}.{self._number + 1}", hang_up=False)
        if answer.status != 200:
            return
        self._tally.made_up += 1
        begun = [value for value in answer.cookies if value.startswith("farmsync=")]
        if json.loads(answer.body)["articles"] != ["alone"] or len(begun) != 1 or made_up in begun[0]:
            self._tally.adopted.append(f"{answer.body!r} and {len(begun)} cookies for an id that was made up")

    async def _request(
        self, method: str, target: str, *, cookie: str | None = None, hang_up: bool = False
    ) -> tuple[set[str], int] | None:
        """The articles and the count of additions that were shown; None when nothing was done, and the shop said so."""
        current = self._browser.header()
        must_show, at_least = self._seen | self.acknowledged, max(self._additions, self.counted)
        try:
            answer = await self._exchange(method, target, current if cookie is None else cookie, hang_up=hang_up)
        except Lost:
            self._tally.requests["without an answer"] += 1
            raise
        self._tally.requests[f"of status {answer.status}"] += 1
        if answer.status == 503:
            raise Lost  # what was stored is not known: the database went away in the middle
        if cookie is None:
            if current is not None and self._chance.random() < 0.2:
                self._old = [*self._old[-9:], current]
            self._browser.receive(answer.cookies)
        if answer.status != 200:
            return None
        shown = json.loads(answer.body)
        articles, additions = set(shown["articles"]), int(shown["additions"])
        if cookie is None:  # who sends an old cookie has asked for an old cart
            self.watch(must_show, at_least, articles, additions)
        return articles, additions

    def watch(self, must_show: set[str], at_least: int, articles: set[str], additions: int) -> None:
        """What an answer shows, beside what was known before its request began."""
        if missing := must_show - articles:
            self._tally.went_backwards.append(f"{sorted(missing)[:3]} of {len(must_show)} articles were gone")
        if additions < at_least:
            self._tally.went_backwards.append(f"{at_least} additions were {additions}")
        self._seen |= articles
        self._additions = max(self._additions, additions)

    async def _exchange(self, method: str, target: str, cookie: str | None, *, hang_up: bool) -> Answer:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self._chance.choice(self._ports), local_addr=(self._source, 0)
                )
                try:
                    fields = f"Cookie: {cookie}\r\n" if cookie else ""
                    writer.write(
                        f"{method} {target} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n"
                        f"Content-Length: 0\r\n{fields}\r\n".encode()
                    )
                    await writer.drain()
                    if hang_up:
                        await asyncio.sleep(self._chance.uniform(0, 0.02))
                        raise Lost
                    return _answer(await reader.read())
                finally:
                    writer.transport.abort()
        except (OSError, ValueError, TimeoutError) as error:
            raise Lost from error


def _answer(raw: bytes) -> Answer:
    """A whole response; ValueError for one that was cut off."""
    head, end, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    if not end:
        raise ValueError("expected a whole head")
    fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    length = next((int(value) for name, value in fields if name == "content-length"), None)
    if length is None or len(body) != length:
        raise ValueError("expected a whole body")
    return Answer(int(first.split(" ")[1]), [value for name, value in fields if name == "set-cookie"], body)


def source(number: int) -> str:
    """A loopback address of its own for each shopper."""
    return f"127.0.{1 + number // 250}.{1 + number % 250}"
