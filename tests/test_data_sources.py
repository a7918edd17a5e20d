from __future__ import annotations

import io
import os
import random
import shutil
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from farmsyncd.cli import show
from farmsyncd.cli.status import print_status
from farmsyncd.core.cycle import Course
from farmsyncd.core.messages.operating import Cancel, Cancelled
from farmsyncd.core.messages.schedule import Schedule
from farmsyncd.data.config import DataConfig, SourceConfig
from farmsyncd.data.content.commanding import Command
from farmsyncd.data.content.fetching import Fetcher
from farmsyncd.data.content.sources import source_of
from farmsyncd.data.content.unpacking import is_tar, unpack
from farmsyncd.data.wiring import assemble
from farmsyncd.edges.timing.farmclock import FarmClock
from farmsyncd.edges.webclient import web_client
from farmsyncd.errors import BadInput, FarmsyncError, Unavailable
from tests.daemons import Daemons
from tests.dataserver import SECOND, Hands, NoThread, Room, tree
from tests.eventually import eventually
from tests.leaks import LoggedErrors

PYTHON = sys.executable


def tar_of(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:  # type: ignore[call-overload]
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mtime, info.mode = kind, target, 5, 0o644
    return info


# Unpacking


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_archives_of_all_kinds_are_unpacked(tmp_path: Path, mode: str) -> None:
    archive = tmp_path / "a"
    archive.write_bytes(
        tar_of(
            (member("d", tarfile.DIRTYPE), b""),
            (member("d/f"), b"data"),
            (member("l", tarfile.SYMTYPE, "d/f"), b""),
            mode=mode,
        )
    )
    into = tmp_path / "into"
    into.mkdir()
    assert is_tar(archive, "a")
    unpack(archive, into, 100)
    assert (into / "d" / "f").read_bytes() == b"data"
    assert (into / "d" / "f").stat().st_mtime == 5
    assert (into / "l").readlink() == Path("d/f")


@pytest.mark.parametrize(
    "bad",
    [
        member("../outside"),
        member("d/../../outside"),
        member("l", tarfile.SYMTYPE, "/etc/passwd"),
        member("l", tarfile.SYMTYPE, "../outside"),
        member("h", tarfile.LNKTYPE, "../outside"),
        member("dev", tarfile.CHRTYPE),
        member("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda info: f"{info.name}{info.type!r}",
)
def test_an_archive_that_would_reach_outside_is_refused_and_does_not(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    archive = tmp_path / "a"
    archive.write_bytes(tar_of((member("good"), b"1"), (bad, b"")))
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(BadInput, match="stay inside"):
        unpack(archive, into, 100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "into"]
    assert sorted(path.name for path in into.iterdir()) == ["good"]


def test_an_archive_that_is_larger_than_it_may_be_is_refused_before_it_is_written(tmp_path: Path) -> None:
    archive = tmp_path / "a"
    archive.write_bytes(tar_of((member("a"), b"0" * 60), (member("b"), b"0" * 60)))
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(BadInput, match="at most 100 bytes"):
        unpack(archive, into, 100)
    assert not (into / "b").exists()


def test_an_archive_that_ends_early_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a"
    whole = tar_of((member("a"), os.urandom(5000)), mode="w")
    archive.write_bytes(whole[:3000])
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(BadInput, match="whole tar archive"):
        unpack(archive, into, 10_000)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_packed_archive_that_is_damaged_anywhere_is_refused(tmp_path: Path, mode: str) -> None:
    noise = random.Random(1)
    whole = tar_of(*((member(f"f{number}"), noise.randbytes(20_000)) for number in range(3)), mode=mode)
    archive, into = tmp_path / "a", tmp_path / "into"
    for at in range(100, len(whole), len(whole) // 20):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        archive.write_bytes(damaged)
        into.mkdir()
        with pytest.raises(BadInput):  # noqa: PT012 - wherever it is found
            is_tar(archive, "prices.tar.gz")
            unpack(archive, into, 1_000_000)
        shutil.rmtree(into)


# Commands


def command(*words: str, timeout: float = 30, limit: int = 10_000) -> Command:
    return Command(words, timeout, limit, threading.Event())


def test_a_command_writes_files_into_the_directory_that_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    command("sh", "-c", 'echo data > "$FARMSYNC_OUT/f"').run(tmp_path / "out", tmp_path / "printed")
    assert (tmp_path / "out" / "f").read_text() == "data\n"
    assert (tmp_path / "printed").read_bytes() == b""


def test_a_command_that_fails_is_told_with_what_it_complained(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"sh to end with status 0, and it ended with 3: no prices today"):
        command("sh", "-c", "echo no prices today >&2; exit 3").run(tmp_path, tmp_path / "printed")
    with pytest.raises(BadInput, match="expected to run /no/such/program"):
        command("/no/such/program").run(tmp_path, tmp_path / "printed")


def test_a_command_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="expected sleep to end within"):
        command("sleep", "1000", timeout=0.1).run(tmp_path, tmp_path / "printed")


def in_a_thread(running: Command, directory: Path) -> tuple[threading.Thread, list[Exception]]:
    """Run a command in a thread, which is given back with how it failed."""
    ended: list[Exception] = []

    def run() -> None:
        try:
            running.run(directory, directory / "printed")
        except FarmsyncError as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, ended


@pytest.mark.parametrize(
    "script",
    [
        "sleep 1000 & echo $! > {pid}; wait",
        "trap '' TERM; sleep 1000 & echo $! > {pid}; wait",  # heeds no SIGTERM: is killed a moment later
        "sleep 1000 & echo $! > {pid}; while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done",
    ],
)
def test_a_command_is_ended_with_all_that_it_started(tmp_path: Path, script: str) -> None:
    pid_file = tmp_path / "pid"
    running = attrs.evolve(command("sh", "-c", script.format(pid=pid_file)), grace_s=0.2)
    thread, ended = in_a_thread(running, tmp_path)
    pid = eventually(lambda: pid_file.exists() and pid_file.read_text().endswith("\n") and int(pid_file.read_text()))
    running.stopping.set()
    thread.join()
    assert "being stopped" in str(ended[0]) or "printed more" in str(ended[0])
    state = Path(f"/proc/{pid}/stat")
    eventually(lambda: not state.exists() or _is_dead(state))


def test_a_command_may_clean_up_when_it_is_told_to_end(tmp_path: Path) -> None:
    cleaned = tmp_path / "cleaned"
    script = f"trap 'echo yes > {cleaned}; exit 1' TERM; while :; do echo begun > {tmp_path}/begun; sleep 0.1; done"
    running = command("sh", "-c", script)
    thread, ended = in_a_thread(running, tmp_path)
    eventually((tmp_path / "begun").exists)
    running.stopping.set()
    thread.join()
    assert "being stopped" in str(ended[0])
    assert cleaned.read_text() == "yes\n"


def test_no_source_waits_for_another_ones_command_which_ends_with_the_server(daemons: Daemons, tmp_path: Path) -> None:
    tree(tmp_path / "site", a="1")
    config, pid = tmp_path / "data.toml", tmp_path / "pid"
    config.write_text(
        "[data.dataset.a-slow-one]\nperiod = '1h'\ntimeout = '1h'\n"
        f"command = ['sh', '-c', 'echo $$ > {pid}; exec sleep 3600']\n"
        f"[data.dataset.shop]\nperiod = '1h'\ndirectory = '{tmp_path}/site'\n"
    )
    data = daemons.start("farmsync-data", "--listen", "tcp:0:interface=127.0.0.1", "--config", str(config))
    eventually(lambda: "shop: cycle 1" in data.ready().log)
    state = Path("/proc", eventually(lambda: pid.exists() and pid.read_text().strip()), "stat")
    data.stop()
    assert not state.exists() or _is_dead(state)


def test_a_source_that_cannot_be_read_is_told_by_the_status_of_a_farm_without_any_data(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sources = {"prices": {"detail": "expected export to end with status 0, and it ended with 3: [no] prices"}}
    print_status({"farm_time_ns": 0, "datasets": {}, "nodes": [], "sources": sources}, show.now())
    assert f"prices: its source cannot be read: {sources['prices']['detail']}\n" in capsys.readouterr().out


def _is_dead(state: Path) -> bool:
    try:
        return state.read_text().rsplit(")", 1)[1].split()[0] in {"Z", "X"}
    except OSError:
        return True


def test_a_command_is_ended_when_it_prints_too_much(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="at most 1000 bytes"):
        command("sh", "-c", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done", limit=1000).run(
            tmp_path, tmp_path / "printed"
        )


def read(source: Any, *, known: bool = False) -> Any:
    results: list[Any] = []
    Deferred.fromCoroutine(source.read(known=known)).addBoth(results.append)
    if isinstance(results[0], Exception) or hasattr(results[0], "raiseException"):
        results[0].raiseException()
    return results[0]


def source(tmp_path: Path, **config: Any) -> Any:
    one = SourceConfig(period_ns=60 * SECOND, **config)
    thread = NoThread("reading", cast("IReactorFromThreads", None))
    http = web_client(reactor)
    return source_of(one, tmp_path / "work", thread, http, cast("IReactorTime", reactor), threading.Event())


def test_a_command_that_prints_an_archive_gives_its_tree(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_of((member("f"), b"data")))
    one = source(tmp_path, command=("cat", str(archive)))
    found = read(one)
    assert (found / "f").read_bytes() == b"data"
    one.clear()
    assert not (tmp_path / "work").exists()


def test_a_command_that_gives_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="it did neither"):
        read(source(tmp_path, command=("true",)))


def test_a_directory_is_read_where_it_is(tmp_path: Path) -> None:
    one = source(tmp_path, directory=tmp_path / "site")
    assert read(one, known=True) == tmp_path / "site"
    one.settle()
    one.clear()


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"directory": Path("/a"), "url": "http://h/"},
        {"url": "ftp://h/"},
        {"directory": Path("/a"), "offset_ns": 60 * SECOND},
    ],
)
def test_a_source_that_makes_no_sense_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        SourceConfig(period_ns=60 * SECOND, **config)


def test_a_periodic_dataset_that_would_take_a_file_of_the_nodes_is_refused(tmp_path: Path) -> None:
    one = SourceConfig(period_ns=60 * SECOND, directory=tmp_path)
    with pytest.raises(ValueError, match=r"nodes have a file of their own named addresses\.json"):
        DataConfig(state=tmp_path, listen="tcp:0", dataset={"addresses.json": one})


# The web


class Shop(Resource):
    """A web server's file that can change; it knows ETags, and counts what it sent whole."""

    isLeaf = True  # noqa: N815 - twisted.web's name

    def __init__(self) -> None:
        super().__init__()
        self.body = b'{"tea": 3}'
        self.tag: bytes | None = b'"1"'
        self.code = 200
        self.sent = 0
        self.silent = False
        self.waiting: list[Request] = []

    def render_GET(self, request: Request) -> bytes | int:  # noqa: N802 - twisted.web's name
        if self.silent:
            self.waiting.append(request)
            return NOT_DONE_YET
        if request.path == b"/moved":
            request.redirect(b"/prices.json")
            return b""
        request.setResponseCode(self.code)
        if self.tag is not None:
            if request.getHeader(b"if-none-match") == self.tag:
                request.setResponseCode(304)
                return b""
            request.setHeader(b"ETag", self.tag)
        self.sent += 1
        return self.body


@pytest.fixture
def shop() -> Iterator[tuple[Shop, str]]:
    resource = Shop()
    port = cast("Any", reactor).listenTCP(0, Site(resource), interface="127.0.0.1")
    yield resource, f"http://127.0.0.1:{port.getHost().port}"
    pytest_twisted.blockon(port.stopListening())


def fetcher(url: str, timeout: float = 30, limit: int = 1000) -> Fetcher:
    return Fetcher(url, web_client(reactor), cast("IReactorTime", reactor), timeout, limit)


@pytest_twisted.ensureDeferred
async def test_a_file_is_fetched_again_only_when_it_is_another(shop: tuple[Shop, str], tmp_path: Path) -> None:
    resource, url = shop
    one = fetcher(f"{url}/data/prices.json?day=1")
    assert one.name == "prices.json"
    assert await one.fetch(tmp_path / "f", known=True)
    assert (tmp_path / "f").read_bytes() == resource.body
    assert await one.fetch(tmp_path / "f", known=True)  # it was not settled upon
    one.settle()
    assert not await one.fetch(tmp_path / "f", known=True)
    assert await one.fetch(tmp_path / "f", known=False)
    resource.body, resource.tag = b"other", b'"2"'
    assert await one.fetch(tmp_path / "f", known=True)
    assert (tmp_path / "f").read_bytes() == b"other"
    assert resource.sent == 4


@pytest_twisted.ensureDeferred
async def test_a_redirect_is_followed(shop: tuple[Shop, str], tmp_path: Path) -> None:
    assert await fetcher(f"{shop[1]}/moved").fetch(tmp_path / "f", known=False)


@pytest_twisted.ensureDeferred
async def test_a_web_server_that_errs_says_too_much_or_nothing_is_told_apart(
    shop: tuple[Shop, str], tmp_path: Path
) -> None:
    resource, url = shop
    resource.code = 500
    with pytest.raises(BadInput, match="status 200, and it answered with 500"):
        await fetcher(url).fetch(tmp_path / "f", known=False)
    resource.code = 200
    with pytest.raises(BadInput, match="at most 5 bytes"):
        await fetcher(url, limit=5).fetch(tmp_path / "f", known=False)
    resource.silent = True
    with pytest.raises(Unavailable, match=r"within 0\.3 s"):
        await fetcher(url, timeout=0.3).fetch(tmp_path / "f", known=False)
    with pytest.raises(Unavailable, match="expected to fetch"):
        await fetcher("http://127.0.0.1:1/").fetch(tmp_path / "f", known=False)


@pytest_twisted.ensureDeferred
async def test_what_is_fetched_is_an_archives_tree_or_a_single_file(shop: tuple[Shop, str], tmp_path: Path) -> None:
    resource, url = shop
    one = source(tmp_path, url=f"{url}/prices.json")
    found = await one.read(known=False)
    assert [path.name for path in found.iterdir()] == ["prices.json"]
    resource.body = tar_of((member("a/b"), b"1"))
    found = await one.read(known=False)
    assert (found / "a" / "b").read_bytes() == b"1"
    one.settle()
    assert await one.read(known=True) is None


@pytest_twisted.ensureDeferred
async def test_what_should_be_an_archive_by_its_name_is_never_taken_for_a_file(
    shop: tuple[Shop, str], tmp_path: Path
) -> None:
    resource, url = shop
    one = source(tmp_path, url=f"{url}/site.tar.gz")
    for body in (b"", b"<h1>Sign in</h1>", tar_of((member("a"), b"1"))[:30]):
        resource.body = body
        with pytest.raises(BadInput, match=r"expected a tar archive, by the name site\.tar\.gz"):
            await one.read(known=False)
    resource.body = tar_of((member("a"), b"1"))
    assert (await one.read(known=False) / "a").read_bytes() == b"1"


# Periodic datasets


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tree(tmp_path / "site", a="1")


def rooms(tmp_path: Path, site: Path, **config: Any) -> Room:
    one = SourceConfig(period_ns=60 * SECOND, offset_ns=5 * SECOND, directory=site)
    room = Room(tmp_path / "state", dataset={"shop": one}, **config)
    room.parts.sources.start()
    return room


def course(room: Room) -> Course:
    return room.parts.keeper.courses["shop"]


def come_back(room: Room) -> None:
    room.peer("node", "web-1", instance="a").say(Schedule("shop"))


def test_a_periodic_dataset_is_read_at_the_start_and_at_each_roll_over_and_its_next_activation_calculated(
    tmp_path: Path, site: Path
) -> None:
    room = rooms(tmp_path, site)
    first = course(room).pending
    assert first is not None
    assert (first.activates_at_ns - 5 * SECOND) % (60 * SECOND) == 0
    assert first.activates_at_ns - room.hands.ns < 60 * SECOND
    tree(site, a="2")
    room.hands.ns = first.activates_at_ns
    assert course(room).pending == first  # nobody has come back yet
    come_back(room)
    assert course(room).active == first
    second = course(room).pending
    assert second is not None
    assert second.version != first.version
    assert second.activates_at_ns == first.activates_at_ns + 60 * SECOND
    room.hands.ns = second.activates_at_ns + 150 * SECOND  # two activations are missed, and not made up for
    come_back(room)
    third = course(room).pending
    assert third is not None
    assert (third.number, third.version) == (3, second.version)
    assert third.activates_at_ns == second.activates_at_ns + 180 * SECOND
    room.parts.sources.stop()
    room.close()


def test_activations_lie_on_whole_periods_of_the_wall_clock_however_far_farm_time_has_drifted(
    tmp_path: Path, site: Path
) -> None:
    class WrongWall(Hands):
        ahead_ns = 0

        def wall_ns(self) -> int:
            return self.now_ns() + self.ahead_ns

    hands = WrongWall()
    one = SourceConfig(period_ns=60 * SECOND, offset_ns=5 * SECOND, directory=site)
    config = DataConfig(state=tmp_path, listen="tcp:0", dataset={"shop": one})
    clock = FarmClock(tmp_path / "farmtime", hands, hands.wall_ns, "one boot")
    hands.ahead_ns = 7 * SECOND + 123_456_789  # as days of drift may do it, or somebody who sets the clock
    parts = assemble(config, Clock(), clock, NoThread, Clock())
    parts.sources.start()
    pending = parts.keeper.courses["shop"].pending
    assert pending is not None
    assert (clock.to_utc_ns(pending.activates_at_ns) - 5 * SECOND) % (60 * SECOND) == 0
    hands.ahead_ns -= 1_000  # the wall clock is put right slowly: the time that was cancelled does not come again
    Deferred.fromCoroutine(parts.keeper.cancel("shop", "somebody"))
    after = parts.keeper.courses["shop"].pending
    assert after is not None
    assert after.activates_at_ns - pending.activates_at_ns == 60 * SECOND + 1_000
    parts.sources.stop()
    parts.catalog.close()


def test_a_restart_changes_nothing_of_what_is_pending(tmp_path: Path, site: Path) -> None:
    room = rooms(tmp_path, site)
    before = course(room)
    room.parts.sources.stop()
    room.restart()
    room.parts.sources.start()
    assert course(room) == before
    room.parts.sources.stop()
    room.close()


def test_a_cancelled_activation_of_a_periodic_dataset_makes_way_for_the_one_after(tmp_path: Path, site: Path) -> None:
    room = rooms(tmp_path, site)
    first = course(room).pending
    assert first is not None
    assert isinstance(room.operator().ask(Cancel("shop")), Cancelled)
    second = course(room).pending
    assert second is not None
    assert second.activates_at_ns == first.activates_at_ns + 60 * SECOND
    room.parts.sources.stop()
    room.close()


def test_what_an_operator_publishes_is_not_replaced_by_the_source(tmp_path: Path, site: Path) -> None:
    room = rooms(tmp_path, site)
    accepted = room.operator().publish("shop", tree(tmp_path / "urgent", a="urgent"), "in:20000000000")
    assert accepted.replaced is not None
    pending = course(room).pending
    assert pending is not None
    assert pending.version == accepted.version
    room.pass_(20)
    come_back(room)
    after = course(room)
    assert after.active is not None
    assert after.active.version == accepted.version
    assert after.pending is not None
    assert after.pending.version == accepted.replaced
    room.parts.sources.stop()
    room.close()


def test_a_source_that_cannot_be_read_is_tried_again_and_harms_nothing(
    tmp_path: Path, site: Path, logged_errors: LoggedErrors
) -> None:
    room = rooms(tmp_path, site)
    first = course(room).pending
    assert first is not None
    site.rename(tmp_path / "elsewhere")
    room.hands.ns = first.activates_at_ns
    come_back(room)
    assert course(room).active == first
    assert course(room).pending is None
    assert logged_errors.take() == []
    [(dataset, told)] = room.parts.desk.status()["sources"].items()  # type: ignore[attr-defined]
    assert dataset == "shop"
    assert str(site) in told["detail"]
    (tmp_path / "elsewhere").rename(site)
    room.clock.advance(2)
    assert course(room).pending is not None
    assert room.parts.desk.status()["sources"] == {}
    room.parts.sources.stop()
    room.close()
