from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from farmsyncd.core import naming
from farmsyncd.core.cycle import Course, Step
from farmsyncd.core.refusal import Refused
from farmsyncd.core.when import When, WhenKind
from farmsyncd.data.changes import Change, Changes
from farmsyncd.data.keeper import Keeper, Timing
from farmsyncd.edges.catalog import Catalog, VersionRecord
from farmsyncd.edges.sqlite_catalog import SqliteCatalog
from farmsyncd.edges.workthread import WorkThread
from tests.dataserver import SECOND, Hands, NoThread
from tests.leaks import LoggedErrors

reactor = cast("IReactorFromThreads", None)  # nothing here runs in a thread
V1, V2, V3 = "1" * 40, "2" * 40, "3" * 40


class SlowThread(NoThread):
    """Does its work only when the test says so."""

    def __init__(self) -> None:
        super().__init__("slow", reactor)
        self.waiting: list[tuple[Deferred[Any], Any]] = []

    def run(self, work: Any, *args: Any, **kwargs: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.waiting.append((done, lambda: work(*args, **kwargs)))
        return done

    def work(self) -> int:
        """Do all that waits, and what comes of it; how much that was."""
        count = 0
        while self.waiting:
            done, work = self.waiting.pop(0)
            count += 1
            result: Any
            try:
                result = work()
            except Exception:
                result = Failure()
            if not done.called:
                done.callback(result)
        return count


class Farm:
    def __init__(self, path: Path, thread: WorkThread | None = None, catalog: Catalog | None = None) -> None:
        self.hands = Hands()
        self.catalog = catalog if catalog is not None else SqliteCatalog(path)
        self.changes = Changes()
        self.told: list[Change] = []
        self.changes.listen(self.told.append)
        self.keeper = self.keeper_on(thread or NoThread("catalog", reactor))

    def keeper_on(self, thread: WorkThread) -> Keeper:
        keeper = Keeper(self.catalog, thread, self, self.changes, lambda _dataset, _now: ["web-1", "web-2"], Timing())
        keeper.load()
        return keeper

    def now_ns(self) -> int:
        return self.hands.ns

    def from_utc_ns(self, utc_ns: int) -> int:
        return utc_ns

    def publish(self, version: str, in_s: float, keeper: Keeper | None = None) -> Step:
        record = VersionRecord("shop", version, self.hands.ns, 1, 1)
        when = When(WhenKind.IN, round(in_s * SECOND))
        step = now((keeper or self.keeper).publish(record, when, "publish", "tester"))
        assert isinstance(step, Step)
        return step

    def activations(self) -> list[int]:
        return [one.step.activated.number for one in self.told if one.step and one.step.activated]


def now(coroutine: Any) -> Any:
    """What a coroutine has come to by now; raises what it raised."""
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    assert results, "it waits for something"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    farm = Farm(tmp_path / "catalog.sqlite")
    yield farm
    farm.catalog.close()


def test_a_publication_is_durable_before_it_is_told(farm: Farm) -> None:
    seen: list[Course | None] = []
    farm.changes.listen(lambda change: seen.append(farm.catalog.course(change.course.dataset)))
    step = farm.publish(V1, 10)
    assert seen == [step.after]
    assert farm.keeper.courses == {"shop": step.after}
    assert farm.keeper.versions() == {("shop", V1)}


def test_hundreds_of_nodes_at_once_roll_over_once(tmp_path: Path) -> None:
    thread = SlowThread()
    farm = Farm(tmp_path / "catalog.sqlite", thread)
    published: list[Any] = []
    record = VersionRecord("shop", V1, 0, 1, 1)
    publishing = farm.keeper.publish(record, When(WhenKind.IN, SECOND), "publish", "tester")
    Deferred.fromCoroutine(publishing).addCallback(published.append)
    thread.work()
    farm.hands.pass_(1)
    heard: list[Course | None] = []
    for number in range(700):
        Deferred.fromCoroutine(farm.keeper.current("shop", f"web-{number}")).addCallback(heard.append)
    assert not heard  # nobody is told before it is durable
    assert thread.work() == 1
    assert heard == [Course(**_rolled(published[0].after))] * 700
    assert farm.activations() == [1]
    record_of = farm.catalog.cycle("shop", 1)
    assert record_of is not None
    assert record_of.rolled_over_by == "web-0"
    assert farm.catalog.expected("shop", 1) == ["web-1", "web-2"]
    farm.catalog.close()


def _rolled(course: Course) -> dict[str, Any]:
    return {
        "dataset": course.dataset,
        "revision": course.revision + 1,
        "last_cycle": course.last_cycle,
        "active": course.pending,
        "pending": None,
    }


def test_two_data_servers_on_one_catalog_do_not_double_a_roll_over(farm: Farm) -> None:
    step = farm.publish(V1, 10)
    other_changes = Changes()
    others: list[Change] = []
    other_changes.listen(others.append)
    other = Keeper(farm.catalog, NoThread("other", reactor), farm, other_changes, lambda *_: [], Timing())
    other.load()
    farm.hands.pass_(10)
    first = now(farm.keeper.current("shop", "web-1"))
    second = now(other.current("shop", "web-2"))
    assert first == second
    assert first.active == step.scheduled
    assert farm.activations() == [1]
    assert [change.step for change in others] == [None]  # it learned of it, and did nothing
    record = farm.catalog.cycle("shop", 1)
    assert record is not None
    assert record.rolled_over_by == "web-1"


def test_whoever_plans_upon_a_course_that_another_server_moved_plans_anew(farm: Farm) -> None:
    farm.publish(V1, 10)
    other = farm.keeper_on(NoThread("other", reactor))
    farm.publish(V2, 20)
    step = farm.publish(V3, 30, other)
    assert step.dropped is not None
    assert (step.dropped.version, step.scheduled and step.scheduled.number) == (V2, 3)


def test_a_publication_after_the_activation_rolls_over_first(farm: Farm) -> None:
    farm.publish(V1, 10)
    farm.hands.pass_(11)
    step = farm.publish(V2, 10)
    assert farm.activations() == [1]
    assert step.dropped is None
    assert step.after.active is not None
    assert step.after.active.version == V1


def test_a_frozen_plan_is_neither_replaced_nor_cancelled(farm: Farm) -> None:
    farm.publish(V1, 10)
    farm.hands.pass_(8)
    with pytest.raises(Refused, match="freeze point"):
        farm.publish(V2, 10)
    with pytest.raises(Refused, match="freeze point"):
        now(farm.keeper.cancel("shop", "tester"))
    assert farm.catalog.courses() == list(farm.keeper.courses.values())
    assert len(farm.told) == 1


def test_cancelling_drops_the_pending_cycle_and_says_which(farm: Farm) -> None:
    farm.publish(V1, 10)
    step = now(farm.keeper.cancel("shop", "tester"))
    assert step.dropped.version == V1
    farm.hands.pass_(20)
    assert now(farm.keeper.current("shop", "web-1")).active is None
    with pytest.raises(Refused, match="nothing is pending"):
        now(farm.keeper.cancel("shop", "tester"))
    with pytest.raises(Refused, match="expected a dataset of this farm"):
        now(farm.keeper.cancel("docs", "tester"))


def test_the_backstop_rolls_over_what_nobody_asked_for_and_not_too_early(farm: Farm) -> None:
    farm.publish(V1, 10)
    farm.hands.pass_(14.9)
    now(farm.keeper.roll_over_overdue())
    assert farm.activations() == []
    farm.hands.pass_(0.1)
    now(farm.keeper.roll_over_overdue())
    assert farm.activations() == [1]
    record = farm.catalog.cycle("shop", 1)
    assert record is not None
    assert record.rolled_over_by == "backstop"


def test_a_change_is_believed_although_whoever_asked_has_gone(tmp_path: Path) -> None:
    thread = SlowThread()
    farm = Farm(tmp_path / "catalog.sqlite", thread)
    record = VersionRecord("shop", V1, 0, 1, 1)
    asking = Deferred.fromCoroutine(farm.keeper.publish(record, When(WhenKind.IN, SECOND), "publish", "tester"))
    asking.addErrback(lambda _: None)
    asking.cancel()
    thread.work()
    assert [change.course for change in farm.told] == farm.catalog.courses()
    assert farm.keeper.courses["shop"].pending is not None
    farm.catalog.close()


def test_giving_way_to_what_is_pending_changes_nothing(farm: Farm) -> None:
    farm.publish(V1, 10)
    record = VersionRecord("shop", V2, 0, 1, 1)
    when = When(WhenKind.IN, SECOND)
    assert now(farm.keeper.publish(record, when, "periodic", "shop", unless_pending=True)) is None
    assert len(farm.told) == 1


def test_a_catalog_that_fails_changes_nothing_and_the_next_attempt_succeeds(
    tmp_path: Path, logged_errors: LoggedErrors
) -> None:
    class Failing(SqliteCatalog):
        fails = False

        def advance(self, *args: Any, **kwargs: Any) -> bool:
            if self.fails:
                raise OSError("no space left on device")
            return super().advance(*args, **kwargs)

    catalog = Failing(tmp_path / "catalog.sqlite")
    farm = Farm(tmp_path, catalog=catalog)
    farm.publish(V1, 10)
    farm.hands.pass_(10)
    catalog.fails = True
    assert now(farm.keeper.current("shop", "web-1")).active is None
    assert logged_errors.take(OSError)
    with pytest.raises(OSError, match="no space"):
        farm.publish(V2, 10)
    assert farm.activations() == []
    catalog.fails = False
    assert now(farm.keeper.current("shop", "web-2")).active.version == V1
    assert farm.activations() == [1]
    catalog.close()


def test_a_listener_that_fails_harms_no_other(farm: Farm, logged_errors: LoggedErrors) -> None:
    def fail(_change: Change) -> None:
        raise ZeroDivisionError

    farm.changes = Changes()
    farm.changes.listen(fail)
    farm.changes.listen(farm.told.append)
    farm.keeper = farm.keeper_on(NoThread("catalog", reactor))
    farm.publish(V1, 10)
    assert len(farm.told) == 1
    assert logged_errors.take(ZeroDivisionError)


@pytest.mark.parametrize("name", ["lock", "addresses.json"])
def test_a_dataset_that_would_take_a_file_of_the_nodes_is_refused(farm: Farm, name: str) -> None:
    version = VersionRecord(name, V1, 0, 1, 1)
    with pytest.raises(Refused, match="choose another name"):
        farm.keeper.foresee(name, V1, When(WhenKind.NOW))
    with pytest.raises(Refused, match="choose another name"):
        now(farm.keeper.publish(version, When(WhenKind.NOW), "publish", "tester"))


def test_there_are_never_more_datasets_than_one_line_can_list(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "MOST", 2)
    now(farm.keeper.publish(VersionRecord("toys", V1, 0, 1, 1), When(WhenKind.NOW), "publish", "tester"))
    for _ in range(2):
        farm.publish(V1, 60)
    with pytest.raises(Refused, match="at most 2 datasets"):
        farm.keeper.foresee("books", V1, When(WhenKind.NOW))


def test_what_would_be_done_is_foreseen_and_not_done(farm: Farm) -> None:
    step = farm.keeper.foresee("shop", V1, When(WhenKind.NOW))
    assert step.scheduled is not None
    assert step.scheduled.activates_at_ns == farm.hands.ns + Timing().now_lead_ns
    assert farm.keeper.courses == {}
    farm.publish(V1, 10)
    farm.hands.pass_(10)
    assert farm.keeper.foresee("shop", V2, When(WhenKind.NOW)).before.active is not None
    assert farm.activations() == []
