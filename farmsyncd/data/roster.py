"""The nodes: which are connected, and how each last said that it stands with each dataset.

Standings are kept in memory and written to the catalog together, every few seconds: after a restart the farm is
known roughly, and nodes that come back say the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import attrs
from twisted.logger import Logger

from farmsyncd.core.messages.greeting import Hello
from farmsyncd.core.messages.schedule import Flipped, Standing
from farmsyncd.core.naming import MOST
from farmsyncd.core.words import printable
from farmsyncd.edges.catalog import Catalog, NodeRecord
from farmsyncd.edges.link import Link
from farmsyncd.edges.workthread import WorkThread
from farmsyncd.errors import PeerError

LONGEST_DETAIL: Final = 2000
"""Characters of what a node says about itself that are kept: anybody may call himself a node."""


@attrs.define(eq=False)
class Present:
    """A node that is connected.

    ``instance`` tells apart two nodes that were given one name; ``tell_pins`` tells it the pins of a dataset.
    """

    name: str
    instance: str | None
    link: Link
    serve: str | None
    tell_pins: Callable[[str], None]
    datasets: set[str] = attrs.Factory(set)

    def cares_for(self, dataset: str) -> None:
        """The node follows a dataset, which need not be there yet. Raises PeerError when there can be no such farm."""
        if dataset not in self.datasets and len(self.datasets) >= MOST:
            raise PeerError(f"expected a node to follow at most {MOST} datasets, as many as there may be")
        self.datasets.add(dataset)


def detail_of(message: Standing | Flipped) -> str:
    """What a node says about itself, as it may be kept and shown on any terminal."""
    return printable(message.detail.decode(errors="replace"), LONGEST_DETAIL)


class Roster:
    """All nodes that are known. ``expect_within_ns`` and ``forget_after_ns`` are those of the configuration."""

    _log = Logger()

    def __init__(
        self,
        catalog: Catalog,
        thread: WorkThread,
        now_ns: Callable[[], int],
        expect_within_ns: int,
        forget_after_ns: int,
    ) -> None:
        self._catalog = catalog
        self._thread = thread
        self._now_ns = now_ns
        self._expect_within_ns = expect_within_ns
        self._forget_after_ns = forget_after_ns
        self._present: dict[str, Present] = {}
        self._records: dict[tuple[str, str], NodeRecord] = {}
        self._unwritten: set[tuple[str, str]] = set()

    def load(self) -> None:
        """Read what is known from the catalog; blocks, and comes before all else."""
        self._records = {(one.name, one.dataset): one for one in self._catalog.nodes()}

    def admit(self, link: Link, hello: Hello, tell_pins: Callable[[str], None]) -> Present:
        """A node has come. Raises PeerError when another one of its name is here."""
        instance = hello.feature("instance")
        before = self._present.get(hello.name)
        if before is not None:
            if before.instance != instance:
                raise PeerError(
                    f"expected a node name of its own, and {hello.name} is connected from {before.link.address}; "
                    "give one of the two another --name"
                )
            before.link.close("the node has opened a newer connection")
        present = Present(hello.name, instance, link, hello.feature("serve"), tell_pins)
        self._present[hello.name] = present
        self._log.info("Node {name} is here, from {address}", name=hello.name, address=link.address)
        return present

    def leave(self, present: Present, reason: str) -> None:
        """A node's connection has ended."""
        if self._present.get(present.name) is not present:
            return  # replaced by a newer one
        del self._present[present.name]
        now_ns = self._now_ns()
        for dataset in present.datasets:
            record = self._records.get((present.name, dataset))
            if record is not None:
                self._put(attrs.evolve(record, last_seen_ns=now_ns))
        self._log.info("Node {name} is gone: {reason}", name=present.name, reason=reason)

    def stands(self, present: Present, standing: Standing) -> None:
        """A node has said how it stands."""
        present.cares_for(standing.dataset)
        self._put(
            NodeRecord(
                *(present.name, standing.dataset, standing.state, standing.cycle, standing.version),
                *(standing.staged_cycle, standing.staged_version, standing.offset, standing.error_bound),
                *(detail_of(standing), present.serve, self._now_ns()),
            )
        )

    def _put(self, record: NodeRecord) -> None:
        key = record.name, record.dataset
        self._records[key] = record
        self._unwritten.add(key)

    def present(self, name: str) -> Present | None:
        """The connection of a node, if it is connected."""
        return self._present.get(name)

    @property
    def connected(self) -> int:
        """How many nodes are connected."""
        return len(self._present)

    def known(self, name: str) -> bool:
        """Whether a node of this name was ever here and is not forgotten."""
        return name in self._present or any(node == name for node, _dataset in self._records)

    def records(self) -> Iterator[tuple[NodeRecord, bool]]:
        """All that is known, by name and dataset, and whether the node is connected.

        Who is, is seen now, as soon as it has told how it stands: until then its record is what it said before.
        """
        now_ns = self._now_ns()
        for (name, dataset), record in sorted(self._records.items()):
            present = self._present.get(name)
            told = present is not None and dataset in present.datasets
            yield (attrs.evolve(record, last_seen_ns=now_ns) if told else record), present is not None

    def versions_in_use(self) -> set[tuple[str, str]]:
        """(dataset, version) of all that nodes last said they have active or staged."""
        return {
            (one.dataset, version)
            for one in self._records.values()
            for version in (one.version, one.staged_version)
            if version is not None
        }

    def expected(self, dataset: str, now_ns: int) -> list[str]:
        """The nodes that should flip ``dataset`` now: those that are here for it, or were not long ago."""
        here = {one.name for one in self._present.values() if dataset in one.datasets}
        lately = {
            one.name
            for one in self._records.values()
            if one.dataset == dataset and one.last_seen_ns >= now_ns - self._expect_within_ns
        }
        return sorted(here | lately)

    async def write(self) -> None:
        """Write to the catalog what it does not know yet."""
        unwritten, self._unwritten = self._unwritten, set()
        records = [self._records[key] for key in sorted(unwritten) if key in self._records]
        if not records:
            return
        try:
            await self._thread.run(self._catalog.note_nodes, records)
        except Exception:
            self._unwritten |= unwritten
            raise

    async def forget_strangers(self) -> list[str]:
        """Forget the nodes that were not seen for long, and what those that are here follow no more; their names."""
        now_ns = self._now_ns()
        oldest_ns = now_ns - self._forget_after_ns
        fresh = {one.name for one in self._records.values() if one.last_seen_ns >= oldest_ns} | self._present.keys()
        gone = sorted({name for name, _dataset in self._records} - fresh)
        forgotten = [key for key, one in self._records.items() if key[0] not in fresh or self._dropped(one, now_ns)]
        for key in forgotten:
            del self._records[key]
        if forgotten:
            await self._thread.run(self._catalog.forget_nodes, forgotten)
        if gone:
            self._log.info("Forgot the nodes {names}, not seen for long", names=", ".join(gone))
        return gone

    def _dropped(self, record: NodeRecord, now_ns: int) -> bool:
        """Whether a node that is here followed a dataset once, and does not any more."""
        present = self._present.get(record.name)
        if present is None or record.dataset in present.datasets:
            return False
        return record.last_seen_ns < now_ns - self._expect_within_ns
