"""The ``farmsync`` command, typed into a shell: a process of its own against a real data server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs

from farmsyncd.core.messages.operating import Answer, Status
from tests.caller import Caller
from tests.daemons import environment

_ENTRY = "from farmsyncd.cli.main import main; main()"


@attrs.frozen
class Shell:
    """Where commands are typed: a directory of one's own, and the data server that FARMSYNC_DATA names."""

    directory: Path
    data: str

    def environment(self, **env: str) -> dict[str, str]:
        """What commands find in their environment."""
        kept = environment(XDG_CACHE_HOME=str(self.directory / "cache"), TZ="UTC")
        return {**kept, "FARMSYNC_DATA": self.data, **env}

    def run(self, *arguments: str, meddling: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """Run ``farmsync ARGUMENTS``, after the Python statements ``meddling`` in the same process."""
        entry = ("-m", "farmsyncd.cli") if not meddling else ("-c", f"{meddling}\n{_ENTRY}")
        return subprocess.run(
            [sys.executable, *entry, *arguments],
            env=self.environment(**env),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def ok(self, *arguments: str) -> str:
        """What a command prints that must end well."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """The same as JSON."""
        return json.loads(self.ok(*arguments, "--json"))

    def fails(self, status: int, *arguments: str, meddling: str = "", **env: str) -> str:
        """What a command says that must fail with this exit status; never a traceback."""
        done = self.run(*arguments, meddling=meddling, **env)
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        assert done.stderr.startswith("farmsync: "), done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    def status(self) -> Any:
        """What ``farmsync status --json`` would print, asked for without starting it."""
        with Caller(self.data) as operator:
            return json.loads(operator.ask(Status(), Answer).json)

    def site(self, name: str, **files: str) -> str:
        """A directory to publish."""
        path = self.directory / name
        path.mkdir()
        for file, text in files.items():
            (path / file).write_text(text)
        return str(path)
