"""Sessions for web applications: as fast as a dict where the shopper is, and never older than what they have seen.

::

    sessions = Sessions.at("postgresql://shop@db/shop")

==============  ====================================================================================================
``engine``      Sessions: open, commit, change; what an application's process has one of
``session``     Session: what the application holds during a request; ``view``, its state and the changes to it
``exchange``    one request: ``Cookie`` header, session, ``Set-Cookie`` headers; every framework's layer uses it
``copies``      what a session is: a copy that can be trusted, or what the database says
``cache``       the copies, bounded
``committing``  one conditional write, merged with what came first
``sweeping``    the thread that removes expired rows
``stores``      the databases
==============  ====================================================================================================

The layers of the frameworks are ``wsgi``, ``asgi``, ``flask``, ``django`` and ``twisted``; each imports its framework,
and nothing else here does.
"""

from farmsyncd.core.session.faults import (
    NotStorable,
    SessionClosed,
    SessionConflict,
    SessionError,
    SessionGone,
    SessionTooLarge,
    StoreUnavailable,
    WrongSchema,
)
from farmsyncd.core.session.token import Token
from farmsyncd.sessions.engine import Sessions, Statistics
from farmsyncd.sessions.session import Session
from farmsyncd.sessions.settings import CookieSettings, SessionSettings

__all__ = [
    "CookieSettings",
    "NotStorable",
    "Session",
    "SessionClosed",
    "SessionConflict",
    "SessionError",
    "SessionGone",
    "SessionSettings",
    "SessionTooLarge",
    "Sessions",
    "Statistics",
    "StoreUnavailable",
    "Token",
    "WrongSchema",
]
