"""The table of sessions in SQLite, how an older one becomes today's, and all statements over it.

``PRAGMA user_version`` holds the number of migrations that a file has been through; each runs in one transaction. Times
are microseconds since the Unix epoch. ``sweep_us`` is when a row has expired for certain: its expiry, rounded up to
what ``Lifetime.grain_us`` says, so that most writes do not touch the index. ``state`` is the last column: what
reads the others alone does not load it.
"""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x66736573  # "fses"

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE sessions (
            digest BLOB NOT NULL PRIMARY KEY, version INTEGER NOT NULL,
            created_us INTEGER NOT NULL, changed_us INTEGER NOT NULL,
            idle_expires_us INTEGER NOT NULL, absolute_expires_us INTEGER NOT NULL, sweep_us INTEGER NOT NULL,
            state BLOB NOT NULL
        ) STRICT""",
        "CREATE INDEX sessions_by_sweep ON sessions (sweep_us)",
    ),
)

_LIVES: Final = "idle_expires_us > :now AND absolute_expires_us > :now"
_SWEEP: Final = "(min(:now + :idle, {absolute}) + :grain - 1) / :grain * :grain"
_LEFT: Final = "idle_expires_us - :now, absolute_expires_us - :now"

CREATE: Final = f"""
    INSERT INTO sessions VALUES (
        :digest, 1, :now, :now, :now + :idle, :now + :absolute, {_SWEEP.format(absolute=":now + :absolute")}, :state
    )
"""
READ: Final = f"SELECT version, state, {_LEFT} FROM sessions WHERE digest = :digest AND {_LIVES}"
REVALIDATE: Final = f"""
    SELECT version, CASE WHEN version = :version THEN NULL ELSE state END, {_LEFT}
    FROM sessions WHERE digest = :digest AND {_LIVES}
"""
REPLACE: Final = f"""
    UPDATE sessions SET
        digest = :new, version = version + 1, state = :state, changed_us = :now, idle_expires_us = :now + :idle,
        sweep_us = {_SWEEP.format(absolute="absolute_expires_us")}
    WHERE digest = :digest AND version = :version AND {_LIVES}
    RETURNING version, {_LEFT}
"""
DELETE: Final = f"DELETE FROM sessions WHERE digest = :digest RETURNING {_LIVES}"
EXPIRED: Final = "SELECT EXISTS (SELECT 1 FROM sessions WHERE sweep_us <= :now)"
SWEEP: Final = """
    DELETE FROM sessions WHERE rowid IN (
        SELECT rowid FROM sessions WHERE sweep_us <= :now ORDER BY sweep_us LIMIT :limit
    )
"""
FIND: Final = f"""
    SELECT digest, version, length(state), created_us, changed_us, idle_expires_us, absolute_expires_us
    FROM sessions WHERE digest >= :prefix AND (:beyond IS NULL OR digest < :beyond) AND {_LIVES}
    ORDER BY changed_us DESC, digest LIMIT :limit
"""
STATS: Final = f"""
    SELECT count(*) FILTER (WHERE lives), count(*) FILTER (WHERE NOT lives),
        coalesce(sum(size) FILTER (WHERE lives), 0), coalesce(max(size) FILTER (WHERE lives), 0),
        min(created_us) FILTER (WHERE lives)
    FROM (SELECT {_LIVES} AS lives, length(state) AS size, created_us FROM sessions)
"""
