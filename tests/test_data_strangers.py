"""Anybody who reaches the data server's port may call himself a node: what he says spoils nothing for the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from farmsyncd.core.messages import Message
from farmsyncd.core.messages.operating import Report, Status
from farmsyncd.core.messages.schedule import Flipped, Noted, Schedule, Standing
from farmsyncd.core.naming import MOST
from farmsyncd.core.refusal import Refused
from farmsyncd.data.access import Operators
from farmsyncd.data.roster import LONGEST_DETAIL
from tests.dataserver import Peer, Room, told, tree

HOSTILE = b"\x1b[31mfailed\x1b]0;owned\x07\r\n" + b"x" * 1_000_000


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path / "state")
    yield room
    room.close()


@pytest.fixture
def stranger(room: Room) -> Peer:
    return room.peer("node", "stranger", address="10.9.9.9:9")


def expect_harmless(text: str) -> None:
    assert text.isprintable()
    assert text.startswith("?[31mfailed?")
    assert len(text) == LONGEST_DETAIL


def test_what_a_node_says_about_itself_is_short_and_fit_for_any_terminal(
    room: Room, stranger: Peer, tmp_path: Path
) -> None:
    version = room.operator().publish("shop", tree(tmp_path / "site", a="a")).version
    stranger.say(Standing("shop", "failed", None, None, None, None, None, None, HOSTILE))
    room.pass_(11)
    assert Noted("shop", 1) in stranger.say(Flipped("shop", 1, version, room.hands.ns, 1, HOSTILE))
    (node,) = told(room.operator().ask(Status()))["nodes"]
    expect_harmless(node["detail"])
    (flip,) = told(room.operator().ask(Report("shop", 1)))["nodes"]
    expect_harmless(flip["detail"])


@pytest.mark.parametrize("say", ["SCHEDULE", "STANDING"])
def test_a_node_follows_no_more_datasets_than_there_may_be(room: Room, stranger: Peer, say: str) -> None:
    def names(number: int) -> Message:
        name = f"made-up-{number}"
        if say == "SCHEDULE":
            return Schedule(name)
        return Standing(name, "empty", None, None, None, None, None, None, b"")

    stranger.say(*map(names, range(MOST)))
    stranger.say(*map(names, range(MOST)))
    assert stranger.gone is None
    stranger.say(names(MOST))
    assert stranger.gone == f"expected a node to follow at most {MOST} datasets, as many as there may be"
    assert len(list(room.parts.roster.records())) == (MOST if say == "STANDING" else 0)


@pytest.mark.parametrize(
    ("named", "address"),
    [(("10.0.0.0/8",), "a local socket"), (("10.0.0.0/8",), "192.0.2.1:5"), (("unix",), "127.0.0.1:5"), ((), "::1:5")],
)
def test_who_is_not_named_as_an_operator_changes_nothing_from_nearby_either(
    named: tuple[str, ...], address: str
) -> None:
    with pytest.raises(Refused, match=f"CANCEL is allowed from .*, and you come from {address}"):
        Operators(named).expect(address, "CANCEL")
    Operators((*named, "unix", "0.0.0.0/0", "::/0")).expect(address, "CANCEL")
