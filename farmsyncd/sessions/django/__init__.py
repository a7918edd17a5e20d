"""Django's sessions, kept by farmsync.

::

    SESSION_ENGINE = "farmsyncd.sessions.django"
    FARMSYNC_SESSIONS = "postgresql://shop@db/shop"

and in ``MIDDLEWARE``, in the place of Django's own, ``farmsyncd.sessions.django.middleware.SessionMiddleware``: it
carries the session's version in the cookie, so that a request needs no look at the database. With Django's own
middleware sessions are as correct, and ask the database each time.
"""

from farmsyncd.sessions.django.store import SessionStore

__all__ = ["SessionStore"]
