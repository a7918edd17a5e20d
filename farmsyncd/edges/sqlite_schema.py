"""The tables of the SQLite catalog, and how an older catalog becomes one of today.

``PRAGMA user_version`` holds the number of migrations that a catalog has been through. Each migration is a list of
statements that run in one transaction, so that a crash in the middle leaves the catalog as it was.
"""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x6661726D  # "farm"

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE datasets (
            name TEXT PRIMARY KEY, revision INTEGER NOT NULL, last_cycle INTEGER NOT NULL,
            active_cycle INTEGER, pending_cycle INTEGER
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE cycles (
            dataset TEXT NOT NULL, number INTEGER NOT NULL, version TEXT NOT NULL,
            activates_at_ns INTEGER NOT NULL, freezes_at_ns INTEGER NOT NULL, outcome TEXT NOT NULL,
            origin TEXT NOT NULL, asked_by TEXT NOT NULL, asked_at_ns INTEGER NOT NULL,
            rolled_over_at_ns INTEGER, rolled_over_by TEXT,
            PRIMARY KEY (dataset, number)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE versions (
            dataset TEXT NOT NULL, version TEXT NOT NULL, published_at_ns INTEGER NOT NULL,
            files INTEGER NOT NULL, total_bytes INTEGER NOT NULL,
            PRIMARY KEY (dataset, version)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE nodes (
            name TEXT NOT NULL, dataset TEXT NOT NULL, state TEXT NOT NULL, cycle INTEGER, version TEXT,
            staged_cycle INTEGER, staged_version TEXT, offset_ns INTEGER, error_bound_ns INTEGER,
            detail TEXT NOT NULL, serve TEXT, last_seen_ns INTEGER NOT NULL,
            PRIMARY KEY (name, dataset)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE expected (
            dataset TEXT NOT NULL, cycle INTEGER NOT NULL, node TEXT NOT NULL,
            PRIMARY KEY (dataset, cycle, node)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE flips (
            dataset TEXT NOT NULL, cycle INTEGER NOT NULL, node TEXT NOT NULL, version TEXT NOT NULL,
            activated_at_ns INTEGER NOT NULL, error_bound_ns INTEGER NOT NULL, detail TEXT NOT NULL,
            PRIMARY KEY (dataset, cycle, node)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE pins (
            node TEXT NOT NULL, dataset TEXT NOT NULL, version TEXT NOT NULL,
            PRIMARY KEY (node, dataset, version)
        ) STRICT, WITHOUT ROWID""",
    ),
)
