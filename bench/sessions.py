"""Sessions beside those of others, with the same state in the same run.

- *Hit*: open and read a key, the copy being here. Peer: Flask-Session on a Redis on loopback, which asks Redis each
  time. The goal is for ``Sessions.open``; what Flask itself adds to ours is shown by a second figure.
- *Change*: open, change one value, commit it in PostgreSQL. Peer: Django's ``cached_db`` on the same PostgreSQL with
  Redis as its cache. Ours through Django's engine as well, so that the same code runs around it. The server does not
  wait for its disk, whose time would count for both alike.
- *Miss*: a session that this process does not know, beside a bare select by key. Its round trips are counted on the
  wire.
- *Memory*: what a process grows by for each cached session of 1 KiB.

They take turns in short rounds; of the rounds' means the least counts for what happens in the process, and the median
for what goes to a database.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flask
import psycopg

from bench.goals import Goal, Say, at_least, at_most, median, ratio
from bench.redis import Redis
from bench.session_peers import FlaskSession, configure_django, cookie_request, django_table
from farmsyncd.core.session.token import Token
from farmsyncd.sessions import Sessions, SessionSettings
from farmsyncd.sessions.flask import FarmsyncSessions
from tests.daemons import TREE, environment
from tests.postgres import Postgres
from tests.postgres_relay import PostgresRelay

TIMES_FASTER, NO_SLOWER, ROUND_TRIPS, SESSION_BYTES = 20.0, 1.0, 1.0, 3 * 1024
_ROUNDS = 9
_CACHED = 5_000
_MISSES = 100


def a_state() -> dict[str, Any]:
    """What a shop keeps for one shopper: about 1 KiB, of kinds that JSON has too."""
    cart = {f"{number:08d}": {"quantity": number % 3 + 1, "price": "19.95", "gift": False} for number in range(12)}
    seen = [f"/articles/{number}/{secrets.token_hex(4)}" for number in range(10)]
    return {"cart": cart, "customer": "M. Muster", "language": "de", "seen": seen, "visits": 1}


def run(say: Say = print) -> list[Goal]:
    """Measure all, tell it, and say which goals are met. Raises PeerMissing when there is no Redis."""
    with tempfile.TemporaryDirectory() as folder, Redis(Path(folder)) as redis, Postgres() as postgres:
        configure_django(postgres.url(), redis.port, {"url": postgres.url()})
        return [
            *_hits(say, redis.port, postgres.url()),
            *_changes(say),
            *_misses(say, postgres),
            *memory(say, Path(folder) / "memory.sqlite"),
        ]


def _hits(say: Say, redis_port: int, postgres: str) -> list[Goal]:
    state = a_state()
    flask_session = FlaskSession(redis_port)
    sessions = Sessions.at(postgres, SessionSettings(revalidate_after_s=3600))
    try:
        token = _stored(sessions, state)
        app = flask.Flask("bench")
        FarmsyncSessions(app, sessions)
        interface = app.session_interface
        request = cookie_request(app, f"{app.config['SESSION_COOKIE_NAME']}={token.spell()}")

        def in_flask() -> object:
            found = interface.open_session(app, request)
            assert found is not None
            return found["visits"]

        def alone() -> object:
            return sessions.open(token)["visits"]

        theirs = flask_session.hit(state, "visits")
        assert theirs() == in_flask() == alone() == 1
        us = turns([(theirs, 300), (in_flask, 5000), (alone, 5000)], least)
    finally:
        sessions.close()
        flask_session.close()
    times, times_in_flask = ratio(us[0], us[2]), ratio(us[0], us[1])
    say(f"sessions: hit: Flask-Session on Redis {us[0]:.1f} us; ours {us[2]:.2f} us, {times:.1f} times faster;")
    say(f"sessions:      ours in Flask, from the Cookie header on, {us[1]:.2f} us, {times_in_flask:.1f} times faster")
    return [at_least("open and read on a hit, times faster than Flask-Session", times, TIMES_FASTER)]


def _changes(say: Say) -> list[Goal]:
    from django.contrib.sessions.backends.cached_db import SessionStore as CachedDb  # noqa: PLC0415  needs settings

    from farmsyncd.sessions.django import SessionStore as Ours  # noqa: PLC0415

    def changer(store: Any) -> Callable[[], object]:
        first = store()
        first.update(a_state())
        first.create()
        first.save()
        key = first.session_key

        def change() -> None:
            session = store(key)
            session["visits"] = session["visits"] + 1
            session.save()

        return change

    with django_table():
        theirs, ours = changer(CachedDb), changer(Ours)
        us = turns([(theirs, 60), (ours, 60)], median)
    part = ratio(us[1], us[0])
    say(
        f"sessions: change, stored in PostgreSQL: Django's cached_db {us[0]:.0f} us; "
        f"ours in Django {us[1]:.0f} us, {part:.2f} of it"
    )
    return [at_most("read, change and commit, of Django cached_db's time", part, NO_SLOWER)]


def _misses(say: Say, postgres: Postgres) -> list[Goal]:
    settings = SessionSettings(cache_entries=0)
    sessions = Sessions.at(postgres.url(), settings)
    try:
        token = _stored(sessions, a_state())
        with psycopg.connect(postgres.url(), autocommit=True) as bare:

            def select() -> object:
                return bare.execute(
                    "SELECT version, state FROM farmsync_sessions WHERE digest = %s", (token.digest,), prepare=True
                ).fetchone()

            us = turns([(select, 300), (lambda: sessions.open(token)["visits"], 300)], least)
    finally:
        sessions.close()
    say(f"sessions: miss: {us[1]:.0f} us; a bare select through psycopg {us[0]:.0f} us")
    trips = _round_trips(postgres, token, settings)
    return [at_most("a miss, in round trips to the database", trips, ROUND_TRIPS)]


def _round_trips(postgres: Postgres, token: Token, settings: SessionSettings) -> float:
    """How often a miss goes to the server and back, counted between the two."""
    with PostgresRelay(postgres.socket) as relay:
        sessions = Sessions.at(relay.url(postgres.url()), settings)
        try:
            sessions.open(token)
            before = -1
            while before != relay.answers:  # until the connection that hears of ended sessions is there
                before = relay.answers
                time.sleep(0.5)
            for _ in range(_MISSES):
                sessions.open(token)
            return (relay.answers - before) / _MISSES
        finally:
            sessions.close()


def memory(say: Say, path: Path, count: int = _CACHED) -> list[Goal]:
    """What a process grows by for each of so many cached sessions."""
    program = [sys.executable, "-m", "bench.session_memory", str(path), str(count)]
    said = subprocess.run(program, cwd=TREE, env=environment(), stdout=subprocess.PIPE, check=True).stdout
    found = json.loads(said)
    each = found["grown_bytes"] / found["entries"]
    say(
        f"sessions: {found['entries']} cached sessions of {found['state_bytes']} bytes: {each:.0f} bytes each in memory"
    )
    return [at_most("memory for a cached session of 1 KiB", each, SESSION_BYTES, "bytes")]


def _stored(sessions: Sessions, state: dict[str, Any]) -> Token:
    session = sessions.open(None)
    session.update(state)
    session.commit()
    token = session.token
    assert token is not None
    return token


def least(values: Sequence[float]) -> float:
    """The smallest: what everything else on the machine only adds to."""
    return min(values)


def turns(ways: Sequence[tuple[Callable[[], object], int]], choose: Callable[[Sequence[float]], float]) -> list[float]:
    """Microseconds per call of each way: ``choose`` of the means of rounds of so many calls, in turns."""
    means: list[list[float]] = [[] for _ in ways]
    for _ in range(_ROUNDS):
        for (call, calls), into in zip(ways, means, strict=True):
            began = time.perf_counter_ns()
            for _ in range(calls):
                call()
            into.append((time.perf_counter_ns() - began) / calls / 1000)
    return [choose(one) for one in means]
