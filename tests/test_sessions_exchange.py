"""One request and its response: which cookies go, what is stored when, and what is answered when it cannot be."""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs
import pytest

from farmsyncd.core.session.faults import (
    NotStorable,
    SessionClosed,
    SessionConflict,
    SessionError,
    SessionGone,
    SessionTooLarge,
    StoreUnavailable,
    WrongSchema,
)
from farmsyncd.errors import FarmsyncError
from farmsyncd.sessions.exchange import Exchange, answer_for
from farmsyncd.sessions.session import Session
from farmsyncd.sessions.settings import CookieSettings, SessionSettings
from tests.session_farm import QUIET, Farm, Node, foreign, known
from tests.sessions_memory import MemoryStore

ATTRIBUTES = "; Max-Age=1209600; Path=/; HttpOnly; SameSite=Lax"


@pytest.fixture
def farm() -> Farm:
    return Farm()


@pytest.fixture
def node(farm: Farm) -> Node:
    return farm.node()


def cookie(session: Session) -> str:
    return f"farmsync={known(session).spell()}"


def started(node: Node, **state: object) -> str:
    """The ``Cookie`` header of a client that has a session."""
    exchange = node.exchange()
    exchange.session.update(state)
    (line,) = exchange.finish(200)
    node.calls()
    return line.partition(";")[0]


def names(lines: list[str]) -> list[str]:
    return [line.partition("=")[0] for line in lines]


def test_a_request_that_does_not_use_its_session_costs_nothing(node: Node) -> None:
    exchange = node.exchange(f"farmsync={foreign().spell()}")
    assert (exchange.finish(200), exchange.opened, exchange.accessed, node.calls()) == ([], False, False, {})


def test_a_session_that_was_looked_up_for_nothing_costs_no_touch_and_no_cookie(farm: Farm) -> None:
    node = farm.node(attrs.evolve(QUIET, revalidate_after_s=1e9))
    header = started(node, a=1)
    farm.pass_s(7 * 86_400)
    exchange = node.exchange(header)
    exchange.open()
    assert (exchange.opened, exchange.accessed, exchange.finish_asks(200)) == (True, False, False)
    assert (exchange.finish(200), node.calls()) == ([], {})


def test_the_first_thing_put_in_sets_the_cookie(node: Node) -> None:
    exchange = node.exchange()
    exchange.session["a"] = 1
    assert exchange.finish(200) == [cookie(exchange.session) + ATTRIBUTES]
    assert exchange.session.closed


def test_an_empty_new_session_sets_none(node: Node) -> None:
    exchange = node.exchange()
    assert (exchange.session.get("a"), exchange.accessed, exchange.finish(200)) == (None, True, [])


def test_reading_what_the_client_has_seen_sets_none_and_asks_nothing(node: Node) -> None:
    exchange = node.exchange(started(node, a=1))
    assert (exchange.session["a"], exchange.finish(200), node.calls()) == (1, [], {})


def test_a_change_sets_the_cookie_of_the_next_version(node: Node) -> None:
    header = started(node, a=1)
    exchange = node.exchange(header)
    exchange.session["a"] = 2
    (line,) = exchange.finish(200)
    assert line == header.removesuffix(".1") + ".2" + ATTRIBUTES


def test_a_version_that_others_had_a_part_in_is_marked(farm: Farm, node: Node) -> None:
    header = started(node, a=1, b=1)
    mine, theirs = node.exchange(header), farm.node().exchange(header)
    mine.session["a"], theirs.session["b"] = 2, 2
    assert names(theirs.finish(200)) == ["farmsync"]
    (marker,) = mine.finish(200)
    assert marker.startswith("farmsync-v3-")
    # So the client presents version 3, whichever of the two responses came first.
    stale = farm.node(store=MemoryStore(farm.database, news_arrive=False))
    exchange = stale.exchange(f"{header.removesuffix('.1')}.2; {marker.partition(';')[0]}")
    assert (dict(exchange.session), exchange.presented.marked) == ({"a": 2, "b": 2}, True)


def test_reading_a_version_that_others_wrote_sets_a_marker_alone(farm: Farm, node: Node) -> None:
    header = started(node, a=1)
    other = farm.node().exchange(header)
    other.session["a"] = 2
    other.finish(200)
    farm.pass_s(5)
    exchange = node.exchange(header)
    assert exchange.session["a"] == 2
    (marker,) = exchange.finish(200)
    assert marker.startswith("farmsync-v2-")


@pytest.mark.parametrize("settings", [attrs.evolve(QUIET, revalidate_after_s=0), QUIET])
def test_nothing_is_marked_where_no_copy_is_ever_older_than_the_database(farm: Farm, settings: SessionSettings) -> None:
    exact = settings.revalidate_after_s > 0
    nodes = [farm.node(settings, MemoryStore(farm.database, exact=exact)) for _ in range(2)]
    header = started(nodes[0], a=1, b=1)
    mine, theirs = nodes[0].exchange(header), nodes[1].exchange(header)
    mine.session["a"], theirs.session["b"] = 2, 2
    theirs.finish(200)
    assert names(mine.finish(200)) == ["farmsync"]


def test_several_commits_of_one_request_set_one_cookie(node: Node) -> None:
    exchange = node.exchange(started(node, n=0))
    for number in range(3):
        exchange.session["n"] = number + 1
        exchange.session.commit()
    assert exchange.finish(200) == [cookie(exchange.session) + ATTRIBUTES]
    assert exchange.session.version == 4


def test_a_rotated_session_sets_the_cookie_of_its_new_id(node: Node) -> None:
    header = started(node, a=1)
    exchange = node.exchange(header)
    exchange.session.rotate()
    (line,) = exchange.finish(200)
    assert line == cookie(exchange.session) + ATTRIBUTES
    assert line[:52] != header[:52]
    late = node.exchange(header)
    assert (dict(late.session), late.finish(200)) == ({}, [])


def test_only_the_request_that_destroys_a_session_deletes_its_cookie(node: Node) -> None:
    header = started(node, a=1)
    exchange = node.exchange(header)
    exchange.session.destroy()
    assert exchange.finish(200) == ["farmsync=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax"]
    for text in (header, f"farmsync={foreign().spell()}", "farmsync=garbage"):
        other = node.exchange(text)
        other.session.destroy()
        assert (dict(other.session), other.finish(200)) == ({}, [])


def test_a_new_session_after_destroy_sets_its_own_cookie(node: Node) -> None:
    exchange = node.exchange(started(node, a=1))
    exchange.session.destroy()
    exchange.session["farewell"] = 1
    assert exchange.finish(200) == [cookie(exchange.session) + ATTRIBUTES]


def test_a_session_whose_cookie_goes_with_the_browser_has_no_max_age(node: Node) -> None:
    exchange = node.exchange()
    exchange.session["a"] = 1
    exchange.permanent = False
    assert exchange.finish(200) == [cookie(exchange.session) + "; Path=/; HttpOnly; SameSite=Lax"]


def test_a_cookie_lives_as_long_as_its_session(farm: Farm) -> None:
    node = farm.node(SessionSettings(idle_s=1000, absolute_s=1500, sweep_every_s=0))
    header = started(node, a=1)
    farm.pass_s(900)
    exchange = node.exchange(header)
    exchange.session["a"] = 2
    (line,) = exchange.finish(200)
    assert "; Max-Age=600;" in line


def test_a_request_over_tls_sets_a_cookie_that_no_other_host_can_set(node: Node) -> None:
    exchange = node.exchange(secure=True)
    exchange.session["a"] = 1
    (line,) = exchange.finish(200)
    assert line.startswith("__Host-farmsync=")
    assert "; Secure; HttpOnly; SameSite=Lax" in line
    assert node.exchange(line.partition(";")[0], secure=True).session["a"] == 1
    assert dict(node.exchange(line.partition(";")[0]).session) == {}


@pytest.mark.parametrize("status", [500, 503, 599])
def test_a_response_that_says_the_server_failed_stores_nothing(node: Node, status: int) -> None:
    header = started(node, a=1)
    exchange = node.exchange(header)
    exchange.session["a"] = 2
    exchange.session.rotate()
    assert (exchange.finish_asks(status), exchange.finish(status), node.calls()) == (False, [], {})
    assert node.exchange(header).session["a"] == 1


def test_what_was_committed_before_a_failure_reaches_the_client(node: Node) -> None:
    exchange = node.exchange(started(node, a=1))
    exchange.session.rotate()
    exchange.session.commit()
    exchange.session["a"] = 2
    assert exchange.finish(500) == [cookie(exchange.session) + ATTRIBUTES]


def test_what_was_committed_before_a_conflict_reaches_the_client(farm: Farm, node: Node) -> None:
    exchange = node.exchange(started(node, a=1))
    exchange.session.rotate()
    exchange.session.commit()
    farm.node().set(known(exchange.session), a=3)
    exchange.session["a"] = 2
    with pytest.raises(SessionConflict) as caught:
        exchange.finish(200)
    status, headers, _body = exchange.answer(caught.value)
    assert (status, headers[-1]) == (409, ("Set-Cookie", cookie(exchange.session) + ATTRIBUTES))


def test_nothing_can_be_changed_once_it_is_finished(node: Node) -> None:
    exchange = node.exchange(started(node, a=1))
    session = exchange.session
    assert session["a"] == 1
    exchange.finish(200)
    with pytest.raises(SessionClosed):
        session["a"] = 2
    assert (exchange.finish(200), session["a"]) == ([], 1)


def test_it_is_closed_after_a_commit_that_failed_and_after_it_was_abandoned(node: Node) -> None:
    failed, abandoned = (node.exchange(started(node, a=1)) for _ in range(2))
    failed.session["a"] = 2
    node.store.away = True
    with pytest.raises(StoreUnavailable):
        failed.finish(200)
    abandoned.abandon()
    assert (failed.session.closed, abandoned.session.closed) == (True, True)


@pytest.mark.parametrize(
    ("use", "asks"),
    [
        (lambda session: session["a"], False),
        (lambda session: session["list"], False),
        (lambda session: session.update(a=1), False),
        (lambda session: session.update(a=2), True),
        (lambda session: session["list"].append(1), True),
        (lambda session: session.rotate(), True),
        (lambda session: session.destroy(), True),
        (lambda session: session["list"].append(object()), False),  # it fails without the database
    ],
)
def test_it_is_known_whether_finishing_asks_the_database(
    node: Node, use: Callable[[Session], object], asks: bool
) -> None:
    exchange = node.exchange(started(node, a=1, list=[]))
    use(exchange.session)
    assert exchange.finish_asks(200) is asks
    try:
        exchange.finish(200)
    except NotStorable:
        assert node.calls() == {}
    else:
        assert bool(node.calls()) is asks


def test_finishing_asks_the_database_when_a_touch_is_due(farm: Farm, node: Node) -> None:
    header = started(node, a=1)
    farm.pass_s(2 * 86_400)
    exchange = node.exchange(header)
    assert (exchange.session["a"], exchange.finish_asks(200)) == (1, True)
    assert exchange.finish(200) == [cookie(exchange.session) + ATTRIBUTES]


def test_open_cached_opens_without_the_database_or_not_at_all(farm: Farm, node: Node) -> None:
    header = started(node, a=1)
    other = farm.node().exchange(header)
    assert (other.open_cached(), other.opened) == (None, False)
    assert dict(other.open()) == {"a": 1}
    assert other.open_cached() is other.open() is other.session
    hit, new = node.exchange(header), node.exchange("other=1")
    assert (hit.open_cached(), new.open_cached()) == (hit.session, new.session)
    assert (hit.session["a"], new.session.is_new, node.calls()) == (1, True, {})


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SessionConflict("cart"), 409),
        (SessionGone(), 409),
        (StoreUnavailable("expected db:5432 to answer, it did not"), 503),
        (SessionTooLarge("cart (90000)"), 500),
        (NotStorable("cart[3]: found object"), 500),
        (SessionError("something"), 500),
        (WrongSchema("newer"), 500),
    ],
)
def test_an_error_is_answered_by_a_page_that_a_person_can_read(
    error: FarmsyncError, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "farmsync.sessions"):
        code, headers, body = answer_for(error)
    fields = dict(headers)
    assert (code, fields["Content-Type"], fields["Cache-Control"]) == (status, "text/plain; charset=utf-8", "no-store")
    assert (fields["Content-Length"], fields.get("Retry-After")) == (str(len(body)), "1" if status == 503 else None)
    assert body.decode().endswith(".\n")
    for inside in ("cart", "db:5432", "newer", "object"):
        assert inside not in body.decode()
    lines = [record for record in caplog.records if str(error) in record.getMessage()]
    assert [line.levelno for line in lines] == {409: [logging.INFO], 503: [], 500: [logging.ERROR]}[status]


def test_no_id_reaches_a_log(farm: Farm, caplog: pytest.LogCaptureFixture) -> None:
    node = farm.node(attrs.evolve(QUIET, warn_bytes=10))
    ids: set[str] = set()
    with caplog.at_level(logging.DEBUG):
        header = started(node, a="x" * 100)
        exchange = Exchange(node.sessions, CookieSettings(), header.removesuffix(".1") + ".9", False)
        other = farm.node().exchange(header)
        exchange.session["a"], other.session["a"] = 1, 2
        ids |= {exchange.session.id}
        other.finish(200)
        with pytest.raises(SessionConflict) as caught:
            exchange.finish(200)
        exchange.answer(caught.value)
    assert len(caplog.records) >= 3
    assert not [record for record in caplog.records for one in ids if one in record.getMessage()]


def test_a_session_that_was_closed_by_its_layer_is_still_stored_by_finish(node: Node) -> None:
    exchange = node.exchange(started(node, a=1))
    exchange.session["a"] = 2
    exchange.session.close()
    with pytest.raises(SessionClosed):
        exchange.session["a"] = 3
    assert len(exchange.finish(200)) == 1
    assert node.shows(known(exchange.session)) == {"a": 2}
    assert exchange.finish(200) == []


def test_nothing_is_stored_once_it_was_abandoned(node: Node) -> None:
    exchange = node.exchange(started(node, a=1))
    exchange.session["a"] = 2
    exchange.abandon()
    assert (exchange.finish(200), node.calls()) == ([], {})


def test_a_change_inside_a_value_after_the_response_began_is_warned_of(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    header = started(node, cart=[1])
    good, late, failed = (node.exchange(header) for _ in range(3))
    for exchange, status in ((good, 200), (late, 200), (failed, 500)):
        exchange.session["cart"].append(2)
        exchange.session["cart"].pop()
        exchange.finish(status)
    for exchange in (late, failed):
        exchange.session["cart"].append(3)
    for exchange in (good, late, failed):
        exchange.abandon()
        exchange.abandon()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.endswith("version 1> was changed after its response had begun, which is not stored: 'cart'")
