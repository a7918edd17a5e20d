"""What a data server remembers, as an interface: courses, cycles, versions, nodes, pins and flips.

A catalog is used by one thread at a time, each method is one transaction, and what has been returned from is durable.
Courses change in one way only, by :meth:`Catalog.advance`, a compare-and-swap: whoever planned a step upon a course
that has moved on in the meantime is told so and changes nothing. All times are farm time in nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import attrs

from farmsyncd.core.cycle import Course, Step


@attrs.frozen
class CycleRecord:
    """A cycle in the history.

    ``outcome`` is ``pending``, ``active``, ``past``, ``replaced`` or ``cancelled``; ``origin`` is ``publish``,
    ``rollback`` or ``periodic``; ``asked_by`` names who asked for it. ``rolled_over_at_ns`` is when the data server
    made it the active one, and ``rolled_over_by`` who came back first.
    """

    dataset: str
    number: int
    version: str
    activates_at_ns: int
    freezes_at_ns: int
    outcome: str
    origin: str
    asked_by: str
    asked_at_ns: int
    rolled_over_at_ns: int | None = None
    rolled_over_by: str | None = None


@attrs.frozen
class VersionRecord:
    """A version of a dataset that is kept here: when it was first published, its files and their bytes."""

    dataset: str
    version: str
    published_at_ns: int
    files: int
    total_bytes: int


@attrs.frozen
class NodeRecord:
    """How a node last said it stands with one dataset; see the protocol's STANDING."""

    name: str
    dataset: str
    state: str
    cycle: int | None
    version: str | None
    staged_cycle: int | None
    staged_version: str | None
    offset_ns: int | None
    error_bound_ns: int | None
    detail: str
    serve: str | None
    last_seen_ns: int


@attrs.frozen
class FlipRecord:
    """A node's swap of one cycle, as the node reckons it; ``error_bound_ns`` is the bound of its clock comparison."""

    dataset: str
    cycle: int
    node: str
    version: str
    activated_at_ns: int
    error_bound_ns: int
    detail: str


@attrs.frozen
class PinRecord:
    """A version that a node must keep."""

    node: str
    dataset: str
    version: str


@attrs.frozen
class Asked:
    """Who asked for a step, why (see CycleRecord.origin), and when."""

    origin: str
    by: str
    at_ns: int


class Catalog(Protocol):
    """The data server's memory."""

    def courses(self) -> list[Course]:
        """All datasets' courses, by name."""

    def course(self, dataset: str) -> Course | None:
        """The course of one dataset; None when nothing was ever published for it."""

    def advance(
        self, step: Step, asked: Asked, version: VersionRecord | None = None, expected: Iterable[str] = ()
    ) -> bool:
        """Carry out ``step`` if its course is still the one that it was planned for, and say whether it was.

        ``version`` describes the scheduled cycle's version; ``expected`` names the nodes that should report the flip
        of the activated cycle.
        """

    def history(self, dataset: str, limit: int) -> list[CycleRecord]:
        """The cycles of a dataset, newest first."""

    def cycle(self, dataset: str, number: int) -> CycleRecord | None:
        """One cycle."""

    def versions(self) -> list[VersionRecord]:
        """All versions that are kept, the oldest first."""

    def prune(self, dataset: str, keep: int) -> None:
        """Forget all but the newest ``keep`` cycles of a dataset, with their reports; never one of its course."""

    def drop_version(self, dataset: str, version: str) -> bool:
        """Forget that a version is kept, unless it is active or pending; whether it was forgotten."""

    def nodes(self) -> list[NodeRecord]:
        """All nodes that are known, by name and dataset."""

    def note_nodes(self, records: Iterable[NodeRecord]) -> None:
        """Replace what is known of these nodes and datasets."""

    def forget_nodes(self, keys: Iterable[tuple[str, str]]) -> None:
        """Forget how these nodes, each (name, dataset), stood; their pins and flips stay."""

    def note_flips(self, records: Iterable[FlipRecord]) -> None:
        """Add reports of flips to a version in a cycle that there is; the first of a node for a cycle stands."""

    def flips(self, dataset: str, cycle: int) -> list[FlipRecord]:
        """The reports of one cycle, by time."""

    def expected(self, dataset: str, cycle: int) -> list[str]:
        """The nodes that were known when the cycle was activated, by name."""

    def pins(self) -> list[PinRecord]:
        """All pins."""

    def pin(self, pin: PinRecord) -> None:
        """Add a pin; one that is there already is left."""

    def unpin(self, node: str, dataset: str) -> int:
        """Drop all pins of a node in a dataset; the number of them."""

    def close(self) -> None:
        """Let go of the storage."""
