"""All statements over the table of sessions in PostgreSQL; each is one transaction of its own."""

from __future__ import annotations

from typing import Final

from farmsyncd.sessions.stores.postgres.link import BYTEA, INT8, Statement
from farmsyncd.sessions.stores.postgres.schema import LOCK, TABLE

CHANNEL: Final = "farmsync_sessions"

_NOW: Final = "(extract(epoch FROM statement_timestamp()) * 1000000)::bigint"
_LIVES: Final = f"least(idle_expires_us, absolute_expires_us) > {_NOW}"
_LEFT: Final = f"idle_expires_us - {_NOW}, absolute_expires_us - {_NOW}"


def _statement(name: str, sql: str, *types: int) -> Statement:
    return Statement(name.encode(), " ".join(sql.split()).encode(), types)


def _sweep(absolute: str, idle: str, grain: str) -> str:
    return f"(least({_NOW} + {idle}, {absolute}) + {grain} - 1) / {grain} * {grain}"


CREATE: Final = _statement(
    "create",
    f"""INSERT INTO {TABLE} (
            digest, version, created_us, changed_us, idle_expires_us, absolute_expires_us, sweep_us, mark, state
        ) VALUES (
            $1, 1, {_NOW}, {_NOW}, {_NOW} + $4, {_NOW} + $5, {_sweep(f"{_NOW} + $5", "$4", "$6")}, $3, $2
        ) ON CONFLICT (digest) DO NOTHING RETURNING version""",
    *(BYTEA, BYTEA, INT8, INT8, INT8, INT8),
)
READ: Final = _statement(
    "read", f"SELECT version, state, {_LEFT}, mark FROM {TABLE} WHERE digest = $1 AND {_LIVES}", BYTEA
)
REVALIDATE: Final = _statement(
    "revalidate",
    f"""SELECT version, CASE WHEN version <> $2 THEN state END, {_LEFT}
        FROM {TABLE} WHERE digest = $1 AND {_LIVES}""",
    *(BYTEA, INT8),
)
WRITE: Final = _statement(
    "write",
    f"""UPDATE {TABLE} SET
            version = version + 1, state = $3, mark = $4, changed_us = {_NOW}, idle_expires_us = {_NOW} + $5,
            sweep_us = {_sweep("absolute_expires_us", "$5", "$6")}
        WHERE digest = $1 AND version = $2 AND {_LIVES}
        RETURNING version, {_LEFT}""",
    *(BYTEA, INT8, BYTEA, INT8, INT8, INT8),
)
ROTATE: Final = _statement(
    "rotate",
    f"""WITH gone AS (
            DELETE FROM {TABLE} WHERE digest = $1 AND version = $2 AND {_LIVES}
            RETURNING version, created_us, absolute_expires_us
        ), made AS (
            INSERT INTO {TABLE} (
                digest, version, created_us, changed_us, idle_expires_us, absolute_expires_us, sweep_us, mark, state
            )
            SELECT $3, version + 1, created_us, {_NOW}, {_NOW} + $6, absolute_expires_us,
                {_sweep("absolute_expires_us", "$6", "$7")}, $5, $4
            FROM gone
            RETURNING version, idle_expires_us, absolute_expires_us
        )
        SELECT version, {_LEFT}, pg_notify('{CHANNEL}', encode($1, 'hex')) FROM made""",
    *(BYTEA, INT8, BYTEA, BYTEA, INT8, INT8, INT8),
)
DELETE: Final = _statement(
    "delete",
    f"""WITH gone AS (DELETE FROM {TABLE} WHERE digest = $1 RETURNING {_LIVES} AS lived)
        SELECT lived, pg_notify('{CHANNEL}', encode($1, 'hex')) FROM gone""",
    BYTEA,
)
SWEEP: Final = _statement(
    "sweep",
    f"""WITH turn AS MATERIALIZED (SELECT pg_try_advisory_xact_lock({LOCK}, 2) AS ours), doomed AS (
            SELECT digest FROM {TABLE}, turn WHERE ours AND sweep_us <= {_NOW}
            ORDER BY sweep_us LIMIT $1 FOR UPDATE OF {TABLE} SKIP LOCKED
        ), gone AS (
            DELETE FROM {TABLE} WHERE digest IN (SELECT digest FROM doomed) RETURNING 1
        )
        SELECT ours, (SELECT count(*) FROM gone) FROM turn""",
    INT8,
)
FIND: Final = _statement(
    "find",
    f"""SELECT digest, version, octet_length(state), created_us, changed_us, idle_expires_us, absolute_expires_us
        FROM {TABLE} WHERE digest >= $1 AND (digest < $2 OR $2 = '') AND {_LIVES}
        ORDER BY changed_us DESC, digest LIMIT $3""",
    *(BYTEA, BYTEA, INT8),
)
STATS: Final = _statement(
    "stats",
    f"""SELECT count(*) FILTER (WHERE lives), count(*) FILTER (WHERE NOT lives),
            coalesce(sum(size) FILTER (WHERE lives), 0)::bigint, coalesce(max(size) FILTER (WHERE lives), 0),
            min(created_us) FILTER (WHERE lives)
        FROM (SELECT {_LIVES} AS lives, octet_length(state) AS size, created_us FROM {TABLE}) AS counted""",
)
ALL: Final = (CREATE, READ, REVALIDATE, WRITE, ROTATE, DELETE, SWEEP, FIND, STATS)
