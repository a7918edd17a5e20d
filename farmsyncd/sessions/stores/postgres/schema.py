"""The tables of sessions in PostgreSQL, and how older ones become today's.

``farmsync_sessions_meta`` has one row, with the number of migrations that were done; each migration is one transaction,
done by one process at a time. The tables lie in the first schema of the user's search path.

Times are microseconds since the Unix epoch by the server's clock. ``sweep_us`` is when a row has expired for certain:
its expiry, rounded up to what ``Lifetime.grain_us`` says, so that most writes leave the index alone; with some room in
each page, PostgreSQL then writes the new row beside the old one, and no index at all. ``mark`` is a random number of
the write that made the row what it is: who lost the answer to a write can tell by it whether it was done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from farmsyncd.core.session.faults import StoreUnavailable, WrongSchema
from farmsyncd.errors import ConfigError
from farmsyncd.sessions.stores.postgres.link import Link
from farmsyncd.sessions.stores.postgres.trouble import NOT_ALLOWED, UNDEFINED, Refused

Migrations = Sequence[Sequence[str]]
TABLE: Final = "farmsync_sessions"
META: Final = "farmsync_sessions_meta"
LOCK: Final = 0x66736573  # "fses": with 1, migrating; with 2, sweeping

MIGRATIONS: Final[Migrations] = (
    (
        f"""CREATE TABLE {TABLE} (
            digest bytea PRIMARY KEY, version bigint NOT NULL,
            created_us bigint NOT NULL, changed_us bigint NOT NULL,
            idle_expires_us bigint NOT NULL, absolute_expires_us bigint NOT NULL, sweep_us bigint NOT NULL,
            mark bigint NOT NULL, state bytea NOT NULL
        ) WITH (fillfactor = 70)""",
        f"CREATE INDEX {TABLE}_by_sweep ON {TABLE} (sweep_us)",
        f"CREATE TABLE {META} (one boolean PRIMARY KEY DEFAULT true CHECK (one), schema integer NOT NULL)",
        f"INSERT INTO {META} (schema) VALUES (0)",
    ),
)
_PATIENCE_S: Final = 60.0


def ensure(link: Link, migrations: Migrations, shown: str, *, creates: bool = True) -> None:
    """Bring the tables to the newest schema, if they are not; raises WrongSchema, ConfigError.

    With ``creates`` False, StoreUnavailable where there are none. ``shown`` names the database to people.
    """
    try:
        while (found := _found(link)) < len(migrations):
            if not found and not creates:
                raise StoreUnavailable(
                    f"expected farmsync's sessions in {shown}, and there are no such tables; "
                    "name another database, or a user with another search_path, or start what keeps sessions there"
                )
            _migrate_once(link, migrations)
    except Refused as error:
        if error.sqlstate in UNDEFINED:
            raise WrongSchema(
                f"expected {META} to be farmsync's, found a table that differs ({error}); "
                "name another database, or a user with another search_path"
            ) from None
        if error.sqlstate in NOT_ALLOWED:
            raise ConfigError(
                f"expected to be allowed to create or change the tables of sessions: {error}; "
                "GRANT CREATE on the schema, or start once as its owner"
            ) from None
        raise
    if found > len(migrations):
        raise WrongSchema(
            f"expected tables of sessions of schema {len(migrations)} or older, found schema {found}; "
            "run the newer farmsync that made them"
        )


def _found(link: Link) -> int:
    there = link.run(f"SELECT to_regclass('{TABLE}') IS NOT NULL, to_regclass('{META}') IS NOT NULL")
    if there == [("t", "f")]:
        raise WrongSchema(
            f"expected {TABLE} to be farmsync's, found a table of that name without {META}; "
            "name another database, or a user with another search_path"
        )
    if there != [("t", "t")]:
        return 0
    rows = link.run(f"SELECT schema FROM {META}")
    if len(rows) != 1 or rows[0][0] is None:
        raise WrongSchema(f"expected {META} to have one row, found {len(rows)}; restore the tables from a backup")
    return int(rows[0][0])


def _migrate_once(link: Link, migrations: Migrations) -> None:
    """One step, unless another process was quicker: a lock of the session is held around the transaction.

    A lock taken inside it would come too late: a transaction may go on with what it knew of tables when it began.
    """
    link.run(f"SET statement_timeout = 0; SELECT pg_advisory_lock({LOCK}, 1)", _PATIENCE_S)
    try:
        done = _found(link)
        if done < len(migrations):
            step = "; ".join([*migrations[done], f"UPDATE {META} SET schema = {done + 1}"])
            link.run(f"BEGIN; {step}; COMMIT", _PATIENCE_S)
    except Refused:
        link.run("ROLLBACK")
        raise
    link.run(f"SELECT pg_advisory_unlock({LOCK}, 1)")
    link.limit()
