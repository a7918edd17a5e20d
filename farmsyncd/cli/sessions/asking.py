"""Opens the database of sessions, and finds sessions by the beginning of their digest."""

from __future__ import annotations

import string
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import click

from farmsyncd.cli import show
from farmsyncd.cli.times import span_shown
from farmsyncd.errors import BadInput
from farmsyncd.sessions.stores.base import Listed, Store
from farmsyncd.sessions.stores.url import open_store

SHORT_DIGEST = 12
"""Hexadecimal digits of a digest that people are shown, in logs too."""
_DIGEST = 64
_CANDIDATES = 10

store = click.option(
    "--store",
    "url",
    envvar="FARMSYNC_SESSIONS",
    show_envvar=True,
    required=True,
    metavar="URL",
    help="The database: sqlite:///FILE or postgresql://...",
)


@contextmanager
def opened(url: str) -> Iterator[Store]:
    """The database. Raises ConfigError, WrongSchema, and StoreUnavailable when it cannot be reached or is not there."""
    found = open_store(url, creates=False)
    try:
        found.prepare()
        yield found
    finally:
        found.close()


def check_prefix(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
    """Digests' beginnings are hexadecimal, in whatever letters."""
    given = value if isinstance(value, tuple) else (value,)
    for one in given:
        if one and (len(one) > _DIGEST or not set(one) <= set(string.hexdigits)):
            raise click.BadParameter(f"expected the beginning of a digest, hexadecimal digits, and found {one!r}")
    return tuple(one.lower() for one in given) if isinstance(value, tuple) else (value or "").lower()


def beginning(store: Store, prefix: str, limit: int) -> list[Listed]:
    """Live sessions whose digest begins with these hexadecimal digits, the latest changed first."""
    if len(prefix) % 2 == 0:
        return store.find(bytes.fromhex(prefix), limit)
    found = [one for last in string.hexdigits[:16] for one in store.find(bytes.fromhex(prefix + last), limit)]
    return sorted(found, key=lambda one: one.changed_us, reverse=True)[:limit]


def the_one(store: Store, prefix: str) -> Listed:
    """The session whose digest begins so. BadInput when there is none, or more than one: it names them."""
    found = beginning(store, prefix, _CANDIDATES + 1)
    if not found:
        raise BadInput(f"expected a session whose digest begins with {prefix}, and there is none that lives")
    if len(found) > 1:
        named = "\n".join(f"  {one.digest.hex()}, {_changed(one)}" for one in found[:_CANDIDATES])
        more = "\n  and more" if len(found) > _CANDIDATES else ""
        raise BadInput(
            f"expected one session, and the digests of several begin with {prefix}; say more of it:\n{named}{more}"
        )
    return found[0]


def _changed(one: Listed) -> str:
    return f"changed {ago(one.changed_us, show.now())}"


def ago(moment_us: int, now: datetime) -> str:
    """How long ago, by this machine's clock."""
    return f"{span_shown(max(0, _now_us(now) - moment_us) * 1000)} ago"


def until(one: Listed, now: datetime) -> str:
    """For how long the session lives if nobody uses it."""
    return f"in {span_shown(max(0, expires_us(one) - _now_us(now)) * 1000)}"


def expires_us(one: Listed) -> int:
    """When the session ends if nobody uses it."""
    return min(one.idle_expires_us, one.absolute_expires_us)


def _now_us(now: datetime) -> int:
    return int(now.timestamp() * 1_000_000)


def as_json(one: Listed) -> dict[str, Any]:
    """A session for scripts; times are nanoseconds since the Unix epoch."""
    return {
        "digest": one.digest.hex(),
        "version": one.version,
        "bytes": one.size,
        "created_ns": one.created_us * 1000,
        "changed_ns": one.changed_us * 1000,
        "idle_expires_ns": one.idle_expires_us * 1000,
        "absolute_expires_ns": one.absolute_expires_us * 1000,
    }
