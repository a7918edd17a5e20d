from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from farmsyncd.core.messages import Message
from farmsyncd.core.messages.clock import Echo, Now, Probe, Time
from farmsyncd.core.messages.content import (
    Chunk,
    Delta,
    GetChunks,
    GetDelta,
    GetManifest,
    Lack,
    ManifestIs,
    Offer,
    Sent,
)  # fmt: skip
from farmsyncd.core.messages.greeting import No
from farmsyncd.core.messages.operating import (
    Accepted,
    Cancel,
    Cancelled,
    Done,
    Forecast,
    History,
    Pin,
    Publish,
    Report,
    Rollback,
    Status,
    Unpin,
)  # fmt: skip
from farmsyncd.core.messages.schedule import (
    Datasets,
    DatasetsAre,
    Flipped,
    Noted,
    Pins,
    Plan,
    Schedule,
    Standing,
)  # fmt: skip
from farmsyncd.core.snapshot import decode_pieces, encode_pieces
from farmsyncd.edges.content import space
from farmsyncd.edges.content.tree import scan
from tests.dataserver import SECOND, Peer, Room, tiny_manifest, told, tree
from tests.leaks import LoggedErrors

NOWHERE = "0" * 40


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path / "state")
    yield room
    room.close()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tree(tmp_path / "site", index__html="<h1>Shop</h1>", prices__json='{"tea": 3}' * 50)


def refused(answer: Message, code: str, *words: str) -> None:
    assert isinstance(answer, No), answer
    assert answer.code == code, answer
    for word in words:
        assert word in answer.why.decode(), answer


def node(room: Room, name: str = "web-1", instance: str = "a") -> Peer:
    return room.peer("node", name, address="10.0.0.7:5", instance=instance, serve="10.0.0.7:80")


def standing(state: str, cycle: int | None, version: str | None, staged: str | None = None) -> Standing:
    return Standing("shop", state, cycle, version, cycle and cycle + 1 if staged else None, staged, 77, 9, b"")


def flipped(version: str, late_ns: int, at: int, cycle: int = 1) -> Flipped:
    return Flipped("shop", cycle, version, at + late_ns, 500, b"")


# People


def test_a_person_without_a_greeting_is_told_the_time_the_datasets_and_the_schedule(room: Room, site: Path) -> None:
    accepted = room.operator().publish("shop", site)
    person = room.peer(None)
    now = person.ask(Time())
    assert now == Now(room.hands.ns, room.parts.clock.epoch, "2027-01-15T08:00:00.000Z")
    assert person.ask(Datasets()) == DatasetsAre(("shop",))
    plan = person.ask(Schedule("shop"))
    assert isinstance(plan, Plan)
    assert (plan.cycle, plan.next_cycle, plan.next_version) == (None, 1, accepted.version)
    refused(person.ask(Schedule("docs")), "unknown", "expected a dataset of this farm (shop), and docs came")


def test_a_person_is_pushed_nothing_later(room: Room, site: Path) -> None:
    person = room.peer(None)
    person.say(Schedule("shop"))
    room.operator().publish("shop", site)
    assert person.take() == []


def test_a_message_that_is_another_roles_is_turned_down_and_the_connection_goes_on(room: Room) -> None:
    for role, message in (("node", Status()), ("stager", Datasets()), ("probe", Status()), ("operator", Probe(1))):
        peer = room.peer(role)
        refused(peer.ask(message), "refused", f"{message.VERB} is not for")
        assert peer.gone is None


def test_a_probe_is_echoed_with_the_times_of_its_coming_and_going(room: Room) -> None:
    probe = room.peer("probe")
    assert probe.ask(Probe(5)) == Echo(5, room.hands.ns, room.hands.ns, room.parts.clock.epoch)


# Nodes


def test_a_node_that_asked_is_pushed_every_later_plan_and_the_list_of_datasets(room: Room, site: Path) -> None:
    web = node(room)
    assert web.say(Schedule("shop")) == [Pins("shop", ()), Plan("shop", 0, *[None] * 7)]
    assert web.say(Datasets()) == [DatasetsAre(())]
    operator = room.operator()
    accepted = operator.publish("shop", site)
    plan, datasets = web.take()
    assert isinstance(plan, Plan)
    assert (plan.revision, plan.next_version, plan.activates_at) == (1, accepted.version, accepted.activates_at)
    assert plan.freezes_at == accepted.activates_at - 2 * SECOND
    assert datasets == DatasetsAre(("shop",))
    operator.ask(Cancel("shop"))
    assert web.take() == [Plan("shop", 2, *[None] * 7)]
    operator.publish("docs", site)
    assert web.take() == [DatasetsAre(("docs", "shop"))]


def test_a_node_that_has_gone_is_pushed_nothing(room: Room, site: Path) -> None:
    web = node(room)
    web.say(Schedule("shop"))
    web.leave()
    room.operator().publish("shop", site)
    assert web.take() == []
    assert room.parts.roster.connected == 0


def test_standings_are_seen_in_the_status_and_survive_a_restart(room: Room, site: Path) -> None:
    accepted = room.operator().publish("shop", site)
    node(room).say(Schedule("shop"), standing("staging", None, None, accepted.version))
    room.pass_(1)
    status = told(room.operator().ask(Status()))
    assert status["farm_time_ns"] == room.hands.ns
    assert status["datasets"]["shop"]["active"] is None
    assert status["datasets"]["shop"]["next"]["activates_at_ns"] == accepted.activates_at
    (web,) = status["nodes"]
    assert (web["name"], web["state"], web["staged"], web["connected"]) == ("web-1", "staging", accepted.version, True)
    assert (web["offset_ns"], web["error_bound_ns"], web["last_seen_ns"]) == (77, 9, room.hands.ns)
    assert web["serve"] == "10.0.0.7:80"
    written = Deferred.fromCoroutine(room.parts.roster.write())
    assert written.called
    seen = room.hands.ns - SECOND
    room.restart()
    room.pass_(100)
    (web,) = told(room.operator().ask(Status()))["nodes"]
    assert (web["connected"], web["last_seen_ns"]) == (False, seen)


def test_a_second_node_of_one_name_is_turned_away_and_the_first_goes_on(room: Room, site: Path) -> None:
    first = node(room, instance="a")
    first.say(Schedule("shop"))
    second = node(room, instance="b")
    assert second.gone is not None
    assert "expected a node name of its own, and web-1 is connected from 10.0.0.7:5" in second.gone
    room.operator().publish("shop", site)
    assert len(first.take()) == 1
    assert first.gone is None


def test_a_node_that_connects_again_replaces_its_old_connection(room: Room, site: Path) -> None:
    old = node(room, instance="a")
    old.say(Schedule("shop"))
    new = node(room, instance="a")
    new.say(Schedule("shop"))
    old.pair.flush()
    assert old.gone == "the node has opened a newer connection"
    assert room.parts.roster.connected == 1
    room.operator().publish("shop", site)
    assert len(new.take()) == 1


def test_the_first_node_that_comes_back_rolls_over_however_it_comes(tmp_path: Path, site: Path) -> None:
    for number, message in enumerate([Schedule("shop"), standing("ready", 1, NOWHERE), flipped(NOWHERE, 0, 1)]):
        room = Room(tmp_path / f"state-{number}")
        accepted = room.operator().publish("shop", site)
        room.pass_(10)
        web = node(room, f"web-{number}")
        web.say(message)
        history = told(room.operator().ask(History("shop")))["cycles"]
        assert [(one["outcome"], one["rolled_over_by"]) for one in history] == [("active", f"web-{number}")]
        assert history[0]["activates_at_ns"] == accepted.activates_at
        room.close()


def test_the_flip_report_says_how_far_apart_the_nodes_were_and_who_is_missing(room: Room, site: Path) -> None:
    operator = room.operator()
    accepted = operator.publish("shop", site)
    peers = [node(room, f"web-{number}") for number in range(4)]
    for peer in peers:
        peer.say(Schedule("shop"), standing("staged", None, None, accepted.version))
    peers[3].leave()  # not long ago: it is expected all the same
    room.pass_(11)
    for late_ns, peer in zip((400, 0, 1500), peers, strict=False):
        answers = peer.say(flipped(accepted.version, late_ns, accepted.activates_at))
        assert Noted("shop", 1) in answers
    report = told(operator.ask(Report("shop", None)))
    assert (report["dataset"], report["cycle"], report["version"]) == ("shop", 1, accepted.version)
    assert report["activates_at_ns"] == accepted.activates_at
    assert report["spread_ns"] == 1500
    assert [(one["name"], one["lateness_ns"], one["error_bound_ns"]) for one in report["nodes"]] == [
        ("web-1", 0, 500), ("web-0", 400, 500), ("web-2", 1500, 500),
    ]  # fmt: skip
    assert report["missing"] == ["web-3"]
    assert report == told(operator.ask(Report("shop", 1)))
    refused(operator.ask(Report("shop", 2)), "unknown", "there is no cycle 2")
    refused(operator.ask(Report("docs", None)), "unknown")


def test_a_report_that_comes_twice_is_noted_twice_and_counts_once(room: Room, site: Path) -> None:
    accepted = room.operator().publish("shop", site)
    room.pass_(11)
    web = node(room)
    for late_ns in (5, 9):
        assert Noted("shop", 1) in web.say(flipped(accepted.version, late_ns, accepted.activates_at))
    assert [one["lateness_ns"] for one in told(room.operator().ask(Report("shop", 1)))["nodes"]] == [5]


def test_a_report_is_noted_only_when_it_is_in_the_catalog(
    room: Room, site: Path, monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    accepted = room.operator().publish("shop", site)
    room.pass_(11)
    web, report = node(room), flipped(accepted.version, 5, accepted.activates_at)
    with monkeypatch.context() as broken:
        broken.setattr(type(room.parts.catalog), "note_flips", lambda *_: 1 / 0)
        [answer] = web.say(report)
        assert isinstance(answer, No)
    assert logged_errors.take(ZeroDivisionError)
    assert web.say(report) == [Noted("shop", 1)]


def test_a_report_before_any_activation_is_refused(room: Room, site: Path) -> None:
    operator = room.operator()
    operator.publish("shop", site)
    refused(operator.ask(Report("shop", None)), "unknown", "no cycle has been activated yet")


# Uploads and publications


def test_an_upload_sends_only_what_is_lacking_and_is_served_as_it_came(room: Room, site: Path, tmp_path: Path) -> None:
    operator = room.operator()
    first = operator.publish("shop", site)
    (site / "prices.json").write_text('{"tea": 4}' * 50)
    scanned = scan(site)
    manifest = scanned.manifest
    lack = operator.ask(Offer(manifest.version, tuple(encode_pieces(manifest))))
    assert isinstance(lack, Lack)
    assert lack.ranges == b"1"  # the page is there already
    accepted = operator.publish("shop", site)
    assert accepted.replaced == first.version
    assert accepted.cycle == 2
    stager = room.peer("stager", "web-1")
    got = stager.ask(GetManifest(manifest.version))
    assert isinstance(got, ManifestIs)
    assert decode_pieces(got.pieces, manifest.version) == manifest
    *chunks, sent = stager.say(GetChunks(manifest.version, b"0-1"))
    assert sent == Sent(manifest.version)
    assert {chunk.digest for chunk in chunks if isinstance(chunk, Chunk)} == {d for d, _ in manifest.distinct_chunks()}


def test_a_publication_without_all_chunks_is_refused_and_changes_nothing(room: Room, site: Path) -> None:
    operator = room.operator()
    manifest = scan(site).manifest
    operator.ask(Offer(manifest.version, tuple(encode_pieces(manifest))))
    answer = operator.ask(Publish("shop", manifest.version, "now"))
    refused(answer, "bad", "expected all chunks", "2 have not come")
    assert room.parts.library.versions == frozenset()
    assert operator.ask(Datasets()) == DatasetsAre(())


def test_a_chunk_that_is_not_what_it_says_ends_the_upload(room: Room, site: Path) -> None:
    operator = room.operator()
    manifest = scan(site).manifest
    digest, length = manifest.distinct_chunks()[0]
    operator.ask(Offer(manifest.version, tuple(encode_pieces(manifest))))
    operator.say(Chunk(digest, "raw", length, b"x" * length), Publish("shop", manifest.version, "now"))
    operator.pair.advance(10)
    assert operator.gone is not None
    assert "damaged" in operator.gone
    assert not room.parts.library.store.has(digest)


def test_a_chunk_that_nobody_lacks_ends_the_upload(room: Room) -> None:
    operator = room.operator()
    operator.say(Chunk(b"d" * 32, "raw", 1, b"x"))
    operator.pair.advance(10)
    assert operator.gone is not None
    assert "expected chunks that LACK has named" in operator.gone


def test_a_manifest_that_lies_ends_the_upload(room: Room) -> None:
    operator = room.operator()
    operator.say(Offer(NOWHERE, tuple(encode_pieces(tiny_manifest(1)))))
    operator.pair.advance(10)
    assert operator.gone is not None
    assert f"expected the manifest of version {NOWHERE}" in operator.gone


@pytest.mark.parametrize(
    ("when", "words"),
    [("at:1", "in the future"), ("in:0", "in the future"), ("tomorrow", "expected now, in:NANOSECONDS")],
)
def test_a_time_that_makes_no_sense_is_refused(room: Room, site: Path, when: str, words: str) -> None:
    operator = room.operator()
    version = operator.upload(site)
    refused(operator.ask(Publish("shop", version, when)), "bad", words)
    assert room.parts.keeper.courses == {}


def test_an_unknown_version_cannot_be_published(room: Room) -> None:
    refused(room.operator().ask(Publish("shop", NOWHERE, "now")), "gone", "kept here")


def test_after_the_freeze_point_a_publication_is_refused_and_the_plan_stands(room: Room, site: Path) -> None:
    operator = room.operator()
    accepted = operator.publish("shop", site)
    room.pass_(8.5)
    refused(operator.ask(Publish("shop", accepted.version, "now")), "frozen", "1.500 s", "freeze point")
    refused(operator.ask(Cancel("shop")), "frozen")
    room.pass_(1.5)
    answer = operator.ask(Publish("shop", accepted.version, "now"))
    assert isinstance(answer, Accepted)
    assert answer.replaced is None


def test_cancelling_says_what_will_not_happen(room: Room, site: Path) -> None:
    operator = room.operator()
    accepted = operator.publish("shop", site)
    assert operator.ask(Cancel("shop")) == Cancelled("shop", 1, accepted.version)
    refused(operator.ask(Cancel("shop")), "unknown", "nothing is pending")
    refused(operator.ask(Cancel("docs")), "unknown")


def test_a_full_disk_is_foreseen_before_anything_is_sent(
    room: Room, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "free", lambda _path: space.Need(1000, 1000))
    manifest = scan(site).manifest
    answer = room.operator().ask(Offer(manifest.version, tuple(encode_pieces(manifest))))
    refused(answer, "full", "free")


def test_changes_are_only_for_operators_networks_and_questions_for_all(room: Room, site: Path) -> None:
    room.operator().publish("shop", site)
    stranger = room.operator("192.0.2.5:4000")
    for message in (
        Offer(NOWHERE, (b"x",)), Publish("shop", NOWHERE, "now"), Rollback("shop", None, "now"), Cancel("shop"),
        Pin("web-1", "shop", NOWHERE), Unpin("web-1", "shop"),
    ):  # fmt: skip
        refused(stranger.ask(message), "forbidden", message.VERB, "192.0.2.5", "operators")
    assert told(stranger.ask(Status()))["datasets"]["shop"]["next"] is not None
    for address in ("a local socket", "::1:5", "::ffff:127.0.0.1:5", "127.9.9.9:5"):
        assert isinstance(room.operator(address).ask(Cancel("docs")), No)
        refused(room.operator(address).ask(Cancel("docs")), "unknown")


def activated(room: Room, peer: Peer, site: Path, **files: str) -> str:
    """Publish these files and let their time come; the version."""
    accepted = peer.publish("shop", tree(site, **files))
    room.pass_(10)
    node(room, "roller").say(Schedule("shop"))
    return accepted.version


def test_a_rollback_leads_to_the_version_before_or_to_any_that_is_kept(room: Room, site: Path) -> None:
    operator = room.operator()
    refused(operator.ask(Rollback("shop", None, "now")), "unknown")
    v1 = activated(room, operator, site, a="1")
    refused(operator.ask(Rollback("shop", None, "now")), "unknown", "before the active one")
    v2 = activated(room, operator, site, a="2")
    v3 = activated(room, operator, site, a="3")
    back = operator.ask(Rollback("shop", None, "in:10000000000"))
    assert isinstance(back, Accepted)
    assert (back.version, back.cycle) == (v2, 4)
    back = operator.ask(Rollback("shop", v1, "in:10000000000"))
    assert isinstance(back, Accepted)
    assert (back.version, back.replaced) == (v1, v2)
    refused(operator.ask(Rollback("shop", NOWHERE, "now")), "unknown", v3)
    room.pass_(10)
    node(room, "roller").say(Schedule("shop"))
    assert told(operator.ask(Status()))["datasets"]["shop"]["active"]["version"] == v1
    assert told(operator.ask(History("shop")))["cycles"][0]["origin"] == "rollback"


def test_a_rollback_to_a_version_that_is_kept_no_longer_is_refused_by_name(room: Room, site: Path) -> None:
    operator = room.operator()
    versions = [activated(room, operator, site, a=str(number)) for number in range(5)]
    refused(operator.ask(Rollback("shop", versions[0], "now")), "gone", "kept no longer", versions[4])


def test_a_forecast_says_what_would_happen_and_changes_nothing(room: Room, site: Path) -> None:
    operator = room.operator()
    v1 = activated(room, operator, site, a="1", b="same", c="goes")
    node(room, "web-1").say(Schedule("shop"), standing("ready", 1, v1))
    revision = room.parts.keeper.courses["shop"].revision
    version = operator.upload(tree(site, a="2", b="same", d="comes"))
    forecast = told(operator.ask(Forecast("shop", version, "in:10000000000")))
    assert (forecast["cycle"], forecast["version"], forecast["active"]) == (2, version, v1)
    assert (forecast["added_names"], forecast["changed_names"], forecast["removed_names"]) == (["d"], ["a"], ["c"])
    assert forecast["node_bytes"] == 6
    assert forecast["activates_at_ns"] == room.hands.ns + 10 * SECOND
    assert {one["name"]: one["likely"] for one in forecast["nodes"]}["web-1"] is True
    assert room.parts.keeper.courses["shop"].revision == revision
    assert version not in room.parts.library
    refused(operator.ask(Forecast("shop", NOWHERE, "now")), "gone")
    refused(operator.ask(Forecast("shop", version, "at:1")), "bad")


# Pins


def test_a_pin_reaches_the_node_now_or_when_it_comes_and_keeps_the_version(room: Room, site: Path) -> None:
    operator = room.operator()
    v1 = activated(room, operator, site, a="1")
    web = node(room)
    web.say(Schedule("shop"), standing("ready", 1, v1))
    web.take()
    assert operator.ask(Pin("web-1", "shop", v1)) == Done("PIN")
    assert web.take() == [Pins("shop", (v1,))]
    assert operator.ask(Pin("web-1", "shop", v1)) == Done("PIN")
    assert web.take() == []
    web.leave()
    for number in range(2, 7):
        activated(room, operator, site, a=str(number))
    assert v1 in room.parts.library
    room.restart()
    operator, web = room.operator(), node(room)
    assert web.say(Schedule("shop"))[0] == Pins("shop", (v1,))
    assert operator.ask(Unpin("web-1", "shop")) == Done("UNPIN")
    assert web.take() == [Pins("shop", ())]
    refused(operator.ask(Unpin("web-1", "shop")), "unknown", "expected a pin")


def test_pins_of_what_there_is_not_are_refused(room: Room, site: Path) -> None:
    operator = room.operator()
    v1 = activated(room, operator, site, a="1")
    node(room).say(standing("ready", 1, v1))
    refused(operator.ask(Pin("web-9", "shop", v1)), "unknown", "web-9", "web-1")
    refused(operator.ask(Pin("web-1", "docs", v1)), "unknown", "docs")
    refused(operator.ask(Pin("web-1", "shop", NOWHERE)), "unknown", NOWHERE)


# Staging


def test_the_common_step_is_served_as_one_difference_and_others_are_not(room: Room, site: Path) -> None:
    operator = room.operator()
    v1 = activated(room, operator, site, a="1" * 5000)
    v2 = operator.publish("shop", tree(site, a="1" * 5000 + "2")).version
    stager = room.peer("stager", "web-1")
    *parts, sent = stager.say(GetDelta(v1, v2))
    assert sent == Sent(v2)
    assert parts
    assert [part.index for part in parts if isinstance(part, Delta)] == list(range(len(parts)))
    refused(stager.ask(GetDelta(v2, v1)), "gone", "ask for chunks")
    refused(stager.ask(GetDelta(v1, NOWHERE)), "gone")


def test_a_stager_is_told_what_is_not_to_be_had(room: Room, site: Path) -> None:
    version = room.operator().publish("shop", site).version
    stager = room.peer("stager", "web-1")
    refused(stager.ask(GetManifest(NOWHERE)), "gone")
    refused(stager.ask(GetChunks(NOWHERE, b"0")), "gone")
    refused(stager.ask(GetChunks(version, b"0-9")), "bad", "below 2")
    refused(stager.ask(GetChunks(version, b"what")), "bad", "ranges")
    assert stager.ask(GetChunks(version, b"")) == Sent(version)
    assert stager.gone is None


def test_a_chunk_damaged_on_the_disk_is_found_when_it_is_asked_for_again_and_healed_by_a_new_upload(
    room: Room, site: Path
) -> None:
    operator = room.operator()
    version = operator.publish("shop", site).version
    manifest = scan(site).manifest
    digest, length = manifest.distinct_chunks()[0]
    (pack,) = (room.config.state / "packs").glob("*.pack")
    data = pack.read_bytes()
    at = data.index(b"<h1>Shop")
    pack.write_bytes(data[:at] + b"X" + data[at + 1 :])
    stager = room.peer("stager", "web-1")
    assert len(stager.say(GetChunks(version, b"0"))) == 2  # sent as it lies: whoever gets it sees that it is damaged
    refused(stager.ask(GetChunks(version, b"0")), "gone", digest.hex(), "publish its tree again")
    assert not room.parts.library.store.has(digest)
    refused(operator.ask(Publish("shop", version, "now")), "gone", "damaged")
    operator.publish("shop", site)
    assert len(stager.say(GetChunks(version, b"0"))) == 2
    assert room.parts.library.store.read(digest) == (site / "index.html").read_bytes()
    assert length == 13


# Restarts


def test_after_a_restart_all_is_as_it_was_and_what_is_overdue_is_rolled_over_by_the_first_node(
    room: Room, site: Path
) -> None:
    operator = room.operator()
    v1 = activated(room, operator, site, a="1")
    v2 = operator.publish("shop", tree(site, a="2")).version
    room.restart()
    assert room.parts.library.versions == {v1, v2}
    room.pass_(500)
    room.restart()
    plan = node(room).say(Schedule("shop"))[-1]
    assert isinstance(plan, Plan)
    assert (plan.cycle, plan.version, plan.next_cycle) == (2, v2, None)
    stager = room.peer("stager", "web-1")
    assert len(stager.say(GetChunks(v2, b"0"))) == 2


def test_an_upload_that_broke_off_is_taken_up_again(room: Room, site: Path) -> None:
    manifest = scan(site).manifest
    first = room.operator()
    lack = first.ask(Offer(manifest.version, tuple(encode_pieces(manifest))))
    assert isinstance(lack, Lack)
    assert lack.ranges == b"0-1"
    data = (site / "index.html").read_bytes()
    first.say(Chunk(manifest.distinct_chunks()[0][0], "raw", len(data), data))
    first.leave()
    again = room.operator().ask(Offer(manifest.version, tuple(encode_pieces(manifest))))
    assert again == Lack(manifest.version, b"1")


def test_a_fault_of_ours_is_logged_and_the_peer_told_no_more_than_it_needs(
    room: Room, site: Path, monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    operator = room.operator()
    operator.publish("shop", site)
    monkeypatch.setattr(type(room.parts.catalog), "history", lambda *_: 1 / 0)
    refused(operator.ask(History("shop")), "internal", "a fault of the data server")
    assert logged_errors.take(ZeroDivisionError)
    assert operator.gone is None
