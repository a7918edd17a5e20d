"""The three promises about sessions, each in one plain story, over real databases and two nodes that share one.

tests/test_sessions_model.py looks for what these stories do not tell.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farmsyncd.core.session.cookies import presented
from farmsyncd.core.session.faults import SessionConflict, SessionGone
from farmsyncd.core.session.token import Token, new_id
from farmsyncd.sessions.engine import Sessions
from farmsyncd.sessions.exchange import Exchange
from farmsyncd.sessions.settings import CookieSettings, SessionSettings
from tests.browser import Browser

COOKIES = CookieSettings()
Nodes = tuple[Sessions, Sessions]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sessions.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def start(url: str) -> Iterator[Callable[[float], Sessions]]:
    """Starts a node that trusts a copy for so many seconds."""
    started: list[Sessions] = []

    def one(revalidate_after_s: float) -> Sessions:
        started.append(Sessions.at(url, SessionSettings(revalidate_after_s=revalidate_after_s, sweep_every_s=0)))
        return started[-1]

    yield one
    for sessions in started:
        sessions.close()


def send(browser: Browser, node: Sessions) -> Exchange:
    """A request with the cookies that the browser has now."""
    return Exchange(node, COOKIES, browser.header(), False)


def add(exchange: Exchange, article: str) -> None:
    """Put one more of an article into the cart; each article is a key."""
    exchange.session[article] = exchange.session.get(article, 0) + 1


def test_i_10_what_was_answered_is_kept_over_the_nodes_end_a_move_and_requests_at_once(
    start: Callable[[float], Sessions],
) -> None:
    here, there, browser = start(3600), start(3600), Browser()
    first = send(browser, here)
    add(first, "shoes")
    browser.receive(first.finish(200))

    one, other, late = send(browser, here), send(browser, there), send(browser, there)
    for exchange in (one, other, late):
        exchange.open()  # all three know of one pair of shoes
    add(one, "hat")
    add(other, "scarf")
    add(late, "hat")
    browser.receive(one.finish(200))
    browser.receive(other.finish(200))
    with pytest.raises(SessionConflict) as caught:  # it would make one hat of two
        late.finish(200)
    assert caught.value.key == "hat"

    here.close()  # that node is gone, with all that it had in memory
    again = send(browser, start(3600))
    assert dict(again.session) == {"shoes": 1, "hat": 1, "scarf": 1}
    add(again, "hat")
    browser.receive(again.finish(200))
    assert dict(send(browser, there).session) == {"shoes": 1, "hat": 2, "scarf": 1}


def test_i_11_nobody_sees_their_session_go_backwards_whichever_node_and_whichever_answer_comes_last(
    start: Callable[[float], Sessions],
) -> None:
    here, there, browser = start(3600), start(3600), Browser()  # copies are trusted for an hour, unless they are older
    first = send(browser, here)
    add(first, "shoes")
    browser.receive(first.finish(200))
    assert send(browser, there).session["shoes"] == 1  # both nodes have a copy now
    for turn in range(2, 6):
        node, other = (here, there) if turn % 2 else (there, here)
        change = send(browser, node)
        add(change, "shoes")
        browser.receive(change.finish(200))
        assert send(browser, other).session["shoes"] == turn

    slow, fast = send(browser, here), send(browser, there)
    slow.open()
    fast.open()
    add(slow, "hat")
    add(fast, "scarf")
    answers = [slow.finish(200), fast.finish(200)]  # the second is made of both changes
    browser.receive(answers[1])
    assert {"hat", "scarf"} <= set(send(browser, here).session)
    browser.receive(answers[0])  # an older cookie takes the place of the newer one
    assert {"hat", "scarf"} <= set(send(browser, here).session)
    assert {"hat", "scarf"} <= set(send(browser, there).session)


def test_i_12_no_id_is_taken_that_was_not_issued_and_one_that_was_rotated_or_destroyed_opens_nothing(
    start: Callable[[float], Sessions],
) -> None:
    here, there = start(3600), start(0)
    planted = Token(new_id(secrets.token_bytes(32)), 1)
    victim = Browser()
    victim.receive([f"{COOKIES.name}={planted.spell()}"])
    first = send(victim, here)
    assert first.session.is_new
    add(first, "shoes")
    victim.receive(first.finish(200))
    issued = presented(victim.header(), COOKIES, False).token
    assert issued is not None
    assert issued.id != planted.id
    assert here.store.read(planted.digest) is None

    thief = victim.twin()  # whoever knows the id has the session, until it is another one
    assert send(thief, there).session["shoes"] == 1
    login, running = send(victim, here), send(victim, there)
    running.open()
    login.session.rotate()
    login.session["user"] = "ada"
    victim.receive(login.finish(200))
    assert here.store.read(issued.digest) is None
    for node in (here, there):
        assert send(thief, node).session.is_new
        assert send(victim, node).session["user"] == "ada"
    running.session["shoes"] = 5
    with pytest.raises(SessionGone):  # what had begun under the old id does not bring it back
        running.finish(200)

    logged_in = victim.twin()
    logout = send(victim, there)
    logout.session.destroy()
    victim.receive(logout.finish(200))
    assert victim.header() is None
    assert send(logged_in, there).session.is_new
    assert send(logged_in, start(3600)).session.is_new
    assert here.store.stats().live == 0
