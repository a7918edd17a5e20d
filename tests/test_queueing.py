from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from farmsyncd.core.pace import Pace
from farmsyncd.core.queueing import Queue, Ticket

LANES = st.sampled_from(["a", "b", "*"])


def test_those_who_waited_longest_are_first_in_each_lane() -> None:
    queue: Queue[int] = Queue(10, 100)
    tickets = [queue.join(number, lane, number) for number, lane in enumerate(["a", "*", "b", "a"])]
    heads = [queue.first("a", "*"), queue.first("b", "*"), queue.first("b"), queue.first("c")]
    assert [head and head.item for head in heads] == [0, 1, 2, None]
    assert tickets[1] is not None
    queue.change_lane(tickets[1], "b")
    first = queue.first("b")
    assert first is tickets[1], "it waited longer than who was there"
    assert queue.first("*") is None


def test_the_queue_is_bounded_and_so_is_the_wait() -> None:
    queue: Queue[str] = Queue(2, 100)
    first, second = queue.join("one", "a", 0), queue.join("two", "b", 50)
    assert queue.join("three", "a", 60) is None
    assert queue.due_ns() == 100
    assert queue.overdue(99) == []
    assert queue.overdue(100) == [first]
    assert queue.overdue(500) == [second]
    assert queue.due_ns() is None
    assert first is not None
    assert not queue.leave(first)
    assert Queue[str](0, 1).join("x", "a", 0) is None


class Waiting(RuleBasedStateMachine):
    """Against a list."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: Queue[int] = Queue(5, 100)
        self.model: list[Ticket[int]] = []
        self.now_ns = 0
        self.count = 0

    @rule(lane=LANES)
    def join(self, lane: str) -> None:
        self.count += 1
        ticket = self.queue.join(self.count, lane, self.now_ns)
        assert (ticket is None) == (len(self.model) == 5)
        if ticket is not None:
            self.model.append(ticket)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.model))
        self.model.remove(ticket)
        assert self.queue.leave(ticket)
        assert not self.queue.leave(ticket)
        self.queue.change_lane(ticket, "a")
        assert ticket not in self.queue

    @precondition(lambda self: self.model)
    @rule(data=st.data(), lane=LANES)
    def change(self, data: st.DataObject, lane: str) -> None:
        self.queue.change_lane(data.draw(st.sampled_from(self.model)), lane)

    @rule(elapsed=st.integers(0, 60))
    def wait(self, elapsed: int) -> None:
        self.now_ns += elapsed
        over = [ticket for ticket in self.model if ticket.due_ns <= self.now_ns]
        assert self.queue.overdue(self.now_ns) == over
        self.model = [ticket for ticket in self.model if ticket not in over]

    @invariant()
    def all_that_it_tells_is_so(self) -> None:
        assert list(self.queue) == self.model
        assert len(self.queue) == len(self.model)
        assert self.queue.due_ns() == min((ticket.due_ns for ticket in self.model), default=None)
        for lanes in (("a",), ("b", "*"), ("a", "b", "*")):
            expected = next((ticket for ticket in self.model if ticket.lane in lanes), None)
            assert self.queue.first(*lanes) is expected


TestWaiting = Waiting.TestCase


def test_a_pace_allows_a_burst_and_then_so_many_each_second() -> None:
    pace = Pace(rate=10, burst=3)
    assert [pace.take(0) for _ in range(5)] == [True, True, True, False, False]
    wait_ns = pace.wait_ns(0)
    assert 100_000_000 <= wait_ns <= 100_000_001
    assert pace.take(wait_ns)
    assert not pace.take(wait_ns)
    taken = sum(pace.take(wait_ns + tick * 10_000_000) for tick in range(1, 201))
    assert 19 <= taken <= 21
    assert pace.wait_ns(10**12) == 0
    assert sum(pace.take(10**12) for _ in range(9)) == 3
