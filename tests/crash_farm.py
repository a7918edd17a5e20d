"""A farm whose daemons die and come back, and what must hold of it at every moment: I-4 and I-5."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal, TypeVar

import attrs

from farmsyncd.core.messages.clock import Now, Time
from farmsyncd.core.messages.operating import Accepted as AcceptedMessage
from farmsyncd.core.messages.operating import Answer, History, Publish, Report, Status
from tests.caches import files_of
from tests.caller import Caller
from tests.crashing import Fuse
from tests.eventually import eventually
from tests.farm import SHOP, Farm, FarmNode
from tests.nursery import ForkedDaemon, ForkedDaemons

T = TypeVar("T")
PATIENCE = 60.0
SECOND = 1_000_000_000


def sooner_or_later(question: Callable[[], T | Literal[False] | None], what: str) -> T:
    """What ``question`` answers once that is truthy."""
    return eventually(question, PATIENCE, what)


def machine_ns() -> int:
    """The clock that pointers are about."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


def content(mark: int, size: int = 2000) -> dict[str, bytes]:
    """A version: all its files say ``mark``, some of it stays over versions, one file has several chunks or is none."""
    said = b"%d\n" % mark
    return {
        "index.html": said,
        "also/index.html": said,
        "also/deep/prices.json": said * (size // len(said)),
        "same.txt": b"the same in all versions\n",
        "empty": b"",
    }


def sample(count: int, most: int) -> list[int]:
    """Up to ``most`` of the numbers from 1 to ``count``, spread evenly, with both ends."""
    if count <= most:
        return list(range(1, count + 1))
    return sorted({1 + round(index * (count - 1) / (most - 1)) for index in range(most)})


@attrs.define
class Versions:
    """What was published: each version's files, and the cycle that leads to it. No two cycles have equal content."""

    files: dict[str, Mapping[str, bytes]] = attrs.Factory(dict)
    order: list[str] = attrs.Factory(list)

    def add(self, version: str, files: Mapping[str, bytes]) -> None:
        """A version that is being published; again does nothing."""
        if version not in self.files:
            self.files[version] = files
            self.order.append(version)

    def rank(self, version: str | None) -> int:
        """Later versions have higher ranks; -1 for none. Fails for what was never published."""
        if version is None:
            return -1
        if version not in self.files:
            raise Broken(f"{version} was never published")
        return self.order.index(version)


@attrs.define
class Mortal:
    """A node that can be made to die at a step; remembers how far whoever looks at it has seen it get."""

    node: FarmNode
    daemon: ForkedDaemon
    fuse: Fuse
    versions: Versions
    seen: dict[str, int] = attrs.Factory(dict)

    @property
    def cache(self) -> Path:
        """The shop's directory."""
        return self.node.cache

    def look(self) -> None:
        """I-4 and I-5, for a node that is alive, dying or dead: link and pointer name a whole published version."""
        self._saw("link", self.node.linked)
        self._saw("pointer", self.pointed)

    def pointed(self) -> str | None:
        """The version that readers on this machine take at this moment."""
        pointer = self.node.pointer()
        return None if pointer is None else pointer.current(machine_ns())

    def _saw(self, where: str, source: Callable[[], str | None]) -> None:
        version = source()
        rank = self.versions.rank(version)
        before = self.seen.get(where, -1)
        if rank < before:
            raise Broken(f"{self.node.name}: the {where} went back from {self.versions.order[before]} to {version}")
        self.seen[where] = rank
        if version is None:
            return
        found = None
        with contextlib.suppress(FileNotFoundError):
            found = files_of(self.cache / "versions" / version)
        # What is looked at may be removed meanwhile, when the node has gone on to a later version.
        if found != self.versions.files[version] and source() == version:
            raise Broken(f"{self.node.name}: the {where} names {version}, which has {sorted(found or ())}")

    def answers(self) -> str | None:
        """I-4 and I-5 as HTTP shows them: all of one version, never an earlier one; that version."""
        answer = self._ask(lambda: self.node.get(f"/{SHOP}/index.html"))
        if answer is None:
            return None
        if answer.version is not None:
            rank = self.versions.rank(answer.version)
            if rank < max(self.seen.get("http", -1), self.seen.get("pointer", -1)):
                raise Broken(f"{self.node.name}: HTTP went back to {answer.version} from {self.seen}")
            self.seen["http"] = rank
            if answer.body != self.versions.files[answer.version]["index.html"]:
                raise Broken(f"{self.node.name}: HTTP answered {answer.body!r} as {answer.version}")
        return answer.version

    def shop(self) -> dict[str, Any]:
        """What /status says of the shop; its state is ``dead`` when nobody answers."""
        found = self._ask(self.node.shop)
        return {"state": "dead", "versions": []} if found is None else found

    def _ask(self, question: Callable[[], T]) -> T | None:
        if self.daemon.ended:
            return None
        try:
            return question()
        except (OSError, RuntimeError, HTTPException):  # it died, perhaps just now
            return None

    def serves(self, version: str, state: str | None = None) -> bool:
        """Whether HTTP, link and pointer agree on ``version``; and the state, if one is given."""
        self.look()
        return (
            self.node.linked() == self.pointed() == version
            and self.answers() == version
            and state in (None, self.shop()["state"])
        )

    def has_staged(self, version: str) -> bool:
        """Whether it says that it has staged ``version`` for what comes next."""
        self.look()
        shop = self.shop()
        return shop["state"] == "staged" and version in shop["versions"]

    def has_complete(self, dataset: str, version: str) -> bool:
        """Whether it says that it has all of a version of any dataset."""
        status = self._ask(self.node.status) or {"datasets": {}}
        return version in status["datasets"].get(dataset, {"versions": []})["versions"]

    def revive(self) -> None:
        """Start it again as it was, and count nothing; harmless while it runs."""
        self.fuse.disarm()
        if self.daemon.ended:
            self.start()

    def start(self) -> None:
        """Start it anew after it has ended."""
        if self.daemon.process is not None:
            self.daemon.wait()
        self.daemon.start()

    def is_tidy(self) -> bool:
        """Nothing half-done is left: no rubbish, nothing on its way in, no unfinished file, no stray manifest."""
        left = {
            name: sorted(path.name for path in (self.cache / name).iterdir())
            for name in ("trash", "staging", "versions", "manifests")
        }
        assert not left["trash"], left
        assert not left["staging"], left
        assert left["versions"] == left["manifests"], left
        assert not list(self.cache.glob("*.new")), list(self.cache.glob("*.new"))
        return True


class Broken(BaseException):
    """A promise was broken; never taken for "not yet" by whoever polls."""


class MortalFarm(Farm):
    """A farm of forked daemons, whose operator is in the test's own process."""

    def __init__(self, daemons: ForkedDaemons, directory: Path) -> None:
        super().__init__(daemons, directory)
        self.versions = Versions()

    def mortal(self, name: str, *arguments: str, number: int | None = None, **how: Any) -> Mortal:
        """Start a node with a fuse; it is armed from its start when there is a ``number``."""
        fuse = Fuse(self._directory / f"fuse-{name}")
        self._daemons.next_plan = fuse.plan()  # type: ignore[attr-defined]
        if number is not None:
            fuse.arm(number)
        node = self.node(name, "--http", "tcp:0:interface=127.0.0.1", *arguments, http=False, **how)
        daemon = node.daemon
        assert isinstance(daemon, ForkedDaemon)
        return Mortal(node, daemon, fuse, self.versions)

    def publish(self, files: Mapping[str, bytes], *when: str) -> str:
        """Publish files as the shop's next version; ``when`` is ``now`` (by itself) or ``in:NANOSECONDS``."""
        return self.schedule(files, *when).version

    def schedule(self, files: Mapping[str, bytes], when: str = "now", dataset: str = SHOP) -> AcceptedMessage:
        """The same, and all that the data server says of it."""
        site = self.site(files)
        with Caller(self.address) as operator:
            version = operator.upload(site)
            self.versions.add(version, files)
            return operator.ask(Publish(dataset, version, when), AcceptedMessage)

    def again(self, version: str, when: str, dataset: str = SHOP) -> AcceptedMessage:
        """Publish a version that the data server has, at another time."""
        with Caller(self.address) as operator:
            return operator.ask(Publish(dataset, version, when), AcceptedMessage)

    def course(self, dataset: str = SHOP) -> dict[str, Any]:
        """What the data server's status says of a dataset."""
        with Caller(self.address) as operator:
            datasets: dict[str, dict[str, Any]] = json.loads(operator.ask(Status(), Answer).json)["datasets"]
        return datasets.get(dataset, {"active": None, "next": None, "revision": 0})

    def history(self, dataset: str = SHOP) -> list[dict[str, Any]]:
        """Its cycles, the newest first."""
        with Caller(self.address) as operator:
            found: list[dict[str, Any]] = json.loads(operator.ask(History(dataset), Answer).json)["cycles"]
        return found

    def report_of(self, cycle: int | None = None, dataset: str = SHOP) -> dict[str, Any]:
        """A flip's report, of the newest unless a cycle is named."""
        with Caller(self.address) as operator:
            found: dict[str, Any] = json.loads(operator.ask(Report(dataset, cycle), Answer).json)
        return found

    def now(self) -> Now:
        """Farm time, and the epoch."""
        with Caller(self.address) as operator:
            return operator.ask(Time(), Now)

    def flips(self, cycle: int, *names: str, dataset: str = SHOP) -> dict[str, dict[str, Any]]:
        """The reports of one cycle by node, once all of ``names`` are in it."""

        def told() -> dict[str, dict[str, Any]] | None:
            found = {one["name"]: one for one in self.report_of(cycle, dataset)["nodes"]}
            return found if found.keys() >= set(names) else None

        return sooner_or_later(told, f"{', '.join(names)} have reported cycle {cycle}")


def all_serve(nodes: Iterable[Mortal], version: str, state: str | None = None) -> None:
    """Wait until all of them serve ``version``."""
    for node in nodes:
        sooner_or_later(lambda node=node: node.serves(version, state), f"{node.node.name} serves {version}")  # type: ignore[misc]


def all_have_staged(nodes: Iterable[Mortal], version: str) -> None:
    """Wait until all of them have staged ``version`` for what comes next."""
    for node in nodes:
        sooner_or_later(lambda node=node: node.has_staged(version), f"{node.node.name} has staged {version}")  # type: ignore[misc]


def all_are_tidy(nodes: Iterable[Mortal]) -> None:
    """Wait until none of them has anything half-done left."""
    for node in nodes:
        sooner_or_later(node.is_tidy, f"{node.node.name} has left nothing behind")
