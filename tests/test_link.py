"""Links over transports in memory: greeting, heartbeats, silent and slow peers, pausing, and the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from farmsyncd.core.messages import Message, Side, read
from farmsyncd.core.messages.clock import Echo, Now, Probe, Time
from farmsyncd.core.messages.content import Sent
from farmsyncd.core.messages.greeting import Hello
from farmsyncd.core.messages.operating import Status
from farmsyncd.core.messages.schedule import Datasets, DatasetsAre, Schedule
from farmsyncd.core.wire import FrameParser, Limits, encode
from farmsyncd.edges.link import Link, LinkSettings
from farmsyncd.edges.link.outbox import PourEnded
from farmsyncd.errors import PeerError
from tests.leaks import LoggedErrors
from tests.wire_pair import DATA, NODE, Recorder, WirePair

OPERATOR = Hello(1, "operator", "anna")
EPOCH = "0123456789abcdef"


class Served:
    """A server's link whose peer is written by hand, byte by byte."""

    def __init__(self, session: Recorder, settings: LinkSettings | None = None) -> None:
        self.clock = Clock()
        self.transport = StringTransport()
        self.link = Link(session, DATA, Side.SERVER, self.clock, settings)
        self.link.makeConnection(self.transport)

    def say(self, text: str) -> None:
        self.link.dataReceived(text.encode())

    def heard(self) -> str:
        text: str = self.transport.value().decode()
        self.transport.clear()
        return text

    def lose(self) -> None:
        self.link.connectionLost(Failure(ConnectionDone()))


def answer_time(link: Link, message: Message) -> None:
    if isinstance(message, Time):
        link.send(Now(17, EPOCH, "1970-01-01T00:00:00Z"))


def test_both_sides_learn_who_the_other_is() -> None:
    client, server = Recorder(), Recorder()
    pair = WirePair(client, server)
    pair.flush()
    assert (client.hello, server.hello) == (DATA, NODE)
    assert (pair.client.peer, pair.server.peer) == (DATA, NODE)
    pair.client.send(Schedule("shop"))
    pair.server.send(DatasetsAre(("a", "b")))
    pair.flush()
    assert server.messages == [Schedule("shop")]
    assert client.messages == [DatasetsAre(("a", "b"))]


def test_the_server_says_nothing_before_the_client_greets() -> None:
    served = Served(Recorder())
    assert served.heard() == ""
    served.say("HELLO 1 node web-1\n")
    assert served.heard() == "HELLO 1 data shop-data\n"


def test_a_person_is_answered_without_a_greeting() -> None:
    session = Recorder(answer_time)
    served = Served(session)
    served.say("TIME\r\nSCHEDULE shop\n")
    assert served.heard() == f"NOW 17 {EPOCH} 1970-01-01T00:00:00Z\n"
    assert session.messages == [Time(), Schedule("shop")]
    assert session.hello is None


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("HELLO 2 node web-1 something=new\n", "version 1 of the farmsync protocol, and the peer speaks 2"),
        ("STATUS\n", "expected HELLO before STATUS"),
        ("XYZZY\n", "XYZZY"),
        ("NOW 1 0123456789abcdef x\n", "not for the client to send"),
        ("HELLO 1 node ../etc\n", "is not a name"),
        ("\x16\x03\x01\x00\n", "expected a verb in capitals"),
        ("HELLO 1 node a\nHELLO 1 node a\n", "a second one came"),
        ("X" * 5000, "a line of at most 4096 bytes"),
        ("HELLO 1 node a +1\n5000:", "a netstring of at most 4096 bytes"),
        ("HELLO 1 node a +1\n3:abcd,", "not as long as it says"),
    ],
)
def test_a_peer_that_makes_no_sense_is_told_why_and_closed(said: str, reason: str) -> None:
    session = Recorder()
    served = Served(session)
    served.say(said)
    frames = [frame for frame in FrameParser().feed(served.heard().encode()) if frame.verb == "BYE"]
    assert len(frames) == 1
    assert reason in frames[0].payload[0].decode()
    assert served.transport.disconnecting
    served.say("TIME\n")
    assert session.messages == []
    served.lose()
    assert [reason in loss for loss in session.losses] == [True]


SAID = st.sampled_from(
    [
        b"HELLO 1 node a\n",
        b"HELLO 1 operator a\n",
        b"TIME\n",
        b"PING 5\n",
        b"PONG 5\n",
        b"BYE +1\n",
        b"2:ok,",
        b"\n",
        b"+1\n",
    ]
)


@given(st.lists(SAID | st.binary(max_size=30), max_size=12), st.booleans())
def test_whatever_a_peer_says_it_is_answered_or_told_goodbye_and_lost_once(said: list[bytes], half_close: bool) -> None:
    session = Recorder(answer_time)
    served = Served(session)
    for part in said:
        served.link.dataReceived(part)
    if half_close:
        served.link.readConnectionLost()
    served.clock.pump([5.0] * 20)
    assert served.transport.disconnecting  # it has not answered our heartbeats, or has said nothing for a minute
    frames = list(FrameParser().feed(served.transport.value()))
    assert all(read(frame, Side.SERVER) for frame in frames)
    assert sum(frame.verb == "BYE" for frame in frames) <= 1
    served.lose()
    assert len(session.losses) == 1
    assert served.clock.getDelayedCalls() == []


def test_a_server_of_another_version_is_told_so() -> None:
    session, transport, clock = Recorder(), StringTransport(), Clock()
    link = Link(session, NODE, Side.CLIENT, clock)
    link.makeConnection(transport)
    link.dataReceived(b"HELLO 3 data shop-data\n")
    assert b"BYE +1\n" in transport.value()
    link.connectionLost(Failure(ConnectionDone()))
    assert session.hello is None
    assert ["version 1 of the farmsync protocol, and the peer speaks 3" in loss for loss in session.losses] == [True]
    assert clock.getDelayedCalls() == []


def test_an_http_request_is_answered_so_that_a_web_client_can_show_it() -> None:
    session = Recorder()
    served = Served(session)
    served.say("GET / HTTP/1.1\r\nHost: data\r\n\r\n")
    answer = served.heard()
    assert answer.startswith("HTTP/1.1 400 ")
    assert "farmsync" in answer
    assert "BYE" not in answer
    assert served.transport.disconnecting
    served.lose()


def test_a_reason_is_short_and_printable() -> None:
    served = Served(Recorder())
    served.link.close("\x1b[31m" + "x" * 5000)
    (frame,) = FrameParser().feed(served.heard().encode())
    assert frame.payload[0].startswith(b"?[31mx")
    assert len(frame.payload[0]) <= 500
    served.lose()


def test_a_session_that_refuses_its_peer_closes_the_link() -> None:
    def refuse(_link: Link, _message: Message) -> None:
        raise PeerError("not like this")

    client, server = Recorder(), Recorder(refuse)
    pair = WirePair(client, server)
    pair.client.send(Schedule("shop"))
    pair.flush()
    assert client.losses == ["not like this"]
    assert server.losses == ["not like this"]


def test_a_fault_of_ours_is_logged_and_ends_this_link_only(logged_errors: LoggedErrors) -> None:
    def stumble(_link: Link, _message: Message) -> None:
        raise ZeroDivisionError

    client, server = Recorder(), Recorder(stumble)
    pair = WirePair(client, server)
    pair.client.send(Schedule("shop"))
    pair.flush()
    assert client.losses == ["a fault on this side; its log says more"]
    assert len(logged_errors.take(ZeroDivisionError)) == 1


def test_the_limits_grow_with_the_greeting() -> None:
    session = Recorder()
    served = Served(session, LinkSettings(stranger=Limits(line=40, netstring=5, count=1, total=5)))
    offer = "OFFER " + "a" * 40 + " +1\n9:123456789,"
    served.say("HELLO 1 operator anna\n" + offer)
    assert [message.VERB for message in session.messages] == ["OFFER"]
    served.lose()


def test_a_peer_that_does_not_greet_is_not_waited_for() -> None:
    session = Recorder()
    served = Served(session, LinkSettings(greeting_timeout=10, heartbeat=1000))
    served.clock.advance(9)
    assert not served.transport.disconnecting
    served.clock.advance(2)
    assert served.heard().startswith("BYE +1\n")
    assert served.transport.disconnecting
    served.lose()
    assert len(session.losses) == 1
    assert served.clock.getDelayedCalls() == []


def test_a_client_whose_server_does_not_greet_is_told_where_to_look() -> None:
    session, clock, transport = Recorder(), Clock(), StringTransport()
    link = Link(session, NODE, Side.CLIENT, clock, LinkSettings(greeting_timeout=10, heartbeat=1000))
    link.makeConnection(transport)
    clock.advance(11)
    link.connectionLost(Failure(ConnectionDone()))
    assert session.losses == ["expected HELLO, and nothing more came; is that the --listen address of a data server?"]


def test_a_polite_person_has_time_to_think() -> None:
    served = Served(Recorder(answer_time), LinkSettings(greeting_timeout=10, idle_timeout=60, heartbeat=1000))
    for _ in range(5):
        served.say("TIME\n")
        served.clock.advance(50)
        assert not served.transport.disconnecting
    served.clock.advance(11)
    assert served.transport.disconnecting
    served.lose()


def test_quiet_peers_assure_each_other_and_stay() -> None:
    client, server = Recorder(), Recorder()
    pair = WirePair(client, server)
    for _ in range(100):
        pair.advance(5)
    assert client.losses == server.losses == []
    assert client.messages == server.messages == []
    assert pair.client.settled
    assert pair.server.settled


def test_a_silent_peer_is_asked_and_then_dropped() -> None:
    session = Recorder()
    served = Served(session, LinkSettings(heartbeat=5, silent_beats=3))
    served.say("HELLO 1 node web-1\n")
    served.heard()
    served.clock.pump([5, 5, 5])
    assert served.heard() == "PING 0\n"
    served.say("PONG 0\n")
    for _ in range(4):  # one in which it was heard, and three of silence
        assert not served.transport.disconnecting
        served.clock.advance(5)
    assert served.transport.disconnecting
    served.lose()
    assert session.losses == ["nothing was heard for 3 heartbeats"]


def test_a_jump_of_the_wall_clock_drops_nobody() -> None:
    served = Served(Recorder(), LinkSettings(heartbeat=5, silent_beats=3))
    served.say("HELLO 1 node web-1\n")
    served.clock.advance(4)
    served.clock.rightNow += 86_400
    served.clock.advance(2)
    assert not served.transport.disconnecting
    served.lose()


def test_a_ping_is_answered_with_its_token() -> None:
    served = Served(Recorder())
    served.say("HELLO 1 node web-1\nPING 99\n")
    assert served.heard() == "HELLO 1 data shop-data\nPONG 99\n"
    served.lose()


def test_a_peer_that_takes_nothing_is_not_read_from_and_then_dropped() -> None:
    def answer_much(link: Link, _message: Message) -> None:
        link.send(DatasetsAre(("x" * 60,) * 10))

    session = Recorder(answer_much)
    settings = LinkSettings(unsent=100_000, unsent_reading=50_000, stalled_beats=3, stuck_beats=6, heartbeat=5)
    served = Served(session, settings)
    served.say("HELLO 1 node web-1\n")
    while served.transport.producerState == "producing":
        served.say("DATASETS\n" * 10)
        assert len(session.messages) < 1000
    assert served.link.unsent > 50_000
    for _ in range(7):  # one in which it took something, and six in which it did not
        assert not served.transport.disconnecting
        served.clock.advance(5)
    assert served.transport.disconnecting
    served.lose()
    assert "bytes wait for a peer that does not take them" in session.losses[0]


def test_a_peer_that_takes_its_answers_again_is_read_from_again() -> None:
    def answer_much(link: Link, _message: Message) -> None:
        link.send(DatasetsAre(("x" * 60,) * 100))

    session = Recorder(answer_much)
    served = Served(session, LinkSettings(unsent_reading=50_000))
    served.say("HELLO 1 node web-1\n" + "DATASETS\n" * 40)
    assert served.transport.producerState == "paused"
    while served.link.unsent:
        served.transport.producer.resumeProducing()  # type: ignore[union-attr]
    assert served.transport.producerState == "producing"
    assert served.heard().count("DATASETS-ARE") == 40
    served.lose()


def test_more_than_is_bearable_is_never_kept_for_a_peer() -> None:
    session = Recorder()
    served = Served(session, LinkSettings(unsent_most=1_000_000))
    served.say("HELLO 1 node web-1\n")
    served.link.send_bytes(b"X" * 2_000_000)
    assert served.transport.disconnecting
    assert served.link.unsent == 0
    served.lose()


def test_close_gives_the_peer_the_rest_and_says_why() -> None:
    client, server = Recorder(), Recorder()
    pair = WirePair(client, server)
    pair.flush()
    pair.server.send_bytes(encode(Sent("a" * 40).frame()) * 10_000)
    pair.server.close("enough for today")
    pair.server.send(Sent("b" * 40))
    pair.flush()
    assert client.messages == [Sent("a" * 40)] * 10_000
    assert client.losses == server.losses == ["enough for today"]
    assert pair.clock.getDelayedCalls() == []


def test_a_peer_that_does_not_take_the_rest_is_cut_off() -> None:
    session = Recorder()
    served = Served(session, LinkSettings(patience=5))
    served.say("HELLO 1 node web-1\n")
    served.link.send_bytes(b"X" * 1_000_000)
    served.link.close("enough")
    assert not served.transport.disconnecting
    served.clock.advance(5)
    assert served.transport.disconnected or served.transport.disconnecting
    served.lose()
    assert session.losses == ["enough"]


def test_abort_ends_at_once_and_the_session_hears_it_once() -> None:
    client, server = Recorder(), Recorder()
    pair = WirePair(client, server)
    pair.flush()
    fates: list[str] = []
    pair.client.when_lost().addCallback(fates.append)
    pair.client.abort("changed my mind")
    pair.client.abort("again")
    pair.client.close("and again")
    pair.flush()
    pair.client.when_lost().addCallback(fates.append)
    assert client.losses == ["changed my mind"]
    assert fates == ["changed my mind"] * 2
    assert server.losses == ["the peer ended the connection"]
    assert pair.clock.getDelayedCalls() == []


@pytest.mark.parametrize("end", ["lose", "abort"])
def test_a_link_that_ends_ends_its_pour(end: str) -> None:
    served = Served(Recorder())
    served.say("HELLO 1 stager web-1\n")
    endings: list[object] = []
    poured = served.link.pour(iter([b"x" * 100_000] * 3))
    poured.addErrback(lambda failure: endings.append(failure.check(PourEnded)))
    assert served.link.unsent > 0
    if end == "abort":
        served.link.abort("gone")
    served.lose()
    assert endings == [PourEnded]
    assert served.link.unsent == 0


def test_nothing_is_delivered_after_the_session_closed() -> None:
    def close(link: Link, _message: Message) -> None:
        link.close("one is enough")

    session = Recorder(close)
    served = Served(session)
    served.say("TIME\nTIME\nTIME\n")
    assert session.messages == [Time()]
    served.lose()


def test_pause_and_resume_stop_and_start_reading() -> None:
    served = Served(Recorder())
    served.say("HELLO 1 node web-1\n")
    served.link.pause()
    served.link.pause()
    assert served.transport.producerState == "paused"
    for _ in range(10):
        served.clock.advance(5)
    assert not served.transport.disconnecting
    assert served.heard().count("PING 0") >= 8
    served.link.resume()
    assert served.transport.producerState == "producing"
    served.lose()


def test_a_link_that_is_closed_while_paused_still_sees_its_peer_go() -> None:
    served = Served(Recorder())
    served.say("HELLO 1 node web-1\n")
    served.link.pause()
    served.link.close("done")
    assert served.transport.producerState == "producing"
    served.lose()


def test_stamps_are_read_when_bytes_come_and_as_late_as_possible_when_they_go() -> None:
    class Prober(Recorder):
        now = 0

        def stamp(self) -> int:
            self.now += 1
            return self.now

    session = Prober()
    served = Served(session)
    served.say("HELLO 1 probe web-1\n")
    served.heard()
    served.say("PROBE 5\n")
    assert session.messages == [Probe(5)]
    assert served.link.arrived_ns == 2
    served.link.send_now(lambda now: Echo(5, served.link.arrived_ns, now, EPOCH))
    assert served.heard() == f"ECHO 5 2 3 {EPOCH}\n"
    served.lose()


def test_half_closed_askers_get_their_answers_and_then_the_end() -> None:
    session = Recorder()
    served = Served(session)
    served.say("TIME\nDATASETS\n")
    served.link.readConnectionLost()
    served.link.send(Now(1, EPOCH, "x"))
    assert not served.transport.disconnecting
    served.link.send(DatasetsAre(()))
    assert served.transport.disconnecting
    assert session.messages == [Time(), Datasets()]
    served.lose()


def test_a_half_closed_operator_gets_its_answers_too() -> None:
    session = Recorder()
    served = Served(session)
    served.say("HELLO 1 operator anna\nSTATUS\n")
    served.link.readConnectionLost()
    assert session.messages == [Status()]
    assert not served.transport.disconnecting
    served.link.send(Sent("a" * 40))
    assert served.transport.disconnecting
    served.lose()


def test_a_half_closed_asker_without_an_answer_is_kept_for_a_while_only() -> None:
    served = Served(Recorder(), LinkSettings(idle_timeout=60))
    served.say("HELLO 1 operator anna\nSTATUS\n")
    served.link.readConnectionLost()
    for _ in range(11):
        served.clock.advance(5)
        assert not served.transport.disconnecting
    served.clock.advance(5)
    assert served.transport.disconnecting
    served.lose()


def test_bytes_that_are_encoded_already_are_an_answer_too() -> None:
    served = Served(Recorder())
    served.say("TIME\n")
    served.link.readConnectionLost()
    served.link.send_bytes(b"NOW 1 0123456789abcdef x\n")
    assert served.transport.disconnecting
    served.lose()


def test_a_node_that_sends_no_more_is_gone() -> None:
    served = Served(Recorder())
    served.say("HELLO 1 node web-1\n")
    served.link.readConnectionLost()
    assert served.transport.disconnecting
    served.lose()


def test_a_client_without_a_greeting_just_asks() -> None:
    client, server = Recorder(), Recorder(answer_time)
    pair = WirePair(client, server, me=None)
    pair.client.send(Time())
    pair.flush()
    assert client.messages == [Now(17, EPOCH, "1970-01-01T00:00:00Z")]
    pair.client.close("thanks")
    pair.flush()
    assert server.losses == ["thanks"]
