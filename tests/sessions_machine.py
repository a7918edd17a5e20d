"""What can happen in the farm of tests/sessions_world.py: as a machine for Hypothesis, and as strolls by chance.

The rules are what shoppers, networks, clocks, processes and attackers do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from farmsyncd.core.session.cookies import presented
from farmsyncd.core.session.token import Token, new_id
from farmsyncd.sessions.settings import SessionSettings
from farmsyncd.sessions.stores.base import Store
from tests.sessions_scene import Request
from tests.sessions_world import COOKIES, World

INDICES = range(12)
WHO = [0, 0, 0, 1]
CHANGES = ["add", "add", "add", "count", "count", "count", "nested", "nested", "same", "remove", "clear"]
ENDS = ["rotate", "rotate", "destroy"]
USUAL: list[list[str]] = [[], ["add"], ["count"], ["nested"], ["add", "count"], ["add", "nested"], ["count", "count"]]
# Most often so little that copies are still trusted; now and then so much that sessions end.
TIMES_S = [0.01, 0.01, 1.0, 1.0, 2.0, 2.0, 3.0, 4.0, 4.9, 5.1, 6.0, 30.0, 110.0, 590.0, 650.0, 1100.0, 4000.0]
AGES = [0, 0, 0, 1, 1, 2, 3, 4, 5, 6]
THEN = ["finish", "finish", "", "", "commit", "reload", "change"]
STATUS = [200, 200, 200, 302, 404, 500]
MEANWHILE = ["visit", "both", "wait", "away"]
TROUBLE = ["die", "away", "lose", "heal", "heal", "hear", "miss", "drop", "sweep"]
MISCHIEF = ["replay", "replay", "version", "marker", "id"]
EXACT = [False, False, True]
REVALIDATE_S = [5.0, 5.0, 5.0, 5.0, 0.0]
ENTRIES = [1000, 1000, 1000, 1]
RATES = [1.0, 0.999, 1.001]

INDEX = st.sampled_from(INDICES)
DOING = st.sampled_from(USUAL) | st.lists(st.sampled_from(CHANGES + ENDS), max_size=3)
ARRIVALS = st.lists(st.sampled_from(AGES), max_size=3)
CLOCKS = st.tuples(st.floats(0, 1e6), st.sampled_from(RATES))


class Farm(RuleBasedStateMachine):
    """What can happen. ``counts`` is shared by all examples of a run."""

    counts: Counter[str]
    place: Callable[[], tuple[Callable[[], Store], Callable[[float], None]]]

    @initialize(
        exact=st.sampled_from(EXACT),
        revalidate_after_s=st.sampled_from(REVALIDATE_S),
        clocks=st.lists(CLOCKS, min_size=2, max_size=3),
        entries=st.sampled_from(ENTRIES),
    )
    def begin(self, exact: bool, revalidate_after_s: float, clocks: list[tuple[float, float]], entries: int) -> None:
        self.counts["examples"] += 1
        chosen = SessionSettings(
            idle_s=1000,
            absolute_s=4000,
            revalidate_after_s=revalidate_after_s,
            cache_entries=entries,
            sweep_every_s=0,
        )
        stores, set_clock = type(self).place()
        self.world = World(stores, set_clock, chosen, exact=exact, counts=self.counts)
        for zero_s, rate in clocks:
            self.world.add_node(zero_s, 1.0 if exact else rate)
        for who in range(len(self.world.shoppers)):
            self._visit(who, who, ["add", "count"])
            self.world.arrives(0)

    # -- requests ---------------------------------------------------------------------------------------------------

    @rule(who=st.sampled_from(WHO), where=INDEX, doing=DOING, arrives=ARRIVALS)
    def visit(self, who: int, where: int, doing: list[str], arrives: list[int]) -> None:
        """A request from begin to end; some responses arrive."""
        self._visit(who, where, doing)
        self._arrive(arrives)

    @rule(
        who=st.sampled_from(WHO),
        where=st.lists(INDEX, min_size=2, max_size=3),
        doing=st.lists(DOING, min_size=3, max_size=3),
        all_look=st.booleans(),
        arrives=ARRIVALS,
    )
    def visit_at_once(
        self, who: int, where: list[int], doing: list[list[str]], all_look: bool, arrives: list[int]
    ) -> None:
        """Requests of one shopper are sent together, and answered one after the other; some responses arrive.

        Each may look at its session before the first is answered, or when it is its turn.
        """
        shopper = self._of(self.world.shoppers, who)
        requests = [self.world.send(shopper, self._of(self.world.nodes, one)) for one in where]
        if all_look:
            requests = [request for request in requests if self.world.look(request)]
        for request, changes in zip(requests, doing, strict=False):
            self._finish(request, changes)
        self._arrive(arrives)

    @rule(who=st.sampled_from(WHO), where=INDEX)
    def send(self, who: int, where: int) -> None:
        """A request begins."""
        self.world.send(self._of(self.world.shoppers, who), self._of(self.world.nodes, where))

    @precondition(lambda self: self.world.requests)
    @rule(
        which=INDEX,
        doing=DOING,
        then=st.sampled_from(THEN),
        status=st.sampled_from(STATUS),
    )
    def go_on(self, which: int, doing: list[str], then: str, status: int) -> None:
        """A request that has begun goes on."""
        request = self._of(self.world.requests, which)
        if not self._do(request, doing):
            return
        if then == "finish":
            self.world.finish(request, status)
        elif then:
            getattr(self.world, then)(request)

    # -- the network, and time ------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.responses)
    @rule(which=ARRIVALS)
    def arrive(self, which: list[int]) -> None:
        """Some responses arrive, in any order."""
        self._arrive(which)

    @rule(seconds=st.sampled_from(TIMES_S))
    def wait(self, seconds: float) -> None:
        """Time passes for all."""
        self.world.passes(seconds)

    @rule(
        when=st.sampled_from(["before", "after"]),
        what=st.sampled_from(MEANWHILE),
        who=st.sampled_from(WHO),
        where=INDEX,
        doing=DOING,
        seconds=st.sampled_from([1.0, 4.0, 6.0]),
    )
    def meanwhile(self, when: str, what: str, who: int, where: int, doing: list[str], seconds: float) -> None:
        """While the database is asked the next time, something else happens."""

        def happens() -> None:
            others = self.world.at_rest()
            if what in ("visit", "both") and others:
                self._finish(self.world.send(self._of(self.world.shoppers, who), self._of(others, where)), doing)
            if what in ("wait", "both"):
                self.world.passes(seconds)
            if what == "away":
                self._of(self.world.nodes, where).reach.away = True

        self.world.interruption = (when, happens)

    # -- failures, and those who mean no good -----------------------------------------------------------------------

    @rule(what=st.sampled_from(TROUBLE), which=INDEX)
    def trouble(self, what: str, which: int) -> None:
        """A process ends; the database is away or back; answers, news or responses are lost; expired rows go."""
        world, node = self.world, self._of(self.world.nodes, which)
        if what == "die":
            world.die(node)
        elif what == "away":
            node.reach.away = True
        elif what == "lose":
            node.reach.lose = 1
        elif what == "heal":
            for one in world.nodes:
                one.reach.away, one.reach.lose = False, 0
        elif what in ("hear", "miss") and world.news:
            world.hear(which % len(world.news), what == "miss")
        elif what == "drop" and world.responses:
            del world.responses[which % len(world.responses)]
        elif what == "sweep":
            node.reach.sweep(1 + which % 100)

    @rule(
        what=st.sampled_from(MISCHIEF),
        which=INDEX,
        where=INDEX,
        version=st.integers(1, 12) | st.integers(1, 2**53),
        doing=DOING,
    )
    def mischief(self, what: str, which: int, where: int, version: int, doing: list[str]) -> None:
        """Old cookies come back, versions and markers are made up, and ids."""
        token = Token(new_id(which.to_bytes(32, "big")), version)
        header = f"{COOKIES.name}={token.spell()}"
        if what != "id" and self.world.headers:
            header = self._of(self.world.headers, which)
            kept = presented(header, COOKIES, False).token
            if what != "replay" and kept is not None:
                header = f"{COOKIES.name}={Token(kept.id, version).spell()}"
            if what == "marker" and kept is not None:
                header = f"{COOKIES.name}={kept.spell()}; {COOKIES.name}-v{version}-{kept.digest.hex()[:8]}=1"
        request = self.world.present(self._of(self.world.nodes, where), header)
        if self.world.look(request):
            assert what != "id" or request.exchange.session.is_new, "I-12: an id that was made up was adopted"
            self._finish(request, doing)
        self.counts[f"mischief: {what}"] += 1

    # -- what always holds ----------------------------------------------------------------------------------------

    @invariant()
    def the_database_holds_what_it_should(self) -> None:
        if hasattr(self, "world"):
            self.world.check()
            self.world.probe()

    def _of(self, several: list[Any], which: int) -> Any:
        return several[which % len(several)]

    def _arrive(self, ages: list[int]) -> None:
        for age in ages:
            if self.world.responses:
                self.world.arrives(-1 - age % len(self.world.responses))

    def _visit(self, who: int, where: int, doing: list[str]) -> None:
        request = self.world.send(self._of(self.world.shoppers, who), self._of(self.world.nodes, where))
        self._finish(request, doing)

    def _do(self, request: Request, doing: list[str]) -> bool:
        if not self.world.look(request):
            return False
        for what in doing:
            self.world.do(request, what)
        return True

    def _finish(self, request: Request, doing: list[str]) -> None:
        if self._do(request, doing):
            self.world.finish(request)


Place = Callable[[], tuple[Callable[[], Store], Callable[[float], None]]]
"""Makes a database: what opens a store of it, and what sets its clock."""


def run(place: Place, examples: int, steps: int, counts: Counter[str]) -> None:
    """Hypothesis looks for trouble, and tells the shortest way to it."""
    machine = type("TheFarm", (Farm,), {"place": staticmethod(place), "counts": counts})
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples, stateful_step_count=steps, suppress_health_check=list(HealthCheck)),
    )


def stroll(place: Place, seed: int, steps: int, counts: Counter[str]) -> None:
    """The same by chance alone, which costs a fifth: for what takes many requests to come about."""
    farm = type("TheFarm", (Farm,), {"place": staticmethod(place), "counts": counts})()
    chance = Random(seed)

    def doing() -> list[str]:
        return chance.choice(USUAL) if chance.random() < 0.8 else chance.sample(CHANGES + ENDS, 2)

    def arrivals() -> list[int]:
        return chance.choices(AGES, k=chance.randrange(4))

    def index() -> int:
        return chance.choice(INDICES)

    def step() -> None:
        who, where, seconds = chance.choice(WHO), index(), chance.choice(TIMES_S)
        which = chance.random()
        if which < 0.3:
            farm.visit(who, where, doing(), arrivals())
        elif which < 0.55:
            farm.visit_at_once(who, [index(), index()], [doing(), doing()], chance.random() < 0.5, arrivals())
        elif which < 0.65:
            farm.wait(seconds)
        elif which < 0.7:
            farm.arrive(arrivals())
        elif which < 0.75:
            farm.send(who, where)
        elif which < 0.83 and farm.world.requests:
            farm.go_on(index(), doing(), chance.choice(THEN), chance.choice(STATUS))
        elif which < 0.9:
            when = chance.choice(["before", "after"])
            farm.meanwhile(when, chance.choice(MEANWHILE), who, where, doing(), chance.choice([1.0, 4.0, 6.0]))
        elif which < 0.95:
            farm.trouble(chance.choice(TROUBLE), index())
        else:
            farm.mischief(chance.choice(MISCHIEF), index(), where, chance.randrange(1, 12), doing())

    clocks = [(chance.uniform(0, 1e6), chance.choice(RATES)) for _ in range(chance.choice([2, 2, 3]))]
    farm.begin(chance.random() < 0.2, 0.0 if chance.random() < 0.1 else 5.0, clocks, chance.choice(ENTRIES))
    for _ in range(steps):
        step()
        farm.the_database_holds_what_it_should()
