"""Opens the sessions' database. One that is away is no reason not to start: it is asked again until it is there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final, cast

import attrs
from twisted.logger import Logger

from farmsyncd.core.session.faults import StoreUnavailable
from farmsyncd.errors import FarmsyncError
from farmsyncd.node.application.loading import Application
from farmsyncd.sessions.engine import Sessions
from farmsyncd.sessions.settings import CookieSettings, SessionSettings
from farmsyncd.sessions.stores.base import Store
from farmsyncd.sessions.stores.url import open_store
from farmsyncd.sessions.wsgi import SessionMiddleware

_AGAIN_S: Final = 1.0


@attrs.frozen
class Opened:
    """The node's sessions."""

    sessions: Sessions
    store: Preparing

    @property
    def why_not(self) -> str | None:
        """Why sessions could not be used when the database was last needed; None when they could."""
        return self.store.why_not or self.sessions.away

    def around(self, application: Application, cookies: CookieSettings) -> Application:
        """The application with ``environ["farmsync.session"]``."""
        return SessionMiddleware(application, self.sessions, cookies)

    def close(self) -> None:
        """Give back what the database was asked with."""
        self.sessions.close()


def opened(url: str, settings: SessionSettings) -> Opened:
    """The sessions in the database at ``url``. Raises ConfigError: not a URL that can be used, or another schema."""
    store = Preparing(open_store(url))
    try:
        store.prepare_again()
    except StoreUnavailable as error:
        store.log.warn("sessions answer 503 until their database is there: {error}", error=str(error))
    except FarmsyncError:
        store.close()
        raise
    return Opened(Sessions(cast("Store", store), settings), store)


class Preparing:
    """A store whose tables are looked at, and made, before it is first used; until then it raises StoreUnavailable.

    Each use tries, in its own thread, but no more than one at a time and not more often than each second.
    """

    log = Logger()

    def __init__(self, store: Store, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._next_s = 0.0
        self._why: FarmsyncError | None = None
        self._told: str | None = None

    @property
    def why_not(self) -> str | None:
        """Why sessions cannot be used yet; None when they can."""
        return None if self._why is None else str(self._why)

    def prepare_again(self) -> None:
        """Look at the tables now. Raises StoreUnavailable and WrongSchema."""
        try:
            self._store.prepare()
        except FarmsyncError as error:
            self._next_s = self._monotonic() + _AGAIN_S
            self._why = error
            raise
        if self._why is not None:
            self.log.info("the sessions' database is there")
        self._why = None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if self._why is None or name in {"close", "listen"}:
            # From now on nothing is in between.
            self.__dict__[name] = method
            return method
        if name == "generation":
            return lambda: None
        return self._prepared(method)

    def _prepared(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def prepared(*arguments: Any) -> Any:
            why = self._why
            if why is not None:
                if self._monotonic() < self._next_s or not self._lock.acquire(blocking=False):
                    raise StoreUnavailable(str(why))
                try:
                    self.prepare_again()
                except StoreUnavailable:
                    raise
                except FarmsyncError as error:
                    self._say(str(error))
                    raise StoreUnavailable(str(error)) from error
                finally:
                    self._lock.release()
            return method(*arguments)

        return prepared

    def _say(self, why: str) -> None:
        if self._told != why:
            self._told = why
            self.log.error("the sessions' database cannot be used: {why}", why=why)
