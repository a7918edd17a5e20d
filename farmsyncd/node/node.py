"""A node, wired together: what is shared by all datasets, and the replicas, one for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred, gatherResults
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger

from farmsyncd.core.farmtime import Estimate
from farmsyncd.core.messages.greeting import PROTOCOL, Hello
from farmsyncd.core.pointer import Pointer
from farmsyncd.core.words import is_name
from farmsyncd.edges.cache.cachedir import CacheDir
from farmsyncd.edges.cache.pointerfile import PointerFile, boot_id
from farmsyncd.edges.release import RELEASE
from farmsyncd.edges.timing.clocks import LocalClock
from farmsyncd.edges.timing.steady import SteadyTime
from farmsyncd.edges.timing.timekeeper import Timekeeper
from farmsyncd.edges.webclient import web_client
from farmsyncd.edges.workthread import WorkThread
from farmsyncd.errors import FarmsyncError, LocalError
from farmsyncd.node import checking
from farmsyncd.node.boot import Found, look
from farmsyncd.node.config import NodeConfig
from farmsyncd.node.follower import Follower
from farmsyncd.node.hooks import Hooks
from farmsyncd.node.pointing import Pointing
from farmsyncd.node.record import RecordFile
from farmsyncd.node.replica import Replica
from farmsyncd.node.shelf import Shelf
from farmsyncd.node.staging.stager import Stager
from farmsyncd.node.surroundings import Surroundings
from farmsyncd.node.unopened import Unopened

_RECORD = "record"


@attrs.frozen
class _Opened:
    """A dataset's directory, read in the disk's thread."""

    cache: CacheDir
    records: RecordFile
    page: PointerFile
    found: Found


class Node(Service):
    """Follows the farm's datasets. ``reactor`` is the whole one; ``clock`` is the node's own, perhaps a wrong one."""

    log = Logger()

    def __init__(
        self,
        config: NodeConfig,
        endpoint: IStreamClientEndpoint,
        reactor: Any,
        clock: LocalClock,
        random: Callable[[], float],
        instance: str,
    ) -> None:
        self.config = config
        self.clock = clock
        self.replicas: dict[str, Replica] = {}
        self.instance = instance
        self._reactor = reactor
        self._random = random
        self._wakes = SteadyTime(reactor)
        self._disk = WorkThread("disk", reactor)
        self._cleaner = WorkThread("clean", reactor)
        self._checker = WorkThread("check", reactor)
        self._opening: set[str] = set()
        self.unopened: dict[str, Unopened] = {}  # those that cannot be followed
        self._pages: list[PointerFile] = []
        self._boot_id = boot_id()
        self._expected: tuple[int, ...] = ()
        self.timekeeper = Timekeeper(endpoint, config.name, clock, self._wakes, random)
        self.timekeeper.on_change(self._clock_moved)
        self.stager = Stager(
            endpoint,
            Hello(PROTOCOL, "stager", config.name, (f"software={RELEASE}",)),
            lambda name: WorkThread(name, reactor),
            self._wakes,
            clock.now_ns,
            config.staging.at_once,
            config.staging.rate_bytes or 0,
        )
        self.follower = Follower(
            endpoint,
            self._hello(),
            lambda: [*self.replicas.items(), *self.unopened.items()],
            self._follow,
            self._wakes,
            random,
            config.follow_ns / 1e9,
            all_datasets=not config.dataset,
        )
        self._around = Surroundings(
            clock=clock,
            wakes=self._wakes,
            estimate=self.timekeeper.estimate,
            disk=self._disk,
            cleaner=self._cleaner,
            stager=self.stager,
            hooks=self._hooks(),
            told=self._told,
            random=random,
            keep=config.keep,
            spread_ns=config.staging.spread_ns,
            rest=self.stager.rest,
        )

    def _hello(self) -> Hello:
        features = [f"software={RELEASE}", f"instance={self.instance}"]
        if self.config.serve is not None:
            host, port = self.config.serve
            features.append(f"serve=[{host}]:{port}" if ":" in host else f"serve={host}:{port}")
        return Hello(PROTOCOL, "node", self.config.name, tuple(features))

    def _hooks(self) -> Hooks:
        hooks = self.config.hooks
        return Hooks(
            self._reactor, self._wakes, web_client(self._reactor), hooks.command, hooks.url, hooks.timeout_ns / 1e9
        )

    # Service

    def startService(self) -> None:  # noqa: N802 - IService
        """Read the disk, serve what it holds, then follow the schedule."""
        super().startService()  # type: ignore[no-untyped-call]
        self.timekeeper.startService()
        ensureDeferred(self._begin()).addErrback(lambda failure: self.log.failure("the node cannot begin", failure))

    async def _begin(self) -> None:
        await gatherResults([ensureDeferred(self._open(name)) for name in self._at_start()])
        if self.running:
            self.follower.startService()

    def _at_start(self) -> Iterable[str]:
        if self.config.dataset:
            return dict.fromkeys(self.config.dataset)
        return sorted(path.parent.name for path in self.config.state.glob(f"*/{_RECORD}") if is_name(path.parent.name))

    def stopService(self) -> Deferred[object]:  # noqa: N802 - IService
        """Fires when nothing runs any more, and all that must not be forgotten is on the disk."""
        super().stopService()  # type: ignore[no-untyped-call]
        return ensureDeferred(self._end())

    async def _end(self) -> None:
        await DeferredList([replica.stop() for replica in self.replicas.values()])
        await self._around.hooks.stop()
        await self.timekeeper.stopService()
        if self.follower.running:
            await self.follower.stopService()
        for thread in (self._checker, self._disk, self._cleaner):
            await thread.stop()
        for page in self._pages:
            page.close()

    # Datasets

    def followed(self) -> list[tuple[str, Replica]]:
        """All replicas, by name; what cannot be followed is in :attr:`unopened`."""
        return list(self.replicas.items())

    def datasets(self) -> tuple[str, ...]:
        """The names of all datasets: those that are configured first, in their order."""
        return tuple(dict.fromkeys((*self.config.dataset, *sorted(self.replicas))))

    def follows(self, dataset: str) -> bool:
        """Whether the dataset is one of this node's."""
        return dataset in self.replicas or dataset in self.config.dataset or dataset in self.unopened

    def shelf(self, dataset: str) -> Shelf | None:
        """What of a dataset can be served."""
        replica = self.replicas.get(dataset)
        return None if replica is None else replica.shelf

    def _follow(self, names: tuple[str, ...]) -> None:
        """The data server has these datasets."""
        for name in names:
            if name not in self.replicas and name not in self._opening:
                ensureDeferred(self._join(name)).addErrback(
                    lambda failure: self.log.failure("a dataset cannot be followed", failure)
                )

    async def _join(self, name: str) -> None:
        await self._open(name)
        if name in self.replicas:
            self.follower.ask(name)

    async def _open(self, name: str) -> None:
        self._opening.add(name)
        try:
            opened = await self._disk.run(self._read, self.config.state / name)
        except (FarmsyncError, OSError) as error:
            self._cannot_follow(name, str(error))
            return
        finally:
            self._opening.discard(name)
        self.unopened.pop(name, None)
        self._pages.append(opened.page)
        if not self.running:
            return
        replica = Replica(
            name,
            opened.found,
            opened.cache,
            opened.records,
            Pointing(self.clock, opened.page, self._boot_id),
            self._around,
            self._appointment(opened.page.read(), opened.found),
        )
        self.replicas[name] = replica
        replica.start()
        if self.config.check == "stat-then-hash":
            ensureDeferred(self._check_later(replica, opened)).addErrback(
                lambda failure: self.log.failure("checking {dataset} failed", failure, dataset=name)
            )

    def _cannot_follow(self, name: str, fault: str) -> None:
        before = self.unopened.get(name)
        if before is not None and before.fault == fault:
            return
        self.log.error("{dataset} cannot be followed: {error}", dataset=name, error=fault)
        self.unopened[name] = Unopened(name, fault, lambda again: self._follow((again,)))
        self.follower.tell(name)

    def _read(self, path: Path) -> _Opened:
        """In the disk's thread: see what a dataset's directory holds."""
        cache = CacheDir(path)
        cache.recover()
        records = RecordFile(path / _RECORD)
        page = PointerFile(cache.pointer_path)
        try:
            announced = page.read()
            if announced is not None and announced.boot_id != self._boot_id:
                announced = None
            check = checking.by_hash if self.config.check == "hash" else checking.by_stat
            machine_ns = self.clock.machine_ns(self.clock.now_ns())
            return _Opened(cache, records, page, look(cache, records.load(), announced, machine_ns, check))
        except BaseException:
            page.close()
            raise

    async def _check_later(self, replica: Replica, opened: _Opened) -> None:
        for version, manifest in opened.found.complete.items():
            path = opened.cache.version_path(version)
            try:
                fault = await self._checker.run(checking.by_hash, path, manifest, self._check_gently)
            except LocalError as error:
                if self.running:
                    self.log.error("{dataset} cannot be checked: {error}", dataset=replica.dataset, error=str(error))
                return
            if fault and version in replica.shelf.versions and self.running:
                replica.distrust(version, fault)

    def _check_gently(self, amount: int) -> None:
        """In the checking threads: rest when a swap is near, end when the node does."""
        if not self.running:
            raise LocalError("the node is stopping")
        self.stager.rest(amount)

    def _appointment(self, announced: Pointer | None, found: Found) -> int | None:
        """When the pending turn comes, by this node's clock, if that was settled before this start of the node."""
        pending = found.pending
        if announced is None or pending is None or announced.boot_id != self._boot_id:
            return None
        if announced.next_cycle != pending.cycle or announced.flips_at_machine_ns is None:
            return None
        local_ns = self.clock.now_ns()
        for _ in range(4):  # the clocks' rates differ by little: this comes to rest
            local_ns += announced.flips_at_machine_ns - self.clock.machine_ns(local_ns)
        return local_ns

    # News

    def _clock_moved(self, estimate: Estimate | None) -> None:
        del estimate
        for replica in self.replicas.values():
            replica.reconsider()

    def _told(self, dataset: str) -> None:
        coming = [replica.known.next for replica in self.replicas.values()]
        expected = tuple(sorted(turn.at_ns for turn in coming if turn is not None))
        if expected != self._expected:
            self._expected = expected
            self.timekeeper.expect(expected)
        self.follower.tell(dataset)
