"""Many nodes in one process, without their disks: each with its two connections, asking and telling as nodes do.

Settings: ``[port, first number, how many]``. It says ``"greeted"`` once all have been told the plan and have compared
clocks, then for each later plan, when all have heard of it or nothing more came for a while, ``[revision, how many
heard, the first's and the last's CLOCK_MONOTONIC_RAW]``. The follower and the timekeeper are a node's own.
"""

from __future__ import annotations

import random
import secrets

import attrs
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint

from bench import helper
from bench.asking import raw_ns
from farmsyncd.core.messages.greeting import PROTOCOL, Hello
from farmsyncd.core.messages.schedule import Flipped, Plan, Standing
from farmsyncd.edges.timing.clocks import RawClock
from farmsyncd.edges.timing.steady import SteadyTime
from farmsyncd.edges.timing.timekeeper import Timekeeper
from farmsyncd.node.follower import Follower

DATASET = "shop"
FOLLOW_S = 15.0  # a node's default
SPREAD_S = 20.0  # over which a farm's nodes come up
QUIET_S = 2.0


@attrs.define
class Heard:
    """Who has heard of one revision of the plan."""

    first_ns: int
    last_ns: int
    count: int = 0


class Crowd:
    """All nodes of this process, and what they have heard."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._heard: dict[int, Heard] = {}
        self._told: set[int] = set()
        self._missing = count  # nodes that are not up yet

    def heard(self, revision: int) -> None:
        """A node has heard of this revision for the first time."""
        now = raw_ns()
        one = self._heard.setdefault(revision, Heard(now, now))
        one.last_ns, one.count = now, one.count + 1
        if one.count == self._count:
            self._tell(revision)
        elif one.count == 1:
            reactor.callLater(QUIET_S, self._tell, revision)

    def up(self) -> None:
        """A node knows the plan and the time."""
        self._missing -= 1
        if self._missing == 0:
            helper.say("greeted")

    def _tell(self, revision: int) -> None:
        if self._missing == 0 and revision not in self._told:
            self._told.add(revision)
            one = self._heard[revision]
            helper.say([revision, one.count, one.first_ns, one.last_ns])


class Shop:
    """One dataset on one node, of which everything comes at once and nothing is kept."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.plan: Plan | None = None

    def hear(self, plan: Plan) -> None:
        """A plan came: whatever comes next is staged at once."""
        if self.plan is None or plan.revision > self.plan.revision:
            self.plan = plan
            self._node.heard(plan.revision)

    def standing(self) -> Standing:
        """As of a node that has staged what comes next."""
        plan, estimate = self.plan, self._node.timekeeper.estimate()
        now_ns = self._node.clock.now_ns()
        return Standing(
            dataset=DATASET,
            state="empty" if plan is None else "ready" if plan.next_cycle is None else "staged",
            cycle=None if plan is None else plan.cycle,
            version=None if plan is None else plan.version,
            staged_cycle=None if plan is None else plan.next_cycle,
            staged_version=None if plan is None else plan.next_version,
            offset=None if estimate is None else estimate.offset_at(now_ns),
            error_bound=None if estimate is None else estimate.bound_at(now_ns),
            detail=b"",
        )

    def flips(self) -> list[Flipped]:
        """None: nothing is activated here."""
        return []

    def keep(self, versions: tuple[str, ...]) -> None:
        """Nothing is kept."""

    def noted(self, cycle: int) -> None:
        """Nothing was reported."""

    def connected(self) -> None:
        """Nothing to do."""

    def reconsider(self) -> None:
        """Nothing to do."""


class Node:
    """One node: its two services."""

    def __init__(self, name: str, port: int, wakes: SteadyTime, crowd: Crowd) -> None:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        self.clock = RawClock()
        self.timekeeper = Timekeeper(endpoint, name, self.clock, wakes)
        self._crowd = crowd
        self._shop = Shop(self)
        self._up = False
        self._follower = Follower(
            endpoint,
            Hello(PROTOCOL, "node", name, (f"instance={secrets.token_hex(8)}",)),
            lambda: [(DATASET, self._shop)],
            lambda names: None,  # noqa: ARG005 - the only dataset is known
            wakes,
            random.random,
            FOLLOW_S,
            all_datasets=True,
        )
        self.timekeeper.on_change(lambda _: self._look())

    def start(self) -> None:
        """Connect."""
        self.timekeeper.startService()
        self._follower.startService()

    def heard(self, revision: int) -> None:
        """The plan is news."""
        self._crowd.heard(revision)
        self._look()
        self._follower.tell(DATASET)

    def _look(self) -> None:
        if not self._up and self._shop.plan is not None and self.timekeeper.estimate() is not None:
            self._up = True
            self._crowd.up()


def main() -> None:
    """Be that many nodes, until killed."""
    port, first, count = helper.settings()
    wakes, crowd = SteadyTime(reactor), Crowd(count)
    for number in range(count):
        node = Node(f"node-{first + number}", port, wakes, crowd)
        reactor.callLater(SPREAD_S * number / count, node.start)
    reactor.run()


if __name__ == "__main__":
    main()
