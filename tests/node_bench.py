"""A node's parts on a bench: a clock that only the test moves, work that is done at once, and a real directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import attrs
from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.task import Clock

from farmsyncd.core.farmtime import Behaviour, Estimate
from farmsyncd.core.messages.schedule import Plan
from farmsyncd.core.snapshot import Manifest
from farmsyncd.core.standing import Turn
from farmsyncd.edges.cache.cachedir import CacheDir
from farmsyncd.edges.cache.pointerfile import PointerFile, boot_id
from farmsyncd.node.boot import Check, look
from farmsyncd.node.checking import by_hash
from farmsyncd.node.hooks import Flip
from farmsyncd.node.pointing import Pointing
from farmsyncd.node.record import RecordFile
from farmsyncd.node.replica import Replica
from farmsyncd.node.staging.work import Hush, Work
from farmsyncd.node.surroundings import Order, Surroundings
from tests.fake_data_server import Published, published

P = ParamSpec("P")
T = TypeVar("T")

S = 1_000_000_000
AHEAD = 5 * 3600 * S
"""Farm time minus the node's clock, on the bench."""


class Inline:
    """Does work at once, in the caller's thread."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.stopped = False

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        assert not self.stopped
        return execute(work, *args, **kwargs)

    def stop(self) -> Deferred[None]:
        self.stopped = True
        return succeed(None)


class BenchTime:
    """The node's clock and the reactor's timers, moved together. The machine's clock is an hour behind the node's."""

    def __init__(self) -> None:
        self.timers = Clock()
        self._slept_ns = 0

    def now_ns(self) -> int:
        return round(self.timers.seconds() * S) + self._slept_ns

    def machine_ns(self, local_ns: int) -> int:
        return local_ns - 3600 * S + 1_000_000 * S

    def sleep(self, seconds: float) -> None:
        self._slept_ns += max(1, round(seconds * S))

    def advance(self, seconds: float) -> None:
        """Let time pass in small steps."""
        for _ in range(round(seconds * 20)):
            self.timers.advance(0.05)


class FakeStager:
    """Brings versions from memory when the test says so."""

    def __init__(self) -> None:
        self.orders: list[tuple[Order, Deferred[Manifest]]] = []
        self.hushed = 0

    def bring(self, order: Order) -> Deferred[Manifest]:
        done: Deferred[Manifest] = Deferred()
        self.orders.append((order, done))
        return done

    def hush(self, seconds: float) -> None:
        assert 0 < seconds < 2
        self.hushed += 1

    @property
    def wanted(self) -> str | None:
        """The version that is waited for."""
        waiting = [order.turn.version for order, done in self.orders if not done.called]
        assert len(waiting) <= 1
        return waiting[0] if waiting else None

    def deliver(self, one: Published) -> None:
        """Bring the version that is waited for, really."""
        order, done = next((order, done) for order, done in self.orders if not done.called)
        assert order.turn.version == one.version
        put(order.cache, one)
        done.callback(one.manifest)

    def fail(self, error: Exception) -> None:
        """Let it fail."""
        next(done for _, done in self.orders if not done.called).errback(error)


def put(cache: CacheDir, one: Published) -> None:
    """Make ``one`` a complete version in ``cache``."""
    work = Work(one.version, cache, (), Hush())
    work._begin(one.manifest)
    from farmsyncd.core.messages.content import Chunk

    work.take_chunks([Chunk(digest, "raw", len(data), data) for digest, data in one.chunks.items()])
    work.finish()
    work.close()


@attrs.define
class FakeHooks:
    """Hooks whose outcome the test decides; none at all unless ``configured``."""

    configured: bool = False
    told: list[Flip] = attrs.Factory(list)
    outcome: Deferred[str] = attrs.Factory(Deferred)

    def __bool__(self) -> bool:
        return self.configured

    async def run(self, flip: Flip) -> str:
        self.told.append(flip)
        return await self.outcome


class Bench:
    """One dataset's replica with everything around it. ``restart`` is what a new process would do."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.time = BenchTime()
        self.stager = FakeStager()
        self.hooks = FakeHooks()
        self.disk = Inline()
        self.cleaner = Inline()
        self.compared = True
        self.ahead_ns = AHEAD
        self.told = 0
        self.names: dict[str, str] = {}
        self.replica = self._open()

    def _open(self, check: Check = by_hash, remembered: bool = True) -> Replica:
        self.cache = CacheDir(self.path / "shop")
        self.cache.recover()
        self.page = PointerFile(self.cache.pointer_path)
        records = RecordFile(self.path / "shop" / "record")
        machine_ns = self.time.machine_ns(self.time.now_ns())
        announced = self.page.read()
        found = look(self.cache, records.load(), announced, machine_ns, check)
        appointment = None
        if announced is not None and announced.flips_at_machine_ns is not None and remembered:
            appointment = announced.flips_at_machine_ns - self.time.machine_ns(0)
        around = Surroundings(
            clock=self.time,
            wakes=self.time.timers,
            estimate=self.estimate,
            disk=self.disk,
            cleaner=self.cleaner,
            stager=self.stager,
            hooks=self.hooks,  # type: ignore[arg-type]
            told=self._told,
            random=lambda: 0.5,
            sleep=self.time.sleep,
        )
        pointing = Pointing(self.time, self.page, boot_id())
        return Replica("shop", found, self.cache, records, pointing, around, appointment)

    def _told(self, dataset: str) -> None:
        assert dataset == "shop"
        self.told += 1

    def estimate(self) -> Estimate | None:
        if not self.compared:
            return None
        now_ns = self.time.now_ns()
        return Estimate(self.ahead_ns, 0, 1000, now_ns, now_ns + S, 0, Behaviour())

    def crash(self) -> None:
        """The process ends without any goodbye."""
        self.replica._stopped = True
        self.replica._trigger.stop()
        for call in self.time.timers.getDelayedCalls():
            call.cancel()
        self.page.close()

    def restart(self, **how: Any) -> Replica:
        """A new process finds what the last one left."""
        self.crash()
        self.stager = FakeStager()
        self.replica = self._open(**how)
        self.replica.start()
        return self.replica

    @property
    def farm_ns(self) -> int:
        """Farm time."""
        return self.time.now_ns() + self.ahead_ns

    def version(self, name: str) -> Published:
        """A version with one file that says ``name``."""
        one = published({"name.txt": name.encode(), "same.txt": b"always the same"})
        self.names[one.version] = name
        return one

    def plan(self, revision: int, active: Turn | None, coming: Turn | None = None, lead_ns: int = 2 * S) -> None:
        """The data server says so."""
        told = None if active is None else (active.cycle, active.version, active.at_ns)
        later = None if coming is None else (coming.cycle, coming.version, coming.at_ns, coming.at_ns - lead_ns)
        self.replica.hear(Plan("shop", revision, *(told or (None,) * 3), *(later or (None,) * 4)))

    def linked(self) -> str | None:
        """What the ``active`` link serves: the content of name.txt there."""
        try:
            return (self.path / "shop" / "active" / "name.txt").read_text()
        except FileNotFoundError:
            return None

    def served(self) -> str | None:
        """What the web side serves at this moment."""
        version = self.replica.shelf.current()
        return None if version is None else self.names[version]
