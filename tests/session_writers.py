"""Processes that count in one session until they are told to stop or killed; each says what was acknowledged to it.

``python -m tests.session_writers URL DIGEST NAME``: adds one to its own number in the session's state again and again,
and prints the number when the store has said that it is written. It ends when its standard input does.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from typing import IO, Self, cast

import attrs

from farmsyncd.core.session.faults import StoreUnavailable
from farmsyncd.sessions.stores.base import Lifetime, Row, Store, Written
from farmsyncd.sessions.stores.url import open_store
from tests.daemons import TREE, environment

LIFE = Lifetime(3_600_000_000, 36_000_000_000)
_PAUSE_S = 0.002


@attrs.define
class Writer:
    """One such process: the last number acknowledged to it, and how often it found the store away."""

    name: str
    process: subprocess.Popen[bytes]
    acknowledged: int = 0
    unavailable: int = 0

    @classmethod
    def start(cls, url: str, digest: bytes, name: str) -> Self:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.session_writers", url, digest.hex(), name],
            cwd=TREE, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        return cls(name, process)

    def go_on(self, *, acknowledged: int = 0, unavailable: int = 0) -> None:
        """Read until so many more writes were acknowledged, and so many more found the store away."""
        acknowledged += self.acknowledged
        unavailable += self.unavailable
        while self.acknowledged < acknowledged or self.unavailable < unavailable:
            line = cast("IO[bytes]", self.process.stdout).readline()
            assert line, f"writer {self.name} has ended"
            self._take(line)

    def _take(self, line: bytes) -> None:
        if line == b"away\n":
            self.unavailable += 1
        elif line.endswith(b"\n"):
            self.acknowledged = int(line)

    def end(self, *, kill: bool = False) -> None:
        """Let it stop, or kill it; read all it said."""
        if kill:
            self.process.kill()
        cast("IO[bytes]", self.process.stdin).close()
        with cast("IO[bytes]", self.process.stdout) as said:
            for line in said:
                self._take(line)
        assert self.process.wait() == 0 or kill


def counts(row: Row) -> dict[str, int]:
    """The numbers of all writers."""
    found: dict[str, int] = json.loads(row.state)
    return found


def write_on(store: Store, digest: bytes, name: str) -> None:
    """Write until standard input ends. The row is read again after whatever was not acknowledged."""
    row: Row | None = None
    while not select.select([sys.stdin], [], [], _PAUSE_S)[0]:
        try:
            row = row or store.read(digest)
            assert row is not None, "the session is gone"
            number = counts(row).get(name, 0) + 1
            state = json.dumps({**counts(row), name: number}).encode()
            answer = store.write(digest, row.version, state, LIFE)
        except StoreUnavailable:
            row = None
            print("away", flush=True)
            time.sleep(5 * _PAUSE_S)
            continue
        assert answer is not None, "the session is gone"
        if isinstance(answer, Written):
            assert answer.version == row.version + 1
            print(number, flush=True)
            row = Row(answer.version, state, answer.idle_left_us, answer.absolute_left_us)
        else:
            row = answer


def main() -> None:
    """Write."""
    url, digest, name = sys.argv[1:]
    write_on(open_store(url), bytes.fromhex(digest), name)


if __name__ == "__main__":
    main()
