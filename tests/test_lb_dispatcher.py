from __future__ import annotations

from farmsyncd.core.eligibility import Order
from farmsyncd.lb.config import NodeConfig
from farmsyncd.lb.dispatcher import Request
from farmsyncd.lb.seating import Seat
from tests.lb_scene import SECOND, Scene, sighted


class Client:
    """Asks for a seat, and keeps what it is told."""

    def __init__(self, scene: Scene, source: bytes, tried: tuple[str, ...] = ()) -> None:
        self.told: list[Seat | None] = []
        self.request: Request = scene.dispatcher.request(source, self.told.append, tried)

    @property
    def seat(self) -> Seat:
        """The seat that it was given."""
        (seat,) = self.told
        assert seat is not None
        return seat


def test_without_any_node_a_connection_waits_and_is_closed_after_the_queues_timeout() -> None:
    scene = Scene(queue_timeout_ns=5 * SECOND)
    client = Client(scene, b"s")
    scene.wait(4.9)
    assert client.told == []
    scene.wait(0.2)
    assert client.told == [None]
    assert (scene.dispatcher.waited, scene.dispatcher.timed_out, scene.dispatcher.waiting) == (1, 1, 0)
    assert scene.clock.getDelayedCalls() == []


def test_who_waits_is_seated_as_soon_as_there_is_a_node() -> None:
    scene = Scene()
    clients = [Client(scene, b"%d" % number) for number in range(3)]
    scene.dispatcher.observe(sighted("ab"))
    assert [client.seat.node.name for client in clients] == ["a", "b", "a"]
    scene.wait(10)


def test_who_waits_for_a_node_in_maintenance_is_seated_when_it_is_back() -> None:
    scene = Scene("a")
    scene.dispatcher.command("a", Order.MAINT)
    client = Client(scene, b"s")
    assert client.told == []
    scene.dispatcher.command("a", Order.READY)
    assert client.seat.node.name == "a"
    scene.wait(10)


def test_when_all_nodes_are_full_those_who_came_first_are_seated_first() -> None:
    scene = Scene("ab", max_connections=1)
    held = [scene.come(b"x"), scene.come(b"y")]
    clients = [Client(scene, b"%d" % number) for number in range(3)]
    assert scene.dispatcher.waiting == 3
    scene.dispatcher.leave(held[1])
    assert clients[0].seat.node.name == "b"
    assert [client.told for client in clients[1:]] == [[], []]
    scene.dispatcher.leave(clients[0].seat)
    scene.dispatcher.leave(held[0])
    assert clients[1].seat.node.name == "b"
    assert clients[2].seat.node.name == "a"
    scene.wait(10)


def test_a_source_waits_for_its_own_node_although_another_one_is_free() -> None:
    scene = Scene("ab", nodes={"a": NodeConfig(max_connections=1)})
    held = scene.come(b"s")
    assert held.node.name == "a"
    mine, other = Client(scene, b"s"), Client(scene, b"t")
    assert mine.told == []
    assert other.seat.node.name == "b"
    scene.dispatcher.leave(held)
    assert mine.seat.node.name == "a"
    scene.wait(10)


def test_who_waits_for_a_node_that_dies_goes_to_another_one() -> None:
    scene = Scene("ab", nodes={"a": NodeConfig(max_connections=1)}, check="tcp")
    scene.come(b"s")
    mine = Client(scene, b"s")
    for _ in range(3):
        scene.dispatcher.checked("a", False, "no")
    assert mine.seat.node.name == "b"
    scene.wait(10)


def test_who_waits_goes_on_when_time_alone_brings_a_node_back() -> None:
    scene = Scene("ab", max_connections=1, retry_after_ns=2 * SECOND)
    scene.come(b"x", ("a",))
    scene.fail("a", 3, others="b")
    client = Client(scene, b"s")
    assert client.told == []
    scene.wait(2.1)
    assert client.seat.node.name == "a"
    scene.wait(10)


def test_a_full_queue_turns_away_at_once() -> None:
    scene = Scene(queue=2)
    clients = [Client(scene, b"%d" % number) for number in range(3)]
    assert [client.told for client in clients] == [[], [], [None]]
    assert scene.dispatcher.turned_away == 1
    assert Client(Scene(queue=0), b"s").told == [None]
    scene.dispatcher.stop()
    assert [client.told for client in clients] == [[None]] * 3


def test_a_client_that_has_gone_takes_no_seat() -> None:
    scene = Scene("a", max_connections=1)
    held = scene.come(b"x")
    gone, stays = Client(scene, b"1"), Client(scene, b"2")
    gone.request.cancel()
    gone.request.cancel()
    scene.dispatcher.leave(held)
    assert gone.told == []
    assert stays.seat.node.name == "a"
    stays.request.cancel()
    scene.wait(10)


def test_who_has_tried_all_nodes_in_vain_does_not_wait() -> None:
    scene = Scene("ab")
    assert Client(scene, b"s", ("a", "b")).told == [None]


def test_a_dead_nodes_sources_move_at_a_bounded_pace_and_new_ones_do_not_wait_for_them() -> None:
    scene = Scene("ab", check="tcp", move_rate=10.0)
    homes = {b"%d" % number: scene.visit(b"%d" % number) for number in range(40)}
    assert set(homes.values()) == {"a"}
    for _ in range(3):
        scene.dispatcher.checked("a", False, "no")
    clients = [Client(scene, source) for source in homes]
    assert sum(bool(client.told) for client in clients) == 10
    assert Client(scene, b"new").seat.node.name == "b"
    scene.wait(1)
    assert 19 <= sum(bool(client.told) for client in clients) <= 21
    scene.wait(2.2)
    assert {client.seat.node.name for client in clients} == {"b"}
    assert scene.dispatcher.seating.moved == 40
    scene.wait(10)


def test_a_client_whose_node_just_refused_it_does_not_wait_for_the_pace() -> None:
    scene = Scene("ab", move_rate=1.0)
    for number in range(5):
        source = b"%d" % number
        scene.visit(source)
        assert Client(scene, source, ("a",)).seat.node.name == "b"


def test_a_balancer_that_stops_lets_nobody_wait() -> None:
    scene = Scene()
    client = Client(scene, b"s")
    scene.dispatcher.stop()
    assert client.told == [None]
    assert scene.clock.getDelayedCalls() == []
    assert Client(scene, b"t").told == [None]


def test_a_seat_given_up_within_decided_goes_to_the_next() -> None:
    scene = Scene("a", max_connections=1)
    held = scene.come(b"x")
    seen: list[str] = []

    def refuse(seat: Seat | None) -> None:
        assert seat is not None
        seen.append(seat.node.name)
        scene.dispatcher.leave(seat)

    for number in range(50):
        scene.dispatcher.request(b"%d" % number, refuse)
    scene.dispatcher.leave(held)
    assert seen == ["a"] * 50
    assert scene.dispatcher.waiting == 0
    scene.wait(10)


def test_an_affinity_table_at_its_limit_under_a_flood_of_sources() -> None:
    scene = Scene("ab", sources=50)
    regulars = [scene.come(b"regular %d" % number) for number in range(8)]
    homes = {seat.stay.source: seat.node.name for seat in regulars if seat.stay}
    for number in range(5000):
        scene.visit(b"flood %d" % number)
        assert len(scene.affinity) <= 50
    assert {source: scene.visit(source) for source in homes} == homes
