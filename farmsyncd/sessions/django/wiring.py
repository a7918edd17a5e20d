"""The sessions that Django's settings name: opened when they are first needed, one for each process."""

from __future__ import annotations

import threading
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from farmsyncd.errors import ConfigError
from farmsyncd.sessions.configured import sessions_from
from farmsyncd.sessions.engine import Sessions

SETTING = "FARMSYNC_SESSIONS"
_CENTURY_S = 100 * 365 * 86_400.0


class Wiring:
    """Opens the sessions once. Django makes a SessionStore of a key and nothing else: hence this one for them all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: Sessions | None = None
        self._given: object = None

    def sessions(self) -> Sessions:
        """The sessions; raises ImproperlyConfigured."""
        sessions = self._sessions
        if sessions is not None:
            return sessions
        with self._lock:
            if self._sessions is None:
                self._given = getattr(settings, SETTING, None)
                self._sessions = self._open(self._given)
            return self._sessions

    @property
    def opened(self) -> bool:
        """Whether :meth:`sessions` answers at once."""
        return self._sessions is not None

    def forget(self) -> None:
        """The settings have changed, as they do in tests: close what was opened here."""
        with self._lock:
            sessions, self._sessions = self._sessions, None
            if sessions is not None and sessions is not self._given:
                sessions.close()

    def _open(self, given: object) -> Sessions:
        # Django's sessions have no end but the one that it gives them, unless an absolute one is asked for.
        defaults = {"absolute_s": _CENTURY_S}
        try:
            return sessions_from(given, SETTING, defaults=defaults, elsewhere={"idle_s": "SESSION_COOKIE_AGE"})
        except ConfigError as error:
            raise ImproperlyConfigured(str(error)) from error


wiring = Wiring()


def _changed(*, setting: str, **_rest: Any) -> None:
    if setting == SETTING:
        wiring.forget()


setting_changed.connect(_changed)
