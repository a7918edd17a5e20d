"""Versions that nodes must keep, because an operator said so."""

from __future__ import annotations

from farmsyncd.core.messages.schedule import Pins
from farmsyncd.core.naming import MOST
from farmsyncd.core.refusal import Refused
from farmsyncd.edges.catalog import Catalog, PinRecord
from farmsyncd.edges.workthread import WorkThread


class PinBoard:
    """All pins: in the catalog, and in memory to answer from."""

    def __init__(self, catalog: Catalog, thread: WorkThread) -> None:
        self._catalog = catalog
        self._thread = thread
        self._pins: set[PinRecord] = set()

    def load(self) -> None:
        """Read the pins from the catalog; blocks, and comes before all else."""
        self._pins = set(self._catalog.pins())

    async def pin(self, node: str, dataset: str, version: str) -> None:
        """Add a pin, durably. Raises Refused when there are too many."""
        one = PinRecord(node, dataset, version)
        if one not in self._pins and len(self.message(node, dataset).versions) >= MOST:
            raise Refused("refused", f"expected at most {MOST} pins of {node} in {dataset}: unpin those first")
        await self._thread.run(self._catalog.pin, one)
        self._pins.add(one)

    async def unpin(self, node: str, dataset: str) -> int:
        """Drop a node's pins in a dataset, durably; how many there were."""
        count = await self._thread.run(self._catalog.unpin, node, dataset)
        self._pins = {one for one in self._pins if (one.node, one.dataset) != (node, dataset)}
        return count

    def message(self, node: str, dataset: str) -> Pins:
        """What a node is told."""
        versions = sorted(one.version for one in self._pins if (one.node, one.dataset) == (node, dataset))
        return Pins(dataset, tuple(versions))

    def versions(self) -> set[tuple[str, str]]:
        """(dataset, version) of all pins."""
        return {(one.dataset, one.version) for one in self._pins}

    def all(self) -> list[PinRecord]:
        """All pins, sorted."""
        return sorted(self._pins, key=lambda one: (one.node, one.dataset, one.version))
