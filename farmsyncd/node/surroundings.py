"""What the replicas of a node share: its clock, its threads for the disk, and whoever brings versions in."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from farmsyncd.core.farmtime import Estimate
from farmsyncd.core.snapshot import Manifest
from farmsyncd.core.standing import Turn
from farmsyncd.edges.cache.cachedir import CacheDir
from farmsyncd.edges.timing.clocks import LocalClock
from farmsyncd.node.hooks import Hooks
from farmsyncd.node.staging.spare import Spare
from farmsyncd.node.worker import Worker


@attrs.frozen
class Order:
    """A version to be brought in: into which cache, for when, and from what it may be made."""

    dataset: str
    turn: Turn
    cache: CacheDir
    bases: tuple[Manifest, ...]
    """Versions that are complete here, the active one first."""
    after: str | None
    """The version that is active here."""
    wait_s: float
    """For how long to wait first, so that a farm's nodes do not come all at once."""
    spare: Spare | None = None
    """Where links to the active version may have been made ahead."""


class Stager(Protocol):
    """Whoever brings versions in."""

    def bring(self, order: Order) -> Deferred[Manifest]:
        """Fetch, verify and adopt a version. Fails with a FarmsyncError that says what was wrong; may be cancelled."""

    def hush(self, seconds: float) -> None:
        """Do nothing that costs for so long: a swap is near."""


def _no_rest(_amount: int) -> None:
    pass


@attrs.frozen
class Surroundings:
    """What all replicas of a node share.

    ``disk`` writes down what a swap may wait for, ``cleaner`` removes what is not needed, which may take long.
    ``told`` is called with a dataset's name when its standing may have changed. ``keep`` is how many versions stay
    after they were active, ``spread_ns`` the time within which the farm's nodes begin to stage, ``random`` uniform in
    [0, 1), ``sleep`` what the last stretch before a swap is waited with, ``rest`` sleeps in a worker's thread while a
    swap is near.
    """

    clock: LocalClock
    wakes: IReactorTime
    estimate: Callable[[], Estimate | None]
    disk: Worker
    cleaner: Worker
    stager: Stager
    hooks: Hooks
    told: Callable[[str], None]
    random: Callable[[], float]
    keep: int = 3
    spread_ns: int = 500_000_000
    sleep: Callable[[float], None] = time.sleep
    rest: Callable[[int], None] = _no_rest

    def farm_ns(self) -> int | None:
        """Farm time now; None before the first clock comparison."""
        estimate = self.estimate()
        return None if estimate is None else estimate.farm_ns(self.clock.now_ns())
