"""Where the database is: what libpq is told, and what people are shown of it."""

from __future__ import annotations

import math
from typing import Any, Final

import attrs
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from farmsyncd.errors import ConfigError

_NOT_TAKEN: Final = (
    "expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE, found a URL that libpq does not take so "
    "(it is not shown, for it may hold a password); write each special character of the password as %XX"
)
_KEEPALIVES: Final = {"keepalives_idle": 10, "keepalives_interval": 3, "keepalives_count": 3}


@attrs.frozen
class Target:
    """``conninfo`` may hold a password, and is never shown; ``shown`` holds none."""

    conninfo: str = attrs.field(repr=False)
    shown: str

    @classmethod
    def of(cls, url: str, timeout_s: float) -> Target:
        """What a URL says, with our limits where it says nothing; raises ConfigError, which quotes nothing of it."""
        try:
            given = conninfo_to_dict(url)
            known: dict[str, Any] = {
                "application_name": "farmsync-sessions",
                "connect_timeout": max(2, math.ceil(timeout_s)),
                "tcp_user_timeout": math.ceil(timeout_s * 1000),
                "target_session_attrs": "read-write",
                **_KEEPALIVES,
                **given,
                "client_encoding": "UTF8",
            }
            conninfo = make_conninfo(**known)
        except psycopg.Error:
            raise ConfigError(_NOT_TAKEN) from None
        texts = {name: str(value) for name, value in given.items()}
        if _strayed(texts):
            raise ConfigError(_NOT_TAKEN)
        return cls(conninfo, _shown(texts))


def _strayed(given: dict[str, str]) -> bool:
    """Whether a part of a password, with a ``/`` or an ``@`` in it, was taken for something else."""
    places = (given.get("host", ""), given.get("dbname", ""))
    ports = given.get("port", "").split(",")
    return any("@" in one for one in places) or not all(port.isdecimal() or port == "" for port in ports)


def _shown(given: dict[str, str]) -> str:
    user = f"{given['user']}@" if "user" in given else ""
    host = given.get("host") or given.get("hostaddr") or ""
    port = f":{given['port']}" if "port" in given else ""
    return f"postgresql://{user}{host}{port}/{given.get('dbname', '')}"
