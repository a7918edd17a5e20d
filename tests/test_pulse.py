"""Heartbeats are counted: who is asked, who is silent, who takes nothing."""

from __future__ import annotations

from farmsyncd.edges.link.pulse import Beat, Pulse


def pulse() -> Pulse:
    return Pulse(silent_beats=3, stalled_beats=2, stuck_beats=5, unsent=100)


def beats(one: Pulse, count: int, waiting: int = 0, *, listening: bool = True) -> list[Beat]:
    return [one.beat(waiting, listening=listening) for _ in range(count)]


def test_a_silent_peer_is_asked_and_then_given_up() -> None:
    assert beats(pulse(), 3) == [Beat.ASK, Beat.ASK, Beat.SILENT]


def test_a_peer_that_is_heard_now_and_then_lives() -> None:
    one = pulse()
    for _ in range(10):
        assert Beat.SILENT not in beats(one, 2)
        one.heard()


def test_two_who_talk_ask_nothing() -> None:
    one = pulse()
    for _ in range(5):
        one.heard()
        one.said()
        assert one.beat(0, listening=True) is Beat.NOTHING


def test_one_who_only_listens_says_that_it_is_there() -> None:
    one = pulse()
    one.heard()
    assert one.beat(0, listening=True) is Beat.ASK


def test_one_side_may_leave_the_asking_to_the_other() -> None:
    one = Pulse(silent_beats=3, stalled_beats=2, stuck_beats=5, unsent=100, ask_beats=2)
    for _ in range(10):
        assert one.beat(0, listening=True) is Beat.NOTHING
        one.heard()
        one.said()
        assert one.beat(0, listening=True) is Beat.NOTHING
    assert beats(one, 3) == [Beat.NOTHING, Beat.ASK, Beat.SILENT]


def test_who_does_not_listen_calls_nobody_silent_but_says_that_it_is_there() -> None:
    assert beats(pulse(), 20, listening=False) == [Beat.ASK] * 20


def test_a_peer_that_takes_nothing_of_much_is_given_up_soon_and_of_little_late() -> None:
    one = pulse()
    one.heard()
    assert beats(one, 2, waiting=101, listening=False)[-1] is Beat.STALLED
    assert beats(pulse(), 5, waiting=1, listening=False)[3:] == [Beat.ASK, Beat.STALLED]


def test_a_peer_that_takes_something_is_waited_for() -> None:
    one = pulse()
    for _ in range(20):
        one.moved()
        one.heard()
        assert one.beat(1_000_000, listening=True) is Beat.ASK
    assert beats(one, 2, waiting=1_000_000, listening=False)[-1] is Beat.STALLED
