"""What can happen to a statement, and what each SQLSTATE asks for."""

from __future__ import annotations

from typing import Final

UNDEFINED: Final = frozenset({"42P01", "42703"})  # no such table, no such column
DIFFERENT: Final = UNDEFINED | {"42804", "42883", "42P10"}  # columns of other types, no such key
UNIQUE: Final = "23505"
NOT_ALLOWED: Final = frozenset({"42501", "3F000"})  # no right to create tables, or no schema to create them in
GONE: Final = frozenset({"57P01", "57P02", "57P03", "57P05", "08000", "08003", "08006", "08P01"})
FRESH: Final = UNDEFINED | {"0A000", "25006", "26000"}  # tables changed, a server that only reads now, not prepared
AGAIN: Final = frozenset({"40001", "40P01"})  # could not serialize, deadlock: nothing was done


class Trouble(Exception):
    """Base of what follows: a statement has no answer."""


class Lost(Trouble):
    """The connection broke; if it was a write, it may have been done or not."""


class Late(Trouble):
    """No answer came in time; the connection is of no use any more, and the write may be done or not, or later."""


class Refused(Trouble):
    """The server refused the statement, and did nothing of it."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(f"{message} ({sqlstate})")
        self.sqlstate = sqlstate
