"""Parallel requests of one session over real HTTP and real databases, from one browser and through two nodes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.browser import Browser
from tests.session_shop import Shop

CLIENTS = 6
EACH = 5


@pytest.fixture(params=["sqlite", "postgresql"])
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Shop]]:
    """Two nodes that share a database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/sessions.db"
    else:
        url = str(request.getfixturevalue("postgres_url"))
    with Shop(url) as one, Shop(url) as other:
        yield [one, other]


def test_nothing_that_was_acknowledged_is_lost_and_nothing_goes_back(nodes: list[Shop]) -> None:
    browser, turn = Browser(), threading.Lock()
    nodes[0].put(browser, start=True)

    def shopping(client: int) -> int:
        """Puts its keys, each until it is acknowledged; how many of its own it saw the last time."""
        seen = 0
        for number in range(EACH):
            node = nodes[(client + number) % 2]
            while True:
                with turn:  # the browser is one, its requests are not
                    header = browser.header()
                answer = node.ask("put", header, b'{"%d-%d": 1}' % (client, number))
                if answer.status == 200:
                    break
                assert answer.status == 409
            with turn:
                browser.receive(answer.all("Set-Cookie"))
            mine = sum(1 for key in answer.told if key.startswith(f"{client}-"))
            assert mine == number + 1 > seen
            seen = mine
        return seen

    with ThreadPoolExecutor(CLIENTS) as clients:
        assert list(clients.map(shopping, range(CLIENTS))) == [EACH] * CLIENTS
    for node in nodes:
        assert len(node.ask("cart", browser).told) == CLIENTS * EACH + 1
    assert browser.refused == []
    assert len(nodes[0].rows()) == 1


def test_a_login_on_one_node_ends_the_old_id_on_the_other(nodes: list[Shop]) -> None:
    shopper = Browser()
    nodes[0].put(shopper, card="4111")
    old = shopper.twin()
    assert nodes[1].ask("cart", shopper).told == {"card": "4111"}
    assert nodes[0].ask("login", shopper, b"alice").status == 200
    assert nodes[1].ask("cart", shopper).told == {"card": "4111", "user": "alice"}
    # What the other node may still show of the old id for a moment, it cannot change any more.
    assert nodes[1].put(old, stolen=1).status in (200, 409)
    assert nodes[1].ask("cart", shopper).told == {"card": "4111", "user": "alice"}
