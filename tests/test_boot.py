"""What a node takes for its active version when it starts, whatever step its end has interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from farmsyncd.core.pointer import Pointer
from farmsyncd.core.snapshot import Manifest
from farmsyncd.core.standing import Turn
from farmsyncd.node.boot import Found, look
from farmsyncd.node.record import FlipNote, Record, Served
from tests.trees import file_entry

ONE, TWO = (Manifest.of([file_entry(b"name", name)]) for name in (b"one", b"two"))
FIRST, SECOND = Turn(1, ONE.version, 1_000), Turn(2, TWO.version, 2_000)
BOOT = bytes(16)


@attrs.frozen
class Disk:
    """A cache directory of which all is known."""

    link: str | None
    manifests: tuple[Manifest, ...] = (ONE, TWO)

    def versions(self) -> list[str]:
        return sorted(one.version for one in self.manifests)

    def manifest(self, version: str) -> bytes | None:
        return next((one.encoded for one in self.manifests if one.version == version), None)

    def active_link(self) -> str | None:
        return self.link

    def version_path(self, version: str) -> Path:
        return Path(version)


def start(
    link: str | None,
    active: Turn | None = FIRST,
    pending: Turn | None = SECOND,
    announced: Pointer | None = None,
    now_ns: int = 0,
    damaged: str = "",
) -> Found:
    """What is found with this link, this record and this pointer."""

    def check(path: Path, manifest: Manifest) -> str:
        del manifest
        return "it is spoilt" if path.name == damaged else ""

    disk: Any = Disk(link)
    return look(disk, Record(active=Served.of(active), pending=Served.of(pending)), announced, now_ns, check)


def told(cycle: int = 2) -> Pointer:
    """What readers were told: TWO comes when the machine's clock shows 500."""
    return Pointer(ONE.version, 1, TWO.version, cycle, 500, BOOT)


def test_before_the_link_was_replaced_the_former_version_is_active_and_the_next_one_comes() -> None:
    found = start(ONE.version)
    assert (found.active, found.pending) == (FIRST, SECOND)


def test_the_link_is_ahead_of_the_record() -> None:
    found = start(TWO.version)
    assert (found.active, found.pending) == (SECOND, None)
    assert start(ONE.version, None, FIRST).active == FIRST


def test_a_link_says_nothing_where_both_turns_are_of_one_version() -> None:
    again = Turn(2, ONE.version, 2_000)
    found = start(ONE.version, FIRST, again)
    assert (found.active, found.pending) == (FIRST, again)


@pytest.mark.parametrize(("now_ns", "active"), [(499, FIRST), (500, SECOND)])
def test_readers_are_ahead_of_the_link(now_ns: int, active: Turn) -> None:
    found = start(ONE.version, announced=told(), now_ns=now_ns)
    assert (found.active, found.pending) == (active, SECOND if active is FIRST else None)


def test_what_readers_were_told_of_another_cycle_counts_for_nothing() -> None:
    assert start(ONE.version, announced=told(3), now_ns=10_000).active == FIRST


def test_what_was_written_down_as_active_is_not_gone_back_from() -> None:
    found = start(ONE.version, SECOND, FIRST, told(1), 10_000)
    assert (found.active, found.pending) == (SECOND, None)


def test_a_version_that_is_damaged_or_not_there_is_not_active() -> None:
    found = start(ONE.version, damaged=ONE.version)
    assert (found.active, found.pending, set(found.complete)) == (None, SECOND, {TWO.version})
    assert [(one.version, one.what) for one in found.damaged] == [(ONE.version, "it is spoilt")]
    assert start("f" * 40, Turn(1, "f" * 40, 0)).active is None


def test_the_highest_cycle_stays_whatever_is_served() -> None:
    assert Record(highest=5).activated(SECOND).highest == 5
    assert Record(highest=1).activated(SECOND).highest == 2


def test_a_turn_that_is_swapped_to_again_is_one_activation() -> None:
    once = Record().activated(FIRST).activated(SECOND)
    assert once.activated(SECOND).activations == once.activations == (ONE.version, TWO.version)


def test_what_the_data_server_never_notes_does_not_pile_up() -> None:
    record = Record()
    for cycle in range(150):
        record = record.with_flips([FlipNote(cycle=cycle, version=ONE.version, activated_at_ns=1, error_bound_ns=1)])
    assert [flip.cycle for flip in record.flips] == list(range(50, 150))
