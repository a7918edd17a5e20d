"""The parts of relaying that need no connection."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from farmsyncd.lb.relaying.binding import bind
from farmsyncd.lb.relaying.descriptors import Reserve
from farmsyncd.lb.relaying.pipes import PipePool
from farmsyncd.lb.relaying.sockets import Target, target_of
from farmsyncd.lb.relaying.vigil import Vigil


@attrs.define(eq=False)
class Sleeper:
    """Is expired once; ends its vigil as it should."""

    vigil: Vigil[Sleeper]
    touched_ns: int
    expired: bool = False

    def expire(self) -> None:
        self.expired = True
        self.vigil.end(self)


def _sleepers(limit_ns: int, *touched_ns: int) -> tuple[Vigil[Sleeper], list[Sleeper]]:
    vigil: Vigil[Sleeper] = Vigil(limit_ns)
    sleepers = [Sleeper(vigil, touched) for touched in touched_ns]
    for one in sleepers:
        vigil.begin(one, one.touched_ns)
    return vigil, sleepers


def test_a_vigil_expires_who_is_silent_for_its_limit_and_at_most_a_quarter_later() -> None:
    for touched in range(0, 400, 7):
        vigil, (one,) = _sleepers(400, 0)
        one.touched_ns = touched
        for now in range(1000):
            vigil.sweep(now)
            if one.expired:
                break
        assert touched + 400 <= now <= touched + 500
        assert len(vigil) == 0


def test_a_vigil_lets_the_busy_ones_be() -> None:
    vigil, (busy, idle) = _sleepers(100, 0, 0)
    for now in range(0, 1000, 10):
        busy.touched_ns = now
        vigil.sweep(now)
    assert (busy.expired, idle.expired) == (False, True)
    assert list(vigil) == [busy]
    vigil.end(idle)
    vigil.end(busy)
    assert busy not in vigil


def test_one_that_expires_may_end_others() -> None:
    vigil, sleepers = _sleepers(100, 0, 0, 0)

    class Killer(Sleeper):
        def expire(self) -> None:
            super().expire()
            for one in sleepers:
                vigil.end(one)

    killer = Killer(vigil, 0)
    first = sleepers[0]
    vigil.end(first)
    vigil.begin(killer, 0)
    for one in sleepers[1:]:
        vigil.end(one)
        vigil.begin(one, 0)
    vigil.sweep(1000)
    assert killer.expired
    assert [one.expired for one in sleepers] == [False] * 3


@pytest.fixture
def pool() -> Iterator[PipePool]:
    pool = PipePool(most=3, large=1, size=1 << 18)
    yield pool
    pool.close()


def test_pipes_are_made_when_needed_kept_for_the_next_and_bounded(pool: PipePool) -> None:
    taken = [pool.take() for _ in range(4)]
    assert taken[3] is None
    assert len(pool) == 3
    large = [pipe for pipe in taken if pipe is not None and pipe.large]
    for pipe in taken:
        if pipe is not None:
            pool.give_back(pipe)
    if large:  # a user who has none left to be granted gets none
        assert pool.take() is large[0], "the large one first"
        pool.discard(large[0])
        assert len(pool) == 2
        fresh = pool.take()
        assert fresh is not None
        pool.give_back(fresh)


def test_a_pipe_without_a_descriptor_is_no_pipe(pool: PipePool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(flags: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(os, "pipe2", refuse)
    assert pool.take() is None
    assert len(pool) == 0


def test_the_reserve_is_spent_one_by_one_and_restored() -> None:
    reserve = Reserve()
    try:
        spent = 0
        while reserve.spend():
            spent += 1
        assert spent == 8
        assert reserve.restore()
        assert reserve.spend()
        assert reserve.restore()
    finally:
        reserve.close()
    assert not reserve.spend()


def test_a_reserve_that_cannot_be_restored_says_so() -> None:
    reserve = Reserve()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert reserve.spend()
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        assert not reserve.restore()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert reserve.restore()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        reserve.close()


def test_endpoints_become_bound_sockets(tmp_path: Path) -> None:
    with bind("tcp:0:interface=127.0.0.1") as four:
        assert four.family == socket.AF_INET
        assert four.getsockname()[0] == "127.0.0.1"
        four.listen()
        with pytest.raises(OSError, match="in use"):
            bind(f"tcp:{four.getsockname()[1]}:interface=127.0.0.1")
    path = tmp_path / "front"
    with bind(f"unix:{path}:mode=600") as unix:
        assert unix.getsockname() == str(path)
        assert path.stat().st_mode & 0o777 == 0o600
        unix.listen()
        with pytest.raises(OSError, match="in use"):
            bind(f"unix:{path}")
    assert path.exists()
    bind(f"unix:{path}").close()


def test_a_file_in_the_place_of_a_unix_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="in use"):
        bind(f"unix:{tmp_path / 'file'}")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("10.0.0.1", (socket.AF_INET, ("10.0.0.1", 80))),
        ("2001:db8::1", (socket.AF_INET6, ("2001:db8::1", 80, 0, 0))),
        ("/run/shop", (socket.AF_UNIX, "/run/shop")),
        ("shop.example", None),
    ],
)
def test_addresses_are_told_from_names(host: str, target: Target | None) -> None:
    assert target_of(host, 80) == target
