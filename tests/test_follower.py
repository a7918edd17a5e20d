"""How often a node asks and tells what is no news, and that news is told at once."""

from __future__ import annotations

import attrs
import pytest
from twisted.internet.task import Clock

from farmsyncd.core.messages.greeting import PROTOCOL, Hello
from farmsyncd.core.messages.schedule import Datasets, Flipped, Plan, Schedule, Standing
from farmsyncd.node.follower import BETTER_NS, Follower
from tests.fake_data_server import FakeDataServer, FakeEndpoint

VERSION = "ab" * 20


@attrs.define(eq=False)
class Shop:
    """One dataset of a node, of which a test says how it stands."""

    stands: Standing
    unnoted: list[Flipped] = attrs.Factory(list)
    looks: int = 0

    def hear(self, plan: Plan) -> None:
        """Plans are nothing here."""

    def keep(self, versions: tuple[str, ...]) -> None:
        """Nor are pins."""

    def noted(self, cycle: int) -> None:
        """The data server has it."""
        self.unnoted = [flip for flip in self.unnoted if flip.cycle != cycle]

    def connected(self) -> None:
        """Nothing to do."""

    def reconsider(self) -> None:
        self.looks += 1

    def standing(self) -> Standing:
        return self.stands

    def flips(self) -> list[Flipped]:
        return list(self.unnoted)


@attrs.define(eq=False)
class Scene:
    """A follower that asks every 15 seconds, and the data server that it follows."""

    clock: Clock
    server: FakeDataServer
    shop: Shop
    follower: Follower

    def after(self, seconds: int) -> None:
        """So much time passes, with all that was to be said."""
        for _ in range(seconds):
            self.clock.advance(1)
            self.server.flush()

    def heard_in(self, seconds: int) -> tuple[int, int, int]:
        """How often schedules were asked for, datasets were, and a standing was told, in so much time."""
        self.server.heard.clear()
        self.after(seconds)
        kinds: tuple[type, ...] = (Schedule, Datasets, Standing)
        asked, listed, told = (len(self.server.heard_of(kind)) for kind in kinds)
        return asked, listed, told


@pytest.fixture
def scene() -> Scene:
    clock = Clock()
    server = FakeDataServer(clock)
    shop = Shop(Standing("shop", "ready", 1, VERSION, None, None, 0, 40 * BETTER_NS, b""))
    follower = Follower(
        FakeEndpoint(server),
        Hello(PROTOCOL, "node", "web-1", ()),
        lambda: [("shop", shop)],
        lambda names: None,  # noqa: ARG005 - the only dataset is known
        clock,
        lambda: 0.5,
        15.0,
        all_datasets=True,
    )
    follower.startService()
    server.flush()
    return Scene(clock, server, shop, follower)


def test_an_idle_node_asks_every_15_seconds_and_restates_itself_every_30(scene: Scene) -> None:
    assert scene.heard_in(60) == (4, 4, 2)
    assert scene.shop.looks == 12, "it looks by itself what there is to do every 5 seconds"
    assert scene.follower.connected


def test_a_standing_that_is_news_is_told_at_once_and_only_once(scene: Scene) -> None:
    scene.server.heard.clear()
    scene.shop.stands = attrs.evolve(scene.shop.stands, state="late")
    scene.follower.tell("shop")
    scene.follower.tell("shop")
    scene.server.flush()
    assert [each.state for each in scene.server.heard_of(Standing)] == ["late"]


def test_a_comparison_of_clocks_is_told_at_once_when_it_has_become_far_better(scene: Scene) -> None:
    scene.server.heard.clear()
    for bound_ms in (39, 20, 5, 4, 1):  # told at 5, and at 1
        scene.shop.stands = attrs.evolve(scene.shop.stands, error_bound=bound_ms * BETTER_NS)
        scene.follower.tell("shop")
    for bound_ns in (400_000, 100_000, 10_000):  # so little is nothing to hurry for
        scene.shop.stands = attrs.evolve(scene.shop.stands, error_bound=bound_ns)
        scene.follower.tell("shop")
    scene.server.flush()
    assert [each.error_bound for each in scene.server.heard_of(Standing)] == [5 * BETTER_NS, BETTER_NS]


def test_a_flip_that_is_not_noted_is_told_again_with_each_asking(scene: Scene) -> None:
    scene.server.silent = True
    scene.shop.unnoted = [Flipped("shop", 1, VERSION, 10**18, 1000, b"")]
    scene.follower.tell("shop")
    scene.follower.tell("shop")
    scene.server.flush()
    assert len(scene.server.heard_of(Flipped)) == 1
    scene.after(14)  # a server that says nothing at all is dropped soon after
    scene.server.silent = False
    scene.after(1)
    assert len(scene.server.heard_of(Flipped)) == 2
    assert scene.shop.unnoted == []
