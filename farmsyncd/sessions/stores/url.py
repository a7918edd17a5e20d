"""Which database a URL means."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from farmsyncd.errors import ConfigError
from farmsyncd.sessions.stores.base import Store
from farmsyncd.sessions.stores.sqlite import TIMEOUT_S, SqliteStore

_EXPECTED: Final = (
    "expected sqlite:///relative.db, sqlite:////absolute.db or postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
)
_POSTGRES: Final = ("postgresql", "postgres")


def open_store(url: str, timeout_s: float = TIMEOUT_S, *, creates: bool = True) -> Store:
    """The store of a URL, each of whose calls takes at most ``timeout_s``; nothing is opened before its first use.

    With ``creates`` False no file and no tables are made: where they are missing, a use raises StoreUnavailable.

    Raises ConfigError for anything that is no such URL; a password in it never reaches the message.
    """
    scheme, separator, _ = url.partition("://")
    if separator and scheme in _POSTGRES:
        return _postgres(url, timeout_s, creates=creates)
    if separator and scheme == "sqlite":
        return SqliteStore(_path(url), timeout_s, creates=creates)
    found = scheme if separator and scheme.replace("+", "").isalnum() else ""
    raise ConfigError(f"{_EXPECTED}, found {f'a URL that begins with {found}://' if found else 'no such URL'}")


def _path(url: str) -> Path:
    parts = urlsplit(url)
    path = unquote(parts.path)[1:]
    if parts.netloc or parts.query or parts.fragment or path in ("", ":memory:") or path.endswith("/") or "\0" in path:
        raise ConfigError(
            f"{_EXPECTED}, found {parts.scheme}: with something else than a file's path after three slashes"
        )
    return Path(path)


def _postgres(url: str, timeout_s: float, *, creates: bool) -> Store:
    try:
        from farmsyncd.sessions.stores.postgres.store import PostgresStore  # noqa: PLC0415 - only where it is used
    except ImportError as error:
        raise ConfigError(
            f"expected psycopg, which sessions in PostgreSQL need: pip install 'farmsync[postgres]' ({error})"
        ) from error
    return PostgresStore(url, timeout_s, creates=creates)
