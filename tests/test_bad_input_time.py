"""Times that make no sense: refused by the command or, when its own clock is wrong, by the data server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.daemons import Daemons
from tests.shell import Shell

LOCAL = "tcp:0:interface=127.0.0.1"

# The machine on which the command runs has a clock that is two hours behind.
BEHIND = """
from datetime import timedelta
from farmsyncd.cli import options
_now = options.now
options.now = lambda: _now() - timedelta(hours=2)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a data server, on which something is planned that must stand."""
    with Daemons(tmp_path_factory.mktemp("data")) as daemons:
        server = daemons.start("farmsync-data", "--listen", LOCAL, name="data")
        shell = Shell(tmp_path_factory.mktemp("shell"), server.address("listen"))
        shell.ok("publish", "shop", shell.site("planned", page="planned"), "--in", "9h")
        yield server.address("listen")
        assert "Traceback" not in server.log


@pytest.fixture
def shell(data: str, tmp_path: Path) -> Shell:
    return Shell(tmp_path, data)


def refused(shell: Shell, *arguments: str, meddling: str = "") -> str:
    """What a command says that names no time to come; what was planned stands."""
    before = shell.status()["datasets"]
    said = shell.fails(65, *arguments, meddling=meddling)
    assert shell.status()["datasets"] == before
    return said


def hours_ago(hours: float) -> str:
    return (datetime.now(UTC) - timedelta(hours=hours)).isoformat()


def test_a_time_in_the_past_is_refused_and_shown_as_it_was_understood(shell: Shell) -> None:
    site = shell.site("late", page="late")
    said = refused(shell, "publish", "shop", site, "--at", "2020-01-01T06:00+01:00")
    assert said == (
        "farmsync: expected a time to come, and '2020-01-01T06:00+01:00' is Wed 2020-01-01 05:00:00 UTC, "
        "which has passed\n"
    )
    assert "which has passed" in refused(shell, "rollback", "shop", "--at", hours_ago(0.1))


def test_a_command_whose_clock_is_behind_is_told_by_the_data_server(shell: Shell) -> None:
    site = shell.site("late", page="late")
    for dry in ((), ("--dry-run",)):
        said = refused(shell, "publish", "shop", site, "--at", hours_ago(1), *dry, meddling=BEHIND)
        assert "expected an activation time in the future, and this one passed 36" in said


@pytest.mark.parametrize(
    ("when", "said"),
    [
        (("--in", "0"), "expected an activation time in the future, and this one passed "),
        (("--in", "300 years"), "expected a length of time such as 90, 90s or 1h30m, and found '300 years'"),
        (("--in", "9000000000"), "expected an activation time before the year 2262; choose an earlier one"),
        (("--in", "9" * 400), "expected a length of time of less than 292 years"),
        (("--at", "2500-01-01T00:00Z"), "expected a time to come, before the year 2262"),
        (("--at", "2027-02-30T06:00"), "expected a time such as 2027-01-31T06:00:00+01:00"),
    ],
)
def test_a_time_that_is_none_or_too_far_away_is_refused(shell: Shell, when: tuple[str, ...], said: str) -> None:
    assert said in refused(shell, "publish", "shop", shell.site("new", page="new"), *when)


def test_a_time_that_is_just_ahead_is_taken(shell: Shell) -> None:
    soon = datetime.fromtimestamp(time.time() + 3600, UTC).isoformat()
    assert "which will not be activated" in shell.ok("publish", "other", _twice(shell), "--at", soon)


def _twice(shell: Shell) -> str:
    """Something is planned for the dataset already; the directory of what comes instead."""
    shell.ok("publish", "other", shell.site("first", page="1"), "--in", "2h")
    return shell.site("second", page="2")
