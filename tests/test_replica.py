"""One dataset on a node: staged beforehand, flipped at its time, through crashes, late news and lost servers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from farmsyncd.core.pointer import Pointer
from farmsyncd.core.snapshot import Manifest
from farmsyncd.core.standing import Turn
from farmsyncd.edges.cache.pointerfile import PointerFile, PointerReader
from farmsyncd.errors import Unavailable
from farmsyncd.node.checking import by_hash, by_stat
from farmsyncd.node.record import RecordFile
from farmsyncd.node.staging.conversation import Cut
from farmsyncd.node.staging.spare import Spare
from tests.leaks import LoggedErrors
from tests.node_bench import AHEAD, Bench, S


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def serving(bench: Bench, name: str, cycle: int = 1) -> Turn:
    """Let the node serve a version, as its first."""
    one = bench.version(name)
    turn = Turn(cycle, one.version, bench.farm_ns - 100 * S)
    bench.replica.start()
    bench.plan(1, turn)
    bench.stager.deliver(one)
    assert (bench.linked(), bench.served()) == (name, name)
    return turn


def staged(bench: Bench, active: Turn | None, name: str, cycle: int, in_s: float) -> Turn:
    """Let the node have the next version staged."""
    one = bench.version(name)
    turn = Turn(cycle, one.version, bench.farm_ns + round(in_s * S))
    bench.plan(cycle, active, turn)
    bench.stager.deliver(one)
    return turn


def test_a_new_node_copies_what_is_active_and_reports_no_flip_of_it(bench: Bench) -> None:
    serving(bench, "one")
    assert bench.replica.flips() == []
    assert bench.replica.state() == "ready"


def test_a_staged_version_becomes_active_at_its_time_and_the_flip_is_reported(bench: Bench) -> None:
    first = serving(bench, "one")
    turn = staged(bench, first, "two", 2, in_s=5)
    assert bench.replica.state() == "staged"
    bench.time.advance(4.9)
    assert (bench.linked(), bench.served()) == ("one", "one")
    bench.time.advance(0.1)
    assert (bench.linked(), bench.served()) == ("two", "two")
    [flip] = bench.replica.flips()
    assert (flip.cycle, flip.version, flip.detail) == (2, turn.version, b"")
    assert 0 <= flip.activated_at - turn.at_ns < 10_000_000
    assert flip.error_bound == 1000
    assert bench.stager.hushed >= 1
    bench.replica.noted(2)
    assert bench.replica.flips() == []


def test_the_first_cycle_is_a_flip_for_who_was_there_before_its_time(bench: Bench) -> None:
    bench.replica.start()
    turn = staged(bench, None, "one", 1, in_s=5)
    bench.time.advance(5)
    assert bench.linked() == "one"
    assert [(flip.cycle, flip.version) for flip in bench.replica.flips()] == [(1, turn.version)]


def test_what_the_data_server_says_on_a_new_connection_counts_anew(bench: Bench) -> None:
    first = serving(bench, "one")
    bench.plan(9, first)
    two = bench.version("two")
    coming = Turn(2, two.version, bench.farm_ns + 1000 * S)
    bench.plan(3, first, coming)  # older than what was told on this connection
    assert bench.stager.wanted is None
    bench.replica.connected()
    bench.plan(3, first, coming)
    assert bench.stager.wanted == two.version


def test_readers_are_told_of_the_flip_beforehand_in_the_machine_s_time(bench: Bench) -> None:
    first = serving(bench, "one")
    turn = staged(bench, first, "two", 2, in_s=5)
    pointer = PointerReader(bench.cache.pointer_path).read()
    assert pointer is not None
    local_ns = turn.at_ns - AHEAD
    assert pointer.flips_at_machine_ns == bench.time.machine_ns(local_ns)
    assert pointer.current(bench.time.machine_ns(local_ns) - 1) == first.version
    assert pointer.current(bench.time.machine_ns(local_ns)) == turn.version


def test_a_request_is_answered_by_the_clock_although_the_trigger_has_not_fired(bench: Bench) -> None:
    first = serving(bench, "one")
    staged(bench, first, "two", 2, in_s=5)
    bench.time.sleep(5.0)  # the clock moves on, and no timer gets to run
    assert (bench.linked(), bench.served()) == ("one", "two")


def test_the_appointment_follows_the_clock_comparison_until_shortly_before(bench: Bench) -> None:
    first = serving(bench, "one")
    turn = staged(bench, first, "two", 2, in_s=5)
    bench.ahead_ns += S
    bench.replica.reconsider()
    assert bench.replica.pointing.deadline_ns() == turn.at_ns - AHEAD - S
    bench.time.advance(3.95)
    bench.ahead_ns -= S
    bench.replica.reconsider()
    assert bench.replica.pointing.deadline_ns() == turn.at_ns - AHEAD - S
    bench.time.advance(0.05)
    assert bench.linked() == "two"


def test_a_cancelled_turn_is_taken_back_from_readers_and_the_trigger(bench: Bench) -> None:
    first = serving(bench, "one")
    staged(bench, first, "two", 2, in_s=5)
    bench.plan(3, first)
    pointer = PointerReader(bench.cache.pointer_path).read()
    assert pointer is not None
    assert pointer.next_version is None
    bench.time.advance(10)
    assert (bench.linked(), bench.served()) == ("one", "one")
    assert bench.replica.state() == "ready"


def test_a_turn_that_is_replaced_by_an_earlier_one_flips_at_the_earlier_time(bench: Bench) -> None:
    first = serving(bench, "one")
    staged(bench, first, "two", 2, in_s=3600)
    bench.time.advance(1)
    staged(bench, first, "three", 3, in_s=0.3)
    bench.time.advance(0.3)
    assert bench.linked() == "three"


def test_an_older_plan_that_arrives_late_changes_nothing(bench: Bench) -> None:
    first = serving(bench, "one")
    turn = staged(bench, first, "two", 5, in_s=5)
    bench.plan(4, first)
    assert bench.replica.pointing.armed == turn


def test_a_node_that_lost_the_data_server_and_its_comparison_still_flips(bench: Bench) -> None:
    first = serving(bench, "one")
    staged(bench, first, "two", 2, in_s=5)
    bench.compared = False
    bench.replica.reconsider()
    bench.time.advance(5)
    assert (bench.linked(), bench.served()) == ("two", "two")
    assert bench.replica.flips() == []  # when it was is not known before clocks are compared again
    bench.compared = True
    bench.replica.reconsider()
    assert [flip.cycle for flip in bench.replica.flips()] == [2]


def test_a_version_that_is_staged_too_late_is_served_as_soon_as_it_is_there_and_reported_late(bench: Bench) -> None:
    first = serving(bench, "one")
    two = bench.version("two")
    turn = Turn(2, two.version, bench.farm_ns + 5 * S)
    bench.plan(2, first, turn)
    assert bench.replica.state() == "staging"
    bench.time.advance(7)
    bench.replica.reconsider()
    assert (bench.replica.state(), bench.linked()) == ("late", "one")
    bench.stager.deliver(two)
    assert (bench.replica.state(), bench.linked(), bench.served()) == ("ready", "two", "two")
    [flip] = bench.replica.flips()
    assert flip.activated_at - turn.at_ns >= 2 * S


def test_missed_turns_are_skipped_for_the_newest(bench: Bench) -> None:
    serving(bench, "one")
    four = bench.version("four")
    bench.plan(9, Turn(4, four.version, bench.farm_ns - S))
    bench.stager.deliver(four)
    assert bench.linked() == "four"
    assert [flip.cycle for flip in bench.replica.flips()] == [4]


def test_a_rollback_to_a_version_that_is_still_here_needs_no_staging(bench: Bench) -> None:
    first = serving(bench, "one")
    turn = staged(bench, first, "two", 2, in_s=1)
    bench.time.advance(1)
    back = Turn(3, first.version, bench.farm_ns + S)
    bench.plan(3, turn, back)
    assert (bench.stager.wanted, bench.replica.state()) == (None, "staged")
    bench.time.advance(1)
    assert (bench.linked(), bench.served()) == ("one", "one")
    assert [flip.cycle for flip in bench.replica.flips()] == [2, 3]


def test_a_node_that_joins_just_before_the_time_goes_straight_for_the_next_version(bench: Bench) -> None:
    one, two = bench.version("one"), bench.version("two")
    first, second = Turn(1, one.version, bench.farm_ns - S), Turn(2, two.version, bench.farm_ns + S // 20)
    bench.replica.start()
    bench.plan(2, first, second)
    assert bench.stager.wanted == two.version
    bench.time.advance(0.1)
    assert (bench.linked(), bench.served()) == (None, None)
    bench.stager.deliver(two)
    assert (bench.linked(), bench.served()) == ("two", "two")


def test_a_copy_of_the_active_version_is_given_up_when_the_next_one_s_time_comes(bench: Bench) -> None:
    one, two = bench.version("one"), bench.version("two")
    bench.replica.start()
    bench.plan(2, Turn(1, one.version, bench.farm_ns - S), Turn(2, two.version, bench.farm_ns + 3 * S))
    assert bench.stager.wanted == one.version
    bench.time.advance(3)
    bench.replica.reconsider()
    assert bench.stager.wanted == two.version
    bench.stager.deliver(two)
    assert bench.linked() == "two"


def test_a_restarted_node_serves_from_its_disk_before_it_hears_from_anyone(bench: Bench) -> None:
    serving(bench, "one", cycle=7)
    replica = bench.restart()
    assert (bench.served(), bench.linked(), replica.state()) == ("one", "one", "ready")
    assert replica.record.highest == 7


def test_a_restarted_node_keeps_the_appointment_although_the_data_server_is_gone(bench: Bench) -> None:
    first = serving(bench, "one")
    staged(bench, first, "two", 2, in_s=5)
    bench.compared = False
    bench.time.advance(1)
    bench.restart()
    assert bench.served() == "one"
    bench.time.advance(4)
    assert (bench.linked(), bench.served()) == ("two", "two")


def test_a_node_that_was_down_at_the_time_flips_when_it_starts_like_its_machine_s_readers_did(bench: Bench) -> None:
    first = serving(bench, "one")
    turn = staged(bench, first, "two", 2, in_s=5)
    bench.crash()
    bench.time.advance(6)
    bench.page = bench.page.__class__(bench.cache.pointer_path)
    replica = bench.restart()
    assert (bench.linked(), bench.served()) == ("two", "two")
    [flip] = replica.flips()
    assert flip.activated_at - turn.at_ns >= S // 2


def test_a_crash_between_the_rename_and_the_record_is_recognised_by_the_link(bench: Bench) -> None:
    first = serving(bench, "one")
    turn = staged(bench, first, "two", 2, in_s=500)
    bench.cache.point_link(turn.version)
    replica = bench.restart()
    assert (bench.linked(), bench.served()) == ("two", "two")
    assert replica.pointing.active == turn


def test_a_node_never_goes_back_whatever_the_data_server_says(bench: Bench) -> None:
    serving(bench, "one", cycle=7)
    old = bench.version("old")
    bench.restart()
    bench.plan(1, Turn(3, old.version, bench.farm_ns - S))
    assert (bench.linked(), bench.stager.wanted) == ("one", None)
    assert bench.replica.state() == "failed"
    assert b"expected cycle 7" in bench.replica.standing().detail


def test_flips_that_were_not_noted_are_reported_again_after_a_restart(bench: Bench) -> None:
    first = serving(bench, "one")
    staged(bench, first, "two", 2, in_s=1)
    bench.time.advance(1)
    before = bench.replica.flips()
    assert bench.restart().flips() == before
    assert len(before) == 1


@pytest.mark.parametrize("hash_finds_it", [False, True])
def test_a_damaged_version_is_found_at_start_and_copied_again(bench: Bench, hash_finds_it: bool) -> None:
    first = serving(bench, "one")
    file = bench.cache.version_path(first.version) / "name.txt"
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.chmod(0o644)
    file.write_text("0ne" if hash_finds_it else "longer than before")
    file.chmod(0o444)
    if hash_finds_it:
        import os

        os.utime(file, ns=times)
    bench.restart(**({} if hash_finds_it else {"check": by_stat}))
    assert (bench.served(), bench.replica.state()) == (None, "empty")
    bench.plan(1, first)
    bench.stager.deliver(bench.version("one"))
    assert (bench.linked(), bench.served(), bench.replica.state()) == ("one", "one", "ready")
    assert bench.replica.flips() == []


def test_damage_that_is_found_later_takes_the_version_out_of_service_until_it_is_copied_again(bench: Bench) -> None:
    serving(bench, "one")
    bench.replica.distrust(bench.version("one").version, "name.txt: its bytes are not those that were published")
    assert bench.served() is None
    bench.stager.deliver(bench.version("one"))
    assert bench.served() == "one"


def test_staging_that_fails_says_why_and_is_tried_again(bench: Bench) -> None:
    first = serving(bench, "one")
    two = bench.version("two")
    bench.plan(2, first, Turn(2, two.version, bench.farm_ns + 1000 * S))
    bench.stager.fail(Unavailable("expected 540 MB free, and 3 MB are"))
    assert bench.replica.state() == "failed"
    assert bench.replica.standing().detail == b"expected 540 MB free, and 3 MB are"
    assert (bench.linked(), bench.stager.wanted) == ("one", None)
    bench.time.advance(1)
    assert bench.stager.wanted == two.version
    bench.stager.deliver(two)
    assert (bench.replica.state(), bench.replica.standing().detail) == ("staged", b"")


def test_a_cut_connection_is_no_failure_and_the_next_one_is_used_at_once(bench: Bench) -> None:
    first = serving(bench, "one")
    two = bench.version("two")
    bench.plan(2, first, Turn(2, two.version, bench.farm_ns + 1000 * S))
    bench.stager.fail(Cut("the connection to the data server ended"))
    assert (bench.replica.state(), bench.stager.wanted) == ("staging", None)
    bench.replica.connected()
    assert bench.stager.wanted == two.version


def test_a_fault_of_ours_while_staging_is_logged_and_staging_goes_on(bench: Bench, logged_errors: LoggedErrors) -> None:
    first = serving(bench, "one")
    two = bench.version("two")
    bench.plan(2, first, Turn(2, two.version, bench.farm_ns + 1000 * S))
    bench.stager.fail(ZeroDivisionError("ours"))
    assert len(logged_errors.take(ZeroDivisionError)) == 1
    bench.time.advance(1)
    assert bench.stager.wanted == two.version


def test_staging_that_is_no_longer_wanted_is_called_off(bench: Bench) -> None:
    first = serving(bench, "one")
    two, three = bench.version("two"), bench.version("three")
    bench.plan(2, first, Turn(2, two.version, bench.farm_ns + 1000 * S))
    bench.plan(3, first, Turn(3, three.version, bench.farm_ns + 1000 * S))
    assert bench.stager.wanted == three.version
    bench.plan(4, first)
    assert bench.stager.wanted is None


def test_a_failing_hook_is_reported_and_changes_nothing(bench: Bench) -> None:
    first = serving(bench, "one")
    bench.hooks.configured = True
    turn = staged(bench, first, "two", 2, in_s=1)
    bench.time.advance(1)
    assert (bench.linked(), bench.replica.flips()) == ("two", [])
    [told] = bench.hooks.told
    assert (told.dataset, told.version, told.cycle) == ("shop", turn.version, 2)
    bench.hooks.outcome.callback("command false: ended with status 1")
    [flip] = bench.replica.flips()
    assert flip.detail == b"command false: ended with status 1"
    assert flip.activated_at - turn.at_ns < 10_000_000


def test_a_flip_whose_hooks_ran_when_the_node_was_killed_is_reported_after_its_restart(bench: Bench) -> None:
    first = serving(bench, "one")
    bench.hooks.configured = True
    turn = staged(bench, first, "two", 2, in_s=1)
    bench.time.advance(1)
    assert (len(bench.hooks.told), bench.replica.flips()) == (1, [])
    bench.restart()
    [flip] = bench.replica.flips()
    assert (flip.cycle, flip.version, flip.detail) == (2, turn.version, b"the node ended before its hooks had")
    assert 0 <= flip.activated_at - turn.at_ns < 10_000_000
    bench.replica.noted(2)
    assert bench.restart().flips() == []


def test_whatever_else_is_due_at_the_instant_of_a_flip_comes_before_what_is_told_of_it(bench: Bench) -> None:
    first = serving(bench, "one")
    bench.hooks.configured = True
    staged(bench, first, "two", 2, in_s=5)
    seen: list[tuple[str | None, int]] = []
    bench.time.timers.callLater(4.9995, lambda: seen.append((bench.linked(), len(bench.hooks.told))))
    bench.time.advance(5)
    assert seen == [("two", 0)]
    assert [flip.cycle for flip in bench.hooks.told] == [2]


def test_a_node_that_ends_right_after_a_flip_has_written_it_down(bench: Bench) -> None:
    first = serving(bench, "one")
    turn = staged(bench, first, "two", 2, in_s=5)
    bench.time.timers.callLater(4.9995, bench.replica.stop)
    bench.time.advance(5)
    assert RecordFile(bench.path / "shop" / "record").load().activations == (first.version, turn.version)


def test_readers_that_flip_while_a_starting_node_looks_at_its_disk_never_see_it_go_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = serving(bench, "one")
    turn = staged(bench, first, "two", 2, in_s=5)
    shown: list[str | None] = []

    def slowly(path: Path, manifest: Manifest) -> str:
        bench.time.sleep(3)  # for each of two versions: the time comes meanwhile
        return by_hash(path, manifest)

    write = PointerFile.write

    def watched(page: PointerFile, pointer: Pointer) -> None:
        shown.append(pointer.current(bench.time.machine_ns(bench.time.now_ns())))
        write(page, pointer)

    monkeypatch.setattr(PointerFile, "write", watched)
    bench.compared = False
    bench.restart(check=slowly)
    assert (bench.linked(), bench.served()) == ("two", "two")
    assert set(shown) == {turn.version}


def test_a_removal_that_takes_long_holds_up_no_flip(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = serving(bench, "v1")
    for number in range(2, 5):
        turn = staged(bench, turn, f"v{number}", number, in_s=1)
        bench.time.advance(1)
    slow: list[Deferred[None]] = []

    def remove_slowly(*_work: object) -> Deferred[None]:
        slow.append(Deferred())
        return slow[-1]

    monkeypatch.setattr(bench.cleaner, "run", remove_slowly)
    for number in range(5, 7):
        turn = staged(bench, turn, f"v{number}", number, in_s=1)
        bench.time.advance(1)
    assert len(slow) == 2
    assert bench.linked() == "v6"
    assert bench.replica.record.activations[-1] == turn.version


def test_a_plan_that_was_on_its_way_at_the_flip_is_no_reason_to_complain(bench: Bench) -> None:
    first = serving(bench, "one")
    turn = staged(bench, first, "two", 2, in_s=5)
    bench.time.advance(5)
    bench.plan(2, first, turn)
    assert (bench.replica.state(), bench.replica.detail()) == ("ready", "")
    assert (bench.linked(), bench.stager.wanted) == ("two", None)


def test_old_versions_go_but_not_the_last_three_nor_pinned_ones(bench: Bench) -> None:
    turn = serving(bench, "v1")
    bench.replica.keep((turn.version,))
    first = turn
    seen = [turn]
    for number in range(2, 7):
        turn = staged(bench, turn, f"v{number}", number, in_s=1)
        bench.time.advance(1)
        seen.append(turn)
    assert set(bench.cache.versions()) == {first.version, *(one.version for one in seen[-3:])}
    assert bench.replica.shelf.versions == set(bench.cache.versions())
    bench.replica.keep(())
    assert first.version not in bench.cache.versions()


def test_a_link_that_cannot_be_replaced_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first = serving(bench, "one")
    staged(bench, first, "two", 2, in_s=1)

    def refuse(*_args: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(bench.cache, "point_link", refuse)
        bench.time.advance(1)
        assert (bench.linked(), bench.served()) == ("one", "two")
    bench.replica.reconsider()
    assert bench.linked() == "two"


def test_a_record_that_cannot_be_written_does_not_stop_the_flip(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first = serving(bench, "one")

    def refuse(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RecordFile, "save", refuse)
    staged(bench, first, "two", 2, in_s=1)
    bench.time.advance(1)
    assert (bench.linked(), bench.served()) == ("two", "two")


def spares(bench: Bench) -> list[str]:
    """To which versions links were made ahead."""
    return [path.name for path in (bench.path / "shop").glob("spare/*")]


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Links are made ahead for versions of any size."""
    monkeypatch.setattr("farmsyncd.node.upkeep.Spare", partial(Spare, worth_it=1))


@pytest.mark.usefixtures("any_size")
def test_links_for_the_next_version_are_made_when_nothing_has_been_heard_of_it_for_a_while(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first = serving(bench, "one")
    bench.time.advance(4.9)
    assert spares(bench) == []
    bench.time.advance(0.2)
    assert spares(bench) == [first.version]
    turn = staged(bench, first, "two", 2, in_s=1)
    assert bench.stager.orders[-1][0].spare is bench.replica._upkeep.links
    bench.time.advance(1)
    bench.plan(3, turn)
    bench.time.advance(6)
    assert spares(bench) == [turn.version], "links to what is not active any more are of no use"
    bench.restart()
    assert (spares(bench), bench.served()) == ([turn.version], "two"), "they are of use to the next process too"
    bench.crash()


@pytest.mark.usefixtures("any_size")
def test_no_links_are_made_while_a_version_is_on_its_way_in_nor_after_the_end(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first = serving(bench, "one")
    two = bench.version("two")
    bench.plan(2, first, Turn(2, two.version, bench.farm_ns + 60 * S))
    bench.time.advance(10)
    assert spares(bench) == []
    bench.replica.keep((first.version,))
    bench.replica.stop()
    bench.replica.keep(())
    bench.time.advance(10)
    assert spares(bench) == []
    bench.crash()


@pytest.fixture
def read_in(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The versions whose large files were read in."""
    versions: list[str] = []
    monkeypatch.setattr(
        "farmsyncd.edges.content.readin.read_in",
        lambda _root, manifest, _room, _rest: versions.append(manifest.version),
    )
    return versions


def test_large_files_of_a_version_are_read_in_a_while_after_it_came(bench: Bench, read_in: list[str]) -> None:
    first = serving(bench, "one")
    bench.time.advance(10)
    assert read_in == [first.version]
    turn = staged(bench, first, "two", 2, in_s=60)
    bench.time.advance(4.9)
    assert read_in == [first.version]
    bench.time.advance(0.2)
    assert read_in == [first.version, turn.version]
    bench.time.advance(120)
    assert read_in == [first.version, turn.version], "once is enough"


def test_nothing_is_read_in_after_the_end_nor_what_has_gone_again(bench: Bench, read_in: list[str]) -> None:
    first = serving(bench, "one")
    turn = staged(bench, first, "two", 2, in_s=60)
    bench.replica.shelf.drop([turn.version])
    bench.time.advance(10)
    staged(bench, first, "three", 3, in_s=60)
    bench.replica.stop()
    bench.time.advance(10)
    assert read_in == []


def later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """The cleaner's work from now on, to be done when the test says so: a thread that is busy."""
    waiting: list[Callable[[], None]] = []

    def run(work: Callable[..., object], *arguments: object) -> Deferred[object]:
        done: Deferred[object] = Deferred()
        waiting.append(lambda: done.callback(work(*arguments)))
        return done

    monkeypatch.setattr(bench.cleaner, "run", run)
    return waiting


def test_reading_in_makes_way_for_what_is_to_be_removed_and_goes_on_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    stepped: list[str] = []

    def read_in(_root: object, manifest: Manifest, _room: int, rest: Callable[[int], None]) -> None:
        read.append(manifest.version)
        rest(1)
        if len(read) == 2:
            bench.replica.keep(())  # as if its time came now: the reactor's thread goes on
        rest(1)
        stepped.append(manifest.version)

    monkeypatch.setattr("farmsyncd.edges.content.readin.read_in", read_in)
    turn = first = serving(bench, "v1")
    bench.replica.keep((first.version,))
    for number in range(2, 6):
        turn = staged(bench, turn, f"v{number}", number, in_s=1)
        bench.time.advance(1)
    read.clear()
    bench.time.advance(6)
    assert (read, stepped) == ([turn.version], [turn.version])
    stepped.clear()
    turn = staged(bench, turn, "v6", 6, in_s=60)
    waiting = later(bench, monkeypatch)
    bench.time.advance(6)
    assert len(waiting) == 1
    waiting.pop()()
    assert (read[1:], stepped) == ([turn.version], [])
    waiting.pop()()
    assert first.version not in bench.cache.versions()
    bench.time.advance(6)
    waiting.pop()()
    assert stepped == [turn.version]
    assert waiting == []


def test_reading_in_ends_with_the_node(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    stepped: list[int] = []

    def read_in(_root: object, _manifest: object, _room: int, rest: Callable[[int], None]) -> None:
        rest(1)
        bench.replica.stop()
        rest(1)
        stepped.append(1)

    monkeypatch.setattr("farmsyncd.edges.content.readin.read_in", read_in)
    serving(bench, "one")
    bench.time.advance(10)
    assert stepped == []


def test_a_version_that_is_wanted_again_before_it_was_removed_is_not_removed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = first = serving(bench, "v1")
    for number in range(2, 4):
        turn = staged(bench, turn, f"v{number}", number, in_s=1)
        bench.time.advance(1)
    waiting = later(bench, monkeypatch)
    turn = staged(bench, turn, "v4", 4, in_s=1)
    bench.time.advance(1)
    assert len(waiting) == 1
    assert first.version not in bench.replica.shelf.versions
    staged(bench, turn, "v1", 5, in_s=1)
    waiting.pop()()
    assert first.version in bench.cache.versions()
    bench.time.advance(1)
    assert (bench.linked(), bench.served()) == ("v1", "v1")
