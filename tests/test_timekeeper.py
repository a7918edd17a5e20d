"""A node's timekeeper: compares over its own connection, survives the data server, and is not fooled by a suspend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory

from farmsyncd.core.farmtime import Estimate
from farmsyncd.core.messages import Side
from farmsyncd.core.messages.clock import Echo
from farmsyncd.core.skew import Skew
from farmsyncd.edges.link import Link
from farmsyncd.edges.timing.clocks import RawClock, SkewedClock
from farmsyncd.edges.timing.steady import SteadyTime
from farmsyncd.edges.timing.timekeeper import Timekeeper
from tests.eventually import eventually_async
from tests.oscillators import MILLI, SECOND, Oscillator
from tests.timing_farm import DATA, EchoSession, TimingFarm

DAY = 86_400 * SECOND
reactor: Any = _reactor
Start = Callable[[], TimingFarm]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a node of which the clock is days off and 150 ppm slow, without a data server as yet."""
    farms = []

    def one() -> TimingFarm:
        farm = TimingFarm(Oscillator(3 * DAY, -150_000), Oscillator(20_000 * DAY, 20_000))
        farm.keeper.startService()
        farms.append(farm)
        return farm

    yield one
    for farm in farms:
        farm.keeper.stopService()
        farm.deliver()
        farm.crash()
        farm.timers.advance(60)
        assert not farm.timers.getDelayedCalls()


def test_claim_s1_05_a_node_compares_its_clock_as_soon_as_it_is_connected(start: Start) -> None:
    farm = start()
    assert farm.keeper.estimate() is None
    assert farm.keeper.epoch is None
    assert not farm.keeper.connected
    server = farm.serve("00000000000000aa")
    farm.run(1)
    assert farm.keeper.connected
    assert server.names == ["web-1"]
    assert server.probes >= 8
    assert farm.keeper.epoch == "00000000000000aa"
    assert abs(farm.estimate().offset_ns - (farm.farm_ns() - farm.now_ns())) < MILLI
    assert farm.estimate().error_bound_ns < 3 * MILLI
    assert [one is not None for one in farm.told] == [True] * server.probes


def test_claim_s1_06_the_activation_time_is_adjusted_by_the_difference(start: Start) -> None:
    farm = start()
    farm.serve()
    farm.run(3)
    activation = farm.farm_ns() + 5 * SECOND
    local = farm.estimate().local_ns(activation)
    while farm.now_ns() < local:
        farm.run(0.01)
    assert abs(farm.farm_ns() - activation) < 11 * MILLI


def test_the_bound_holds_for_hours_and_probes_are_few(start: Start) -> None:
    farm = start()
    server = farm.serve()
    farm.run(30)
    before = server.probes
    farm.run(2 * 3600, step_ns=SECOND // 2)
    assert 2 * 3600 / 31 <= server.probes - before <= 2 * 3600 / 7


def test_before_an_activation_the_clocks_are_compared_again_and_again(start: Start) -> None:
    farm = start()
    server = farm.serve()
    farm.run(60, step_ns=5 * MILLI)
    farm.keeper.expect([farm.farm_ns() + 20 * SECOND])
    before = server.probes
    farm.run(20, step_ns=5 * MILLI)
    assert server.probes - before >= 16
    local = farm.node.exact(farm.true_ns)
    assert farm.estimate().bound_at(local) < 20 * MILLI


def test_without_the_data_server_the_estimate_goes_on_and_its_bound_grows(start: Start) -> None:
    farm = start()
    farm.serve()
    farm.run(10)
    farm.crash()
    known = farm.estimate()
    farm.run(600, step_ns=SECOND)
    assert not farm.keeper.connected
    assert farm.estimate().error_bound_ns > known.error_bound_ns + MILLI
    farm.serve(farm.keeper.epoch or "")
    farm.run(12, step_ns=2 * MILLI)
    assert farm.keeper.connected
    assert farm.estimate().error_bound_ns < 10 * MILLI


def test_a_data_server_that_was_started_anew_is_compared_anew(start: Start) -> None:
    farm = start()
    farm.serve("00000000000000aa")
    farm.run(5)
    farm.crash()
    farm.run(5)
    farm.farm.step(farm.true_ns, SECOND // 1000)  # small enough to agree with what was known
    farm.serve("00000000000000bb")
    farm.keeper._comparison.start_over()  # nothing to judge between the step and the greeting
    farm.run(12)
    assert farm.keeper.epoch == "00000000000000bb"


def test_claim_s1_07_after_a_suspend_everything_is_forgotten_and_compared_anew(start: Start) -> None:
    farm = start()
    farm.serve()
    farm.run(5)
    farm.node.step(farm.true_ns, -3600 * SECOND)  # its clock stood still for an hour
    farm.slept += 3600 * SECOND
    farm.timers.advance(1.0)
    assert farm.told[-1] is None
    assert farm.keeper.estimate() is None
    farm.run(1)
    assert farm.told[-1] is not None
    assert farm.estimate().error_bound_ns < 3 * MILLI


def test_a_question_that_was_under_way_during_a_suspend_counts_for_nothing(start: Start) -> None:
    farm = start()
    server = farm.serve()
    farm.run(5)
    farm.keeper.burst()
    told, probes = len(farm.told), server.probes
    farm.node.step(farm.true_ns, -SECOND // 100)
    farm.slept += SECOND // 100
    farm.deliver()
    farm.deliver()
    assert server.probes == probes + 1
    assert farm.told[told:] == [None]
    farm.run(1)
    assert farm.keeper.connected
    assert farm.estimate().error_bound_ns < 3 * MILLI


def test_a_step_that_nobody_announced_is_found_by_the_next_exchange(start: Start) -> None:
    farm = start()
    farm.serve()
    farm.run(5)
    farm.keeper.burst()
    farm.node.step(farm.true_ns, 7 * DAY)
    farm.timers.advance(0.001)
    farm.deliver()
    farm.deliver()
    farm.timers.advance(0.1)
    farm.deliver()
    farm.deliver()
    farm.run(1)
    assert farm.estimate().error_bound_ns < 3 * MILLI


def test_an_answer_that_nobody_asked_for_ends_the_connection(start: Start) -> None:
    farm = start()
    server = farm.serve()
    farm.run(1.5)
    assert farm.endpoint.link is not None
    farm.endpoint.link.send(Echo(1, 2, 3, "0" * 16))
    farm.run(0.1)
    assert any("that was not asked for" in end for end in server.ends)
    assert farm.keeper.estimate() is not None
    farm.run(5)
    assert farm.keeper.connected


def test_a_listener_that_fails_is_logged_and_keeps_nobody_from_hearing(start: Start, logged_errors: Any) -> None:
    farm = start()
    heard: list[Estimate | None] = []

    def fails(_: object) -> None:
        raise ZeroDivisionError

    farm.keeper.on_change(fails)
    farm.keeper.on_change(heard.append)
    farm.serve()
    farm.run(1)
    assert heard == farm.told
    assert len(logged_errors.take(ZeroDivisionError)) == len(heard) >= 8


@pytest_twisted.ensureDeferred
async def test_claim_s1_05_over_real_sockets_the_truth_is_within_the_bound() -> None:
    """Farm time here is the machine's raw clock and a constant, so the truth of a node with a wrong clock is known."""
    raw, ahead = RawClock(), 1_800_000_000 * SECOND
    session = EchoSession(lambda: raw.now_ns() + ahead, "0" * 16)
    steady = SteadyTime(reactor)
    server = Factory.forProtocol(lambda: Link(session, DATA, Side.SERVER, steady))
    server.noisy = False
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(server)
    clock = SkewedClock(raw, Skew(-3600 * SECOND, 200_000))
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    keeper = Timekeeper(endpoint, "web-1", clock, steady)
    verdicts: list[tuple[int, int]] = []

    def judge(estimate: Estimate | None) -> None:
        if estimate is not None:
            machine = raw.now_ns()
            local = Skew(-3600 * SECOND, 200_000).shown_ns(machine)
            verdicts.append((abs(estimate.farm_ns(local) - machine - ahead), estimate.bound_at(local)))

    keeper.on_change(judge)
    keeper.startService()
    try:
        await eventually_async(lambda: len(verdicts) >= 9)
    finally:
        await keeper.stopService()
        await port.stopListening()
        await eventually_async(lambda: session.ends)
    assert all(error <= bound for error, bound in verdicts), verdicts
