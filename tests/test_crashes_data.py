"""A data server that is killed at each step of what it does, and started again: nothing accepted is lost, nothing
happens twice, what it keeps is whole, and nobody repairs anything (I-3).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

from farmsyncd.core.chunks import Unpacker
from farmsyncd.core.messages.clock import Now, Time
from farmsyncd.core.messages.content import Chunk, GetChunks, GetManifest, ManifestIs, Sent
from farmsyncd.core.messages.operating import Publish
from farmsyncd.core.messages.schedule import Pins, Plan, Schedule
from farmsyncd.core.snapshot import Kind, decode_pieces
from tests.caller import Caller, Ended
from tests.crash_farm import SECOND, MortalFarm, content, sample, sooner_or_later
from tests.crashing import Fuse
from tests.farm import SHOP
from tests.nursery import ForkedDaemon, ForkedDaemons

MOST = 18
LATER = f"in:{3600 * SECOND}"
SOON = f"in:{SECOND // 5}"
GONE = (OSError, Ended)


@attrs.define
class Patient:
    """A data server that can be made to die, its farm, and what it has promised so far."""

    farm: MortalFarm
    server: ForkedDaemon
    fuse: Fuse
    farm_ns: int = 0
    revision: int = 0
    cycle: int = 0

    @classmethod
    def of(cls, forked: ForkedDaemons, directory: Path, *arguments: str) -> Patient:
        fuse = Fuse(directory / "fuse")
        forked.next_plan = fuse.plan()
        farm = MortalFarm(forked, directory)
        assert isinstance(farm.data, ForkedDaemon)
        farm.data.arguments += ("--backstop", "1h", *arguments)
        patient = cls(farm, farm.data, fuse)
        patient.restart()
        return patient

    def restart(self) -> None:
        """As after a crash, whether or not it has died by itself; count nothing from here on."""
        self.fuse.disarm()
        self.server.kill()
        self.farm.restart_data()
        now = self.farm.now()
        assert now.farm_ns >= self.farm_ns, "farm time ran backwards"
        self.farm_ns = now.farm_ns

    def dies_of(self, point: int, act: Callable[[], object], over: Callable[[], bool]) -> bool:
        """Do something that should kill it before its ``point``-th step; whether it died."""
        self.fuse.arm(point)
        try:
            act()
            sooner_or_later(lambda: self.server.ended or over(), "the data server is done, or dead")
        except GONE:
            sooner_or_later(lambda: self.server.ended, "the data server is dead")
        died = self.server.ended
        self.restart()
        return died

    def plan(self) -> Plan:
        """The plan, as a node that comes back is told it."""
        with Caller(self.farm.address, "node", "web-1", instance="a") as node:
            node.send(Schedule(SHOP))
            while not isinstance(node.receive(), Pins):
                pass  # a roll-over that this has started is pushed, too
            plan = node.expect(Plan)
        assert plan.revision >= self.revision, "the plan went back"
        assert (plan.cycle or 0) >= self.cycle, "the active cycle went back"
        self.revision, self.cycle = plan.revision, plan.cycle or 0
        return plan

    def wait_until_due(self, activates_at: int) -> None:
        """Until farm time is there; asks for nothing that would roll over."""
        with Caller(self.farm.address) as operator:
            sooner_or_later(lambda: operator.ask(Time(), Now).farm_ns >= activates_at, "the time has come")

    def check_whole(self, version: str) -> None:
        """The version can be had from it, and is what was published."""
        unpacker = Unpacker()
        with Caller(self.farm.address, "stager", "web-1") as stager:
            manifest = decode_pieces(stager.ask(GetManifest(version), ManifestIs).pieces, version)
            chunks: dict[bytes, bytes] = {}
            distinct = manifest.distinct_chunks()
            stager.send(GetChunks(version, f"0-{len(distinct) - 1}".encode()))
            while isinstance(message := stager.receive(), Chunk):
                data = unpacker.unpack(message.digest, message.codec, message.length, message.data)
                chunks[message.digest] = bytes(data)
            assert message == Sent(version)
        files = {
            entry.path.decode(): b"".join(chunks[digest] for digest in entry.chunks)
            for entry in manifest.entries
            if entry.kind is Kind.FILE
        }
        assert files == self.farm.versions.files[version]

    def check_once(self) -> list[dict[str, Any]]:
        """I-3, in the catalog: each cycle was scheduled and ended once, one is active, and nothing else was done."""
        cycles = self.farm.history()
        numbers = [one["cycle"] for one in cycles]
        assert numbers == list(range(len(cycles), 0, -1))
        outcomes = [one["outcome"] for one in cycles]
        assert outcomes.count("active") <= 1
        assert outcomes.count("pending") <= 1
        rolled = [one for one in cycles if one["rolled_over_at_ns"] is not None]
        assert all((one["outcome"] in {"active", "past"}) == (one in rolled) for one in cycles)
        cancelled = outcomes.count("cancelled")
        assert self.farm.course()["revision"] == len(cycles) + len(rolled) + cancelled
        return cycles


@pytest.fixture
def patient(forked: ForkedDaemons, tmp_path: Path) -> Patient:
    return Patient.of(forked, tmp_path, "--keep", "1")


def test_killed_at_any_step_of_a_publication_it_has_all_of_it_or_nothing(patient: Patient) -> None:
    farm = patient.farm
    first = farm.schedule(content(1), SOON)
    patient.wait_until_due(first.activates_at)
    assert patient.plan().version == first.version
    deaths = 0
    points, mark = [0], 1
    while points:
        mark += 1
        files = content(mark)
        accepted: list[str] = []
        publish = partial(publish_and_note, farm, files, accepted)
        deaths += patient.dies_of(points[0], publish, partial(delta_is_there, patient, first.version, accepted))
        if points == [0]:
            steps = patient.fuse.steps()
            assert {"sql BEGIN", "sql COMMIT"} <= set(steps)
            points = [0, *sample(len(steps), MOST)]
        points = points[1:]
        pending = patient.plan().next_version
        patient.check_whole(first.version)
        if pending is not None:
            patient.check_whole(pending)
        assert pending in ([*accepted] or farm.versions.order[-2:])  # what was accepted stays, else new or old
        assert farm.publish(files, LATER) == patient.plan().next_version
        patient.check_whole(farm.versions.order[-1])
        patient.check_once()
    assert deaths
    check_tidy(patient, first.version, farm.versions.order[-1])


def publish_and_note(farm: MortalFarm, files: dict[str, bytes], accepted: list[str]) -> None:
    accepted.append(farm.publish(files, LATER))


def delta_is_there(patient: Patient, old: str, accepted: list[str]) -> bool:
    return (patient.server.state / "deltas" / f"{old}-{accepted[0]}").exists()


def keeps_only(patient: Patient, version: str) -> bool:
    return [path.name for path in (patient.server.state / "manifests").iterdir()] == [version]


def check_tidy(patient: Patient, *versions: str) -> None:
    """Once something has made it look, it keeps these versions, and nothing that is half there or of no use."""
    state = patient.server.state

    def tidy() -> bool:
        assert {path.name for path in (state / "manifests").iterdir()} == set(versions)
        assert not list(state.rglob("*.tmp"))
        assert not list(state.rglob("*.new"))
        return True

    sooner_or_later(tidy, "the data server keeps what it should")
    for version in versions:
        patient.check_whole(version)


def test_killed_at_any_step_of_a_roll_over_and_of_clearing_away_it_has_rolled_over_once(patient: Patient) -> None:
    farm = patient.farm
    deaths = 0
    points, mark = [0, 0, 0], 0
    while points:
        mark += 1
        before = farm.versions.order[-1:]
        accepted = farm.schedule(content(mark), SOON)
        patient.wait_until_due(accepted.activates_at)
        deaths += patient.dies_of(points[0], patient.plan, partial(keeps_only, patient, accepted.version))
        if len(points) == 1 and points[0] == 0:
            steps = patient.fuse.steps()
            assert {"sql BEGIN", "sql COMMIT", f"unlink {before[0]}"} <= set(steps)
            points = [0, *sample(len(steps), MOST)]
        points = points[1:]
        plan = patient.plan()
        assert (plan.version, plan.activated_at, plan.next_cycle) == (accepted.version, accepted.activates_at, None)
        patient.check_whole(accepted.version)
        cycles = patient.check_once()
        assert [one["outcome"] for one in cycles] == ["active"] + ["past"] * (mark - 1)
        assert plan.revision == 2 * mark
    assert deaths
    last = farm.schedule(content(mark + 1), SOON)
    patient.wait_until_due(last.activates_at)
    assert patient.plan().version == last.version
    check_tidy(patient, last.version)


def test_killed_while_it_clears_up_after_a_crash_it_clears_up_at_the_next_start(patient: Patient) -> None:
    farm = patient.farm
    first = farm.schedule(content(1), SOON)
    patient.wait_until_due(first.activates_at)
    patient.plan()
    with Caller(farm.address) as operator:  # an upload that is never published: its chunks are of no use
        operator.upload(farm.site({"lost": b"never published" * 1000}))
    patient.server.kill()
    patient.fuse.arm(0)
    farm.restart_data()
    sooner_or_later(lambda: len(patient.fuse.steps()) > 2, "it has started")
    for point in range(1, 13):
        patient.fuse.arm(point)
        patient.server.kill()
        patient.server.start()
        sooner_or_later(lambda: patient.server.ended or patient.server.addresses, "it listens, or is dead")
        if patient.server.ended:
            patient.server.wait()
            patient.server.start()
        patient.fuse.disarm()
    patient.restart()
    assert patient.plan().version == first.version
    patient.check_whole(first.version)
    patient.check_once()


def test_an_operator_who_did_not_hear_the_answer_asks_again_and_gets_one_cycle_more(patient: Patient) -> None:
    """What was accepted may have been told to nobody: to publish again is right, and replaces it by its like."""
    farm = patient.farm
    files = content(1)
    site = farm.site(files)
    with Caller(farm.address) as operator:
        version = operator.upload(site)
        farm.versions.add(version, files)
        operator.send(Publish(SHOP, version, LATER))
        sooner_or_later(lambda: farm.course()["next"], "it is in the catalog")
    patient.restart()
    assert farm.publish(files, LATER) == version
    assert [one["outcome"] for one in patient.check_once()] == ["pending", "replaced"]
