"""A version brought in over the real protocol: verified, resumed, paced, and given up in order."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from farmsyncd.core.chunks import Damaged
from farmsyncd.core.messages.base import Side
from farmsyncd.core.messages.content import Chunk, GetChunks, GetDelta, GetManifest
from farmsyncd.core.messages.greeting import PROTOCOL, Hello
from farmsyncd.core.snapshot import Manifest
from farmsyncd.core.standing import Turn
from farmsyncd.edges.cache.cachedir import CacheDir
from farmsyncd.edges.content import space
from farmsyncd.edges.link import Link
from farmsyncd.errors import PeerError, Unavailable
from farmsyncd.node.staging import feeding
from farmsyncd.node.staging.conversation import Cut
from farmsyncd.node.staging.feeding import Feeder
from farmsyncd.node.staging.pace import Pace
from farmsyncd.node.staging.stager import Stager
from farmsyncd.node.staging.work import Hush, Work
from farmsyncd.node.surroundings import Order
from tests.fake_data_server import FakeDataServer, FakeEndpoint
from tests.node_bench import Inline, S

FILES = {f"file-{number}.txt": f"content {number} ".encode() * 50 for number in range(20)}
CHANGED = {**FILES, "file-3.txt": b"changed", "new.txt": b"new"}
HELLO = Hello(PROTOCOL, "stager", "web-1", ())


class Bench:
    """A stager, a data server and a cache."""

    def __init__(self, path: Path, rate: int = 0, at_once: int = 2) -> None:
        self.clock = Clock()
        self.server = FakeDataServer(self.clock)
        self.cache = CacheDir(path / "shop")
        self.workers: list[Inline] = []
        self.stager = Stager(
            FakeEndpoint(self.server), HELLO, self._worker, self.clock, self.now_ns, at_once=at_once, rate=rate
        )

    def _worker(self, name: str) -> Inline:
        self.workers.append(Inline(name))
        return self.workers[-1]

    def now_ns(self) -> int:
        return round(self.clock.seconds() * S)

    def begin(self, version: str, bases: tuple[Manifest, ...] = (), wait_s: float = 0.0) -> Deferred[Manifest]:
        after = bases[0].version if bases else None
        return self.stager.bring(Order("shop", Turn(1, version, 0), self.cache, bases, after, wait_s))

    def bring(self, version: str, bases: tuple[Manifest, ...] = ()) -> Deferred[Manifest]:
        done = self.begin(version, bases)
        self.server.flush()
        return done

    def files(self, version: str) -> dict[str, bytes]:
        top = self.cache.version_path(version)
        return {str(file.relative_to(top)): file.read_bytes() for file in top.rglob("*") if file.is_file()}

    def asked(self) -> list[type]:
        kinds = (GetManifest, GetDelta, GetChunks)
        return [type(message) for message in self.server.heard if isinstance(message, kinds)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def result(done: Deferred[Manifest]) -> Manifest:
    """What has come of it, now."""
    found: list[Manifest] = []
    faults: list[Exception] = []
    done.addCallbacks(found.append, lambda failure: faults.append(failure.value))
    if faults:
        raise faults[0]
    assert found, "nothing has come of it yet"
    return found[0]


def test_a_first_copy_asks_once_for_everything_and_is_complete(bench: Bench) -> None:
    version = bench.server.publish(FILES)
    manifest = result(bench.bring(version))
    assert manifest.version == version
    assert bench.asked() == [GetManifest, GetChunks]
    assert bench.files(version) == FILES
    assert bench.cache.versions() == [version]
    assert bench.cache.manifest(version) == manifest.encoded
    assert [worker.stopped for worker in bench.workers] == [True]
    assert bench.server.links == []
    assert (bench.stager.totals.versions, bench.stager.totals.bytes_received > 10_000) == (1, True)
    last = bench.stager.totals.last
    assert last is not None
    assert (last.version, last.bytes_received) == (version, bench.stager.totals.bytes_received)
    assert last.began_ns <= last.ended_ns


def test_what_an_older_version_has_is_linked_and_only_the_rest_is_asked_for(bench: Bench) -> None:
    old = bench.server.publish(FILES)
    base = result(bench.bring(old))
    new = bench.server.publish(CHANGED)
    result(bench.bring(new, (base,)))
    assert bench.asked() == [GetManifest, GetChunks, GetDelta, GetManifest, GetChunks]
    asked = bench.server.heard_of(GetChunks)[-1]
    assert len(asked.ranges.split(b",")) <= 2
    assert bench.files(new) == CHANGED
    for name in ("file-1.txt", "file-19.txt"):
        paths = [bench.cache.version_path(version) / name for version in (old, new)]
        assert paths[0].stat().st_ino == paths[1].stat().st_ino


def test_the_step_from_the_active_version_brings_it_all(bench: Bench) -> None:
    from farmsyncd.core import delta

    old, new = bench.server.publish(FILES), bench.server.publish(CHANGED)
    base = result(bench.bring(old))
    manifest = bench.server.versions[new].manifest
    numbers = {digest: number for number, (digest, _) in enumerate(manifest.distinct_chunks())}
    lacking = [digest for digest in numbers if digest not in bench.server.versions[old].chunks]
    fresh = b"".join(bench.server.versions[new].chunks[digest] for digest in lacking)
    bundle: delta.Part = delta.Bundle(tuple(numbers[digest] for digest in lacking), (), delta.pack(fresh, b""))
    bench.server.steps[old, new] = [delta.encode_part(part) for part in [*delta.manifest_parts(base, manifest), bundle]]
    bench.server.heard.clear()
    result(bench.bring(new, (base,)))
    assert bench.asked() == [GetDelta]
    assert bench.files(new) == CHANGED


def test_a_step_that_is_wrong_fails_the_attempt_and_the_next_one_asks_for_chunks(bench: Bench) -> None:
    old, new = bench.server.publish(FILES), bench.server.publish(CHANGED)
    base = result(bench.bring(old))
    bench.server.steps[old, new] = [b"nonsense"]
    with pytest.raises(PeerError, match="expected a part of a delta"):
        result(bench.bring(new, (base,)))
    result(bench.bring(new, (base,)))
    assert bench.asked()[2:] == [GetDelta, GetManifest, GetChunks]
    assert bench.files(new) == CHANGED


def test_a_connection_that_is_cut_fails_the_attempt_and_the_next_one_goes_on_where_it_was(bench: Bench) -> None:
    version = bench.server.publish(FILES)
    bench.server.cut_after = 15
    with pytest.raises(Cut, match="cut in the middle"):
        result(bench.bring(version))
    assert bench.cache.versions() == []
    bench.server.cut_after = None
    result(bench.bring(version))
    assert bench.asked() == [GetManifest, GetChunks, GetChunks]
    first, second = (message.ranges for message in bench.server.heard_of(GetChunks))
    assert (first, second) == (b"0-19", b"15-19")
    assert bench.files(version) == FILES


def test_a_chunk_that_came_damaged_is_asked_for_once_more(bench: Bench) -> None:
    version = bench.server.publish(FILES)
    digest = bench.server.versions[version].manifest.distinct_chunks()[7][0]
    bench.server.damaged[digest] = 1
    result(bench.bring(version))
    assert [message.ranges for message in bench.server.heard_of(GetChunks)] == [b"0-19", b"7"]
    assert bench.files(version) == FILES


def test_a_chunk_that_stays_damaged_fails_the_attempt_by_name_and_is_never_staged(bench: Bench) -> None:
    version = bench.server.publish(FILES)
    digest = bench.server.versions[version].manifest.distinct_chunks()[7][0]
    bench.server.damaged[digest] = 2
    with pytest.raises(Damaged, match=digest.hex()[:16]):
        result(bench.bring(version))
    assert bench.cache.versions() == []
    assert bench.server.links == []
    result(bench.bring(version))
    assert bench.files(version) == FILES


def test_a_full_disk_is_foreseen_before_anything_is_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    active = bench.server.publish(FILES)
    base = result(bench.bring(active))
    version = bench.server.publish({**FILES, "big": b"x" * 900_000})
    monkeypatch.setattr(space, "free", lambda _path: space.Need(1000, 1000))
    with pytest.raises(Unavailable, match=r"expected .* free"):
        result(bench.bring(version, (base,)))
    assert bench.cache.versions() == [active]
    assert bench.files(active) == FILES
    monkeypatch.undo()
    result(bench.bring(version, (base,)))


def test_a_version_that_the_data_server_does_not_have_any_more_says_so(bench: Bench) -> None:
    with pytest.raises(Unavailable, match="there is no such version"):
        result(bench.bring("0" * 40))


def test_a_data_server_that_is_away_is_a_cut_and_no_fault(bench: Bench) -> None:
    bench.server.up = False
    with pytest.raises(Cut, match="cannot be reached"):
        result(bench.bring("0" * 40))


def test_a_manifest_of_another_version_is_refused(bench: Bench) -> None:
    version, other = bench.server.publish(FILES), bench.server.publish(CHANGED)
    bench.server.versions[version] = bench.server.versions[other]
    with pytest.raises(Exception, match=f"expected the manifest of version {version}"):
        result(bench.bring(version))
    assert bench.cache.versions() == []


def test_staging_that_is_called_off_ends_its_connection_and_leaves_nothing_open(bench: Bench) -> None:
    version = bench.server.publish(FILES)
    bench.server.silent = True
    done = bench.bring(version)
    assert len(bench.server.links) == 1
    done.addErrback(lambda _: None)
    done.cancel()
    bench.server.flush()
    assert done.called
    assert bench.server.links == []
    assert bench.workers[0].stopped


def test_staging_that_is_called_off_before_it_began_never_connects(bench: Bench) -> None:
    done = bench.begin(bench.server.publish(FILES), wait_s=10.0)
    done.addErrback(lambda _: None)
    done.cancel()
    assert done.called
    assert bench.server.hellos == []
    assert bench.clock.getDelayedCalls() == []


def test_a_jittered_start_waits_before_it_connects(bench: Bench) -> None:
    done = bench.begin(bench.server.publish(FILES), wait_s=0.5)
    assert bench.server.hellos == []
    bench.clock.advance(0.5)
    bench.server.flush()
    result(done)


def test_no_more_than_so_many_versions_are_staged_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, at_once=1)
    bench.server.silent = True
    first, second = bench.server.publish(FILES), bench.server.publish(CHANGED)
    one, two = bench.bring(first), bench.bring(second)
    assert len(bench.server.hellos) == 1
    one.addErrback(lambda _: None)
    one.cancel()
    bench.server.silent = False
    bench.server.flush()
    result(two)
    assert bench.files(second) == CHANGED


def test_what_another_staging_left_is_removed(bench: Bench) -> None:
    first, second = bench.server.publish(FILES), bench.server.publish(CHANGED)
    bench.server.cut_after = 5
    with pytest.raises(Cut):
        result(bench.bring(first))
    assert bench.cache.stagings() == [first]
    bench.server.cut_after = None
    result(bench.bring(second))
    assert bench.cache.stagings() == []


def test_a_version_can_be_staged_again_beside_its_damaged_self(bench: Bench) -> None:
    version = bench.server.publish(FILES)
    result(bench.bring(version))
    victim = bench.cache.version_path(version) / "file-1.txt"
    victim.chmod(0o644)
    victim.write_bytes(b"damaged")
    result(bench.bring(version))
    assert bench.files(version) == FILES


# Pace and backpressure


@given(st.lists(st.tuples(st.integers(1, 300_000), st.floats(0, 0.3)), max_size=60), st.integers(10_000, 1_000_000))
def test_who_rests_as_long_as_told_keeps_to_the_rate(steps: list[tuple[int, float]], rate: int) -> None:
    pace, now_ns, total = Pace(rate), 0, 0
    for amount, pause in steps:
        rest = pace.took(amount, now_ns)
        total += amount
        now_ns += round((rest + pause) * S)
        assert total <= rate * (now_ns / S) + rate // 10 + 300_000


def test_without_a_limit_nobody_rests() -> None:
    assert Pace(0).took(10**12, 0) == 0.0


class SlowWorker(Inline):
    """Does its work when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Deferred[int]] = []

    def run(self, *_work: object, **_more: object) -> Deferred[int]:  # type: ignore[override]
        self.waiting.append(Deferred())
        return self.waiting[-1]


class PausableLink:
    """Counts how often it was paused and resumed."""

    def __init__(self) -> None:
        self.paused = False

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def abort(self, reason: str) -> None:
        raise AssertionError(reason)


def chunk(size: int) -> Chunk:
    return Chunk(b"d" * 32, "raw", size, bytes(size))


def feeder(link: PausableLink, worker: Inline, clock: Clock, pace: Pace, hush: Hush) -> Feeder:
    work = Work("0" * 40, None, (), hush)  # type: ignore[arg-type]
    return Feeder(link, work, worker, clock, lambda: round(clock.seconds() * S), pace, hush)  # type: ignore[arg-type]


def test_nothing_is_read_while_more_waits_than_the_disk_keeps_up_with() -> None:
    link, worker, clock = PausableLink(), SlowWorker(), Clock()
    feeding_it = feeder(link, worker, clock, Pace(0), Hush())
    while not link.paused:
        feeding_it.part(chunk(1_000_000))
        feeding_it.arrived(1_000_000)
        assert feeding_it.received < feeding.QUEUED_MOST + 4_000_000
    while worker.waiting:
        worker.waiting.pop(0).callback(0)
    assert not link.paused
    feeding_it.stop()


def test_a_rate_limit_pauses_reading_for_a_while() -> None:
    link, clock = PausableLink(), Clock()
    worker = SlowWorker()
    feeding_it = feeder(link, worker, clock, Pace(1_000_000), Hush())
    for _ in range(3):
        feeding_it.part(chunk(1_100_000))
        feeding_it.arrived(1_100_000)
    assert link.paused
    while worker.waiting:
        worker.waiting.pop(0).callback(0)
    assert link.paused
    clock.advance(3.5)
    assert not link.paused
    feeding_it.stop()


def test_around_a_swap_nothing_is_read() -> None:
    link, clock, hush = PausableLink(), Clock(), Hush()
    worker = SlowWorker()
    feeding_it = feeder(link, worker, clock, Pace(0), hush)
    hush.begin(60.0)
    feeding_it.part(chunk(2_000_000))
    worker.waiting.pop(0).callback(0)
    assert link.paused
    hush.begin(0.0)
    clock.advance(60.0)
    assert not link.paused
    feeding_it.stop()


def test_content_that_nobody_asked_for_ends_the_connection(bench: Bench) -> None:
    from farmsyncd.node.staging.conversation import Conversation

    conversation = Conversation()
    bench.server.connected(Link(conversation, HELLO, Side.CLIENT, bench.clock))
    bench.server.flush()
    assert conversation.start().called
    bench.server.links[0].send(chunk(10))
    bench.server.flush()
    assert bench.server.links == []
    assert bench.cache.stagings() == []
