"""The data server's parts, each made once and given what it works with."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.interfaces import IReactorTime

from farmsyncd.core.messages.greeting import PROTOCOL, Hello
from farmsyncd.data.access import Operators
from farmsyncd.data.changes import Change, Changes
from farmsyncd.data.config import DataConfig
from farmsyncd.data.content.arrivals import Arrivals
from farmsyncd.data.content.deltas import DeltaRack
from farmsyncd.data.content.housekeeping import Housekeeping
from farmsyncd.data.content.library import Library
from farmsyncd.data.content.publication import Publications
from farmsyncd.data.content.reading import Sources
from farmsyncd.data.content.retained import Held
from farmsyncd.data.content.transfers import Pace, Transfers
from farmsyncd.data.desk import Desk
from farmsyncd.data.flips import FlipBook
from farmsyncd.data.followers import Followers
from farmsyncd.data.keeper import Keeper, Timing
from farmsyncd.data.pins import PinBoard
from farmsyncd.data.roster import Roster
from farmsyncd.data.sessions.gate import Gate, LinkFactory, Role
from farmsyncd.data.sessions.node_role import NodeRole
from farmsyncd.data.sessions.operator_role import OperatorRole
from farmsyncd.data.sessions.people import Person
from farmsyncd.data.sessions.probe_role import ProbeRole
from farmsyncd.data.sessions.stager_role import StagerRole
from farmsyncd.edges.content import deltas as delta_files
from farmsyncd.edges.content import space
from farmsyncd.edges.content.packs import ChunkStore
from farmsyncd.edges.link import Link, LinkSettings
from farmsyncd.edges.release import RELEASE
from farmsyncd.edges.sqlite_catalog import SqliteCatalog
from farmsyncd.edges.timing.farmclock import FarmClock
from farmsyncd.edges.timing.steady import SteadyTime
from farmsyncd.edges.workthread import WorkThread

_SPARED = 24 * 3600.0  # seconds for which the chunks of an upload that broke off are kept


@attrs.frozen
class Parts:
    """All parts of a data server, as :func:`assemble` puts them together."""

    config: DataConfig
    clock: FarmClock
    steady: IReactorTime
    catalog: SqliteCatalog
    catalog_thread: WorkThread
    content_thread: WorkThread
    delta_thread: WorkThread
    reading_thread: WorkThread
    keeper: Keeper
    changes: Changes
    roster: Roster
    pins: PinBoard
    flips: FlipBook
    followers: Followers
    library: Library
    deltas: DeltaRack
    transfers: Transfers
    publications: Publications
    housekeeping: Housekeeping
    desk: Desk
    links: LinkFactory
    sources: Sources


def assemble(
    config: DataConfig,
    reactor: Any,
    clock: FarmClock | None = None,
    make_thread: Callable[[str, Any], WorkThread] = WorkThread,
    timers: IReactorTime | None = None,
) -> Parts:
    """Make a data server on the state directory of ``config``, which is this process's own; reads what is there.

    Raises ConfigError and LocalError when the state cannot be used.
    """
    state = config.state
    clock = clock if clock is not None else FarmClock(state / "farmtime")
    steady = timers if timers is not None else SteadyTime(reactor)
    catalog = SqliteCatalog(state / "catalog.sqlite")
    catalog_thread, content_thread, delta_thread, reading_thread = (
        make_thread(name, reactor) for name in ("catalog", "content", "deltas", "reading")
    )
    changes = Changes()
    roster = Roster(catalog, catalog_thread, clock.now_ns, config.expect_within_ns, config.forget_after_ns)
    pins = PinBoard(catalog, catalog_thread)
    flips = FlipBook(catalog, catalog_thread)
    timing = Timing(config.freeze_lead_ns, config.now_lead_ns, config.backstop_ns)
    keeper = Keeper(catalog, catalog_thread, clock, changes, roster.expected, timing)
    library = Library(state / "manifests", ChunkStore(state / "packs"), content_thread)
    deltas = DeltaRack(state / "deltas", library, delta_thread, _DeltaMaker(library), _Wanted(keeper))
    publications = Publications(library, keeper, content_thread, reading_thread, clock.now_ns, _Room(state))

    def others() -> set[Held]:
        return roster.versions_in_use() | pins.versions()

    housekeeping = Housekeeping(
        *(catalog, catalog_thread, content_thread, keeper, library, deltas, others, config.keep),
        *(publications.let_go, time.time() - _SPARED),
    )
    followers = Followers(lambda: keeper.courses)
    faults: dict[str, str] = {}
    desk = Desk(catalog, catalog_thread, keeper, library, roster, pins, flips, clock, housekeeping, faults)
    transfers = Transfers(config.staging.at_once, Pace(config.staging.rate_bytes, steady))
    for each in (keeper, roster, pins):
        each.load()
    for listener in (followers.changed, _Preparing(deltas), housekeeping.changed):
        changes.listen(listener)
    door = _Door(
        config,
        clock,
        keeper,
        followers,
        roster,
        pins,
        flips,
        library,
        deltas,
        transfers,
        publications,
        desk,
        content_thread,
    )
    me = Hello(PROTOCOL, "data", "data", (f"software=farmsync-{RELEASE}", f"epoch={clock.epoch}"))
    links = LinkFactory(me, reactor, LinkSettings(read_size=256 * 1024), door.gate)
    sources = Sources(config, publications, keeper, clock, reading_thread, reactor, steady, make_thread, faults)
    changes.listen(sources.changed)
    return Parts(
        config=config,
        clock=clock,
        steady=steady,
        catalog=catalog,
        catalog_thread=catalog_thread,
        content_thread=content_thread,
        delta_thread=delta_thread,
        reading_thread=reading_thread,
        keeper=keeper,
        changes=changes,
        roster=roster,
        pins=pins,
        flips=flips,
        followers=followers,
        library=library,
        deltas=deltas,
        transfers=transfers,
        publications=publications,
        housekeeping=housekeeping,
        desk=desk,
        links=links,
        sources=sources,
    )


@attrs.frozen
class _Room:
    """Foresees a full disk."""

    state: Path

    def __call__(self, size: int) -> None:
        space.foresee(space.Need(size, 4), self.state)


@attrs.frozen
class _DeltaMaker:
    """Makes the difference between two versions that are kept, in a thread of its own."""

    library: Library

    def __call__(self, old: str, new: str, path: Path) -> bool:
        made = delta_files.make(self.library.read(old), self.library.read(new), self.library.store, path)
        return made is not None


@attrs.frozen
class _Wanted:
    """Says whether a step is the one that a dataset's nodes are about to take."""

    keeper: Keeper

    def __call__(self, pair: tuple[str, str]) -> bool:
        return any(
            course.active is not None
            and course.pending is not None
            and (course.active.version, course.pending.version) == pair
            for course in self.keeper.courses.values()
        )


@attrs.frozen
class _Preparing:
    """Has the difference made as soon as a cycle is scheduled."""

    deltas: DeltaRack

    def __call__(self, change: Change) -> None:
        active, pending = change.course.active, change.course.pending
        if change.step is not None and change.step.scheduled is not None and active is not None:
            assert pending is not None
            if active.version != pending.version:
                self.deltas.find((active.version, pending.version))


@attrs.frozen
class _Door:
    """Makes the roles that serve connections."""

    config: DataConfig
    clock: FarmClock
    keeper: Keeper
    followers: Followers
    roster: Roster
    pins: PinBoard
    flips: FlipBook
    library: Library
    deltas: DeltaRack
    transfers: Transfers
    publications: Publications
    desk: Desk
    content_thread: WorkThread

    def gate(self) -> Gate:
        """The session of a new connection."""
        roles = {"node": self.node, "stager": self.stager, "probe": self.probe, "operator": self.operator}
        return Gate(roles, self.person, self.clock)

    def person(self, link: Link) -> Person:
        """For whoever has not greeted."""
        return Person(link, self.keeper, self.followers)

    def node(self, link: Link, hello: Hello) -> Role:
        """For a node."""
        return NodeRole(link, hello, self.keeper, self.followers, self.roster, self.pins, self.flips)

    def stager(self, link: Link, _hello: Hello) -> Role:
        """For a node's bulk connection."""
        return StagerRole(link, self.library, self.deltas, self.transfers, self.content_thread)

    def probe(self, link: Link, _hello: Hello) -> Role:
        """For a node's clock comparison."""
        return ProbeRole(link, self.clock.epoch)

    def operator(self, link: Link, hello: Hello) -> Role:
        """For the command."""
        return OperatorRole(
            link,
            hello,
            self.person(link),
            Operators(self.config.operators),
            self.publications,
            lambda crowded: Arrivals(self.library.store, self.content_thread, crowded),
            self.desk,
        )
