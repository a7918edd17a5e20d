"""``python -m bench.session_memory FILE COUNT``: how much a process grows by caching so many sessions, as JSON.

The sessions are made by a process of their own, so that what making them leaves behind does not count.
"""

from __future__ import annotations

import json
import multiprocessing
import sys

import psutil

from farmsyncd.core.session.token import Token
from farmsyncd.sessions import Sessions, SessionSettings

_STATE_BYTES = 1024


def make(url: str, count: int) -> list[str]:
    """Store ``count`` sessions with a state of 1 KiB; their tokens."""
    sessions = Sessions.at(url, SessionSettings(cache_entries=0))
    tokens = []
    for number in range(count):
        session = sessions.open(None)
        session["cart"] = f"{number:08d}" + "x" * (_STATE_BYTES - 17)
        session.commit()
        token = session.token
        assert token is not None
        tokens.append(token.spell())
    sessions.close()
    return tokens


def main(path: str, count: int) -> None:
    """Make them, cache them, tell."""
    url = f"sqlite:///{path}"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        tokens = [_token(spelled) for spelled in pool.apply(make, (url, count))]
    sessions = Sessions.at(url)
    sessions.open(tokens[0])
    process = psutil.Process()
    before = process.memory_full_info().uss
    for token in tokens:
        sessions.open(token)
    grown = process.memory_full_info().uss - before
    entries = sessions.statistics().entries
    sessions.close()
    json.dump({"grown_bytes": grown, "entries": entries, "state_bytes": _STATE_BYTES}, sys.stdout)


def _token(spelled: str) -> Token:
    identity, _, version = spelled.rpartition(".")
    return Token(identity, int(version))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
