from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from farmsyncd.core.retention import KEEP, recent, removable

names = st.sampled_from([letter * 40 for letter in "abcdef"])


@given(st.lists(names), st.integers(0, 8))
def test_the_recent_versions_are_the_last_different_ones(activations: list[str], keep: int) -> None:
    found = recent(activations, keep)
    assert len(set(found)) == len(found) == min(keep, len(set(activations)))
    if found:
        assert found[-1] == activations[-1]
    last = {version: index for index, version in enumerate(activations)}
    assert [last[version] for version in found] == sorted(last[version] for version in found)
    others = set(activations) - set(found)
    assert all(last[other] < last[version] for other in others for version in found)


def test_what_was_never_active_goes_first_and_then_the_oldest() -> None:
    order = [letter * 40 for letter in "abcde"]
    never = "f" * 40
    gone = removable([*order, never], active=order[-1], activations=order, keep=2)
    assert gone == [never, order[0], order[1], order[2]]


def test_a_rollback_makes_its_version_a_recent_one() -> None:
    a, b, c, d = (letter * 40 for letter in "abcd")
    assert removable([a, b, c, d], active=a, activations=[a, b, c, d, a], keep=3) == [b]


class KeepingVersions(RuleBasedStateMachine):
    """A node's life: whatever happens, no version goes that somebody was promised."""

    def __init__(self) -> None:
        super().__init__()
        self.disk: set[str] = set()
        self.activations: list[str] = []
        self.staged: set[str] = set()
        self.pinned: set[str] = set()
        self.leased: set[str] = set()

    @property
    def active(self) -> str | None:
        return self.activations[-1] if self.activations else None

    @rule(version=names)
    def stage(self, version: str) -> None:
        self.disk.add(version)
        self.staged = {version}

    @precondition(lambda self: self.staged)
    @rule()
    def flip(self) -> None:
        (version,) = self.staged
        self.activations.append(version)
        self.staged = set()

    @rule()
    def cancel(self) -> None:
        self.staged = set()

    @precondition(lambda self: self.disk)
    @rule(data=st.data(), what=st.sampled_from(["pinned", "leased"]))
    def hold(self, data: st.DataObject, what: str) -> None:
        getattr(self, what).add(data.draw(st.sampled_from(sorted(self.disk))))

    @rule(what=st.sampled_from(["pinned", "leased"]))
    def let_go(self, what: str) -> None:
        getattr(self, what).clear()

    @rule(keep=st.integers(1, 5))
    def collect(self, keep: int) -> None:
        before = set(self.disk)
        gone = removable(
            before,
            active=self.active,
            staged=self.staged,
            pinned=self.pinned,
            leased=self.leased,
            activations=self.activations,
            keep=keep,
        )
        self.disk -= set(gone)
        held = {self.active} | self.staged | self.pinned | self.leased
        assert not held & set(gone)
        assert len(self.disk & set(self.activations)) >= min(keep, len(before & set(self.activations)))
        needless = self.disk - held
        assert needless <= set(recent(self.activations, keep)), "all that may go goes"

    @invariant()
    def what_is_promised_is_there(self) -> None:
        assert {self.active} - {None} <= self.disk
        assert self.staged | self.pinned | self.leased <= self.disk


TestKeepingVersions = KeepingVersions.TestCase


def test_three_are_kept_unless_said_otherwise() -> None:
    order = [letter * 40 for letter in "abcdef"]
    assert KEEP == 3
    assert removable(order, active=order[-1], activations=order) == order[:3]
