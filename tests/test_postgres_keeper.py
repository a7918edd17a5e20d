"""The PostgreSQL that tests start: it obeys, and nothing of it is left, however the tests end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.daemons import TREE, environment
from tests.eventually import eventually
from tests.postgres import Postgres, _programs

_HOLDER = """
import sys
from tests.postgres import Postgres, _programs
server = Postgres()
print(server.folder, flush=True)
if sys.argv[1] == "paused":
    server.pause()
    print("paused", flush=True)
sys.stdin.read()
"""


def processes_of(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in process.cmdline() or process.cwd().startswith(str(folder)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def shared_memory() -> set[str]:
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}


def test_it_stops_is_killed_is_paused_and_comes_back(postgres: Postgres) -> None:
    def answer() -> object:
        with psycopg.connect(postgres.url(), connect_timeout=2) as connection:
            found = connection.execute("SELECT 1").fetchone()
        assert found is not None
        return found[0]

    for end in (postgres.stop, postgres.kill):
        end()
        with pytest.raises(psycopg.OperationalError):
            answer()
        postgres.start()
        assert answer() == 1
    postgres.pause()
    with pytest.raises(psycopg.OperationalError):
        answer()
    postgres.resume()
    assert answer() == 1


@pytest.mark.parametrize("state", ["running", "paused"])
def test_nothing_is_left_when_the_tests_are_killed(state: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, state],
        cwd=TREE,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        folder = Path(holder.stdout.readline().strip())
        segment = (folder / "data" / "postmaster.pid").read_text().split("\n")[6].split()[1]
        if state == "paused":
            assert holder.stdout.readline() == "paused\n"
        assert len(processes_of(folder)) > 1
        assert segment in shared_memory()
        os.kill(holder.pid, signal.SIGKILL)
    eventually(lambda: not folder.exists() and not processes_of(folder), what="the server has ended")
    assert segment not in shared_memory()


def test_a_database_is_fresh_for_each_test(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert tables == (0,)


def link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # the environment lies on another file system
        shutil.copy2(source, target)


def test_programs_that_others_may_not_run_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = _programs().parents[1]
    closed = tmp_path / "closed" / package.name
    shutil.copytree(_programs().parent, closed / "server", copy_function=link, ignore=shutil.ignore_patterns("include"))
    libraries = f"{package.name}.libs"
    shutil.copytree(package.with_name(libraries), closed.with_name(libraries), copy_function=link)
    closed.parent.chmod(0o700)
    monkeypatch.setattr("tests.postgres._programs", lambda: closed / "server" / "bin")
    with Postgres() as server, psycopg.connect(server.url()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert (server.folder / "program").exists() == (os.geteuid() == 0)
