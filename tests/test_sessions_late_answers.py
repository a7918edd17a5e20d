"""Answers that come late, in the orders that are hardest to come about by chance: nobody's session goes backwards."""

from __future__ import annotations

import attrs

from farmsyncd.sessions.engine import Sessions
from farmsyncd.sessions.exchange import Exchange
from farmsyncd.sessions.settings import CookieSettings, SessionSettings
from tests.browser import Browser
from tests.sessions_memory import MemoryDatabase, MemoryStore

COOKIES = CookieSettings()


@attrs.define
class Scene:
    """Two nodes that trust copies for five seconds, and a browser; time passes when the test says so."""

    database: MemoryDatabase = attrs.Factory(MemoryDatabase)
    browser: Browser = attrs.Factory(Browser)
    now_s: float = 0.0
    nodes: list[Sessions] = attrs.Factory(list)

    def __attrs_post_init__(self) -> None:
        chosen = SessionSettings(sweep_every_s=0)
        for _ in range(2):
            store = MemoryStore(self.database, news_arrive=False)
            self.nodes.append(Sessions(store, chosen, clock=lambda: self.now_s))

    def send(self, node: int) -> Exchange:
        return Exchange(self.nodes[node], COOKIES, self.browser.header(), False)

    def add(self, node: int, article: str) -> list[str]:
        """A whole request that puts one more article in; its answer is not received yet."""
        exchange = self.send(node)
        exchange.session[article] = exchange.session.get(article, 0) + 1
        return exchange.finish(200)

    def cart(self, node: int) -> dict[str, object]:
        return dict(self.send(node).session)

    def passes(self, seconds: float) -> None:
        self.now_s += seconds
        self.database.pass_s(seconds)
        self.browser.later(seconds)


def test_an_answer_that_only_shows_what_another_request_stored_takes_nothing_back_when_it_comes_last() -> None:
    scene = Scene()
    scene.browser.receive(scene.add(0, "shoes"))
    reading = scene.send(1)
    changed = scene.add(0, "shoes")
    assert reading.session["shoes"] == 2
    read = reading.finish(200)  # shows what the other request has stored, and is slow to come
    scene.browser.receive(changed)
    scene.browser.receive(scene.add(0, "shoes"))
    assert scene.cart(0) == {"shoes": 3}
    scene.browser.receive(read)
    assert scene.cart(1) == {"shoes": 3}  # this node has a copy of the second version


def test_an_answer_that_is_late_by_more_than_copies_are_trusted_takes_nothing_back() -> None:
    scene = Scene()
    scene.browser.receive(scene.add(0, "shoes"))
    slow, quick = scene.send(0), scene.send(1)
    for exchange, article in ((slow, "hat"), (quick, "scarf")):
        exchange.open()
        exchange.session[article] = 1
    late, early = slow.finish(200), quick.finish(200)
    scene.browser.receive(early)
    scene.browser.receive(scene.add(0, "shoes"))
    scene.passes(300)
    assert scene.cart(1)["shoes"] == 2  # the other node knows this version now
    scene.browser.receive(scene.add(0, "shoes"))
    scene.browser.receive(late)
    for node in (0, 1):
        assert scene.cart(node) == {"shoes": 3, "hat": 1, "scarf": 1}


def test_while_a_browser_has_a_marker_each_change_is_marked_and_one_marker_is_kept() -> None:
    scene = Scene()
    scene.browser.receive(scene.add(0, "shoes"))
    slow = scene.send(0)
    slow.session["hat"] = 1
    quick = scene.send(1)
    quick.session["scarf"] = 1
    late, early = slow.finish(200), quick.finish(200)
    scene.browser.receive(early)
    for turn in range(2, 8):
        scene.browser.receive(scene.add(turn % 2, "shoes"))
        assert len(scene.browser.cookies) == 2
        assert scene.cart(1 - turn % 2)["shoes"] == turn
    scene.browser.receive(late)
    assert scene.cart(0)["shoes"] == scene.cart(1)["shoes"] == 7
    scene.passes(606)
    assert len(scene.browser.cookies) == 1
    assert scene.cart(0)["shoes"] == 7


def test_an_answer_to_an_old_id_that_comes_after_a_login_shows_nothing_older_than_was_seen() -> None:
    scene = Scene()
    scene.browser.receive(scene.add(0, "shoes"))
    slow, quick = scene.send(0), scene.send(1)
    for exchange, article in ((slow, "hat"), (quick, "scarf")):
        exchange.open()
        exchange.session[article] = 1
    late, early = slow.finish(200), quick.finish(200)
    scene.browser.receive(early)
    login = scene.send(1)
    login.session.rotate()
    scene.browser.receive(login.finish(200))
    scene.browser.receive(late)  # puts the old cookie back
    for node in (0, 1):
        assert scene.cart(node) == {}  # not the first node's copy of what there was before the scarf
