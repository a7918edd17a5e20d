"""``request.session``: Django's session API over farmsync's sessions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError

from farmsyncd.core.session.cookies import Presented
from farmsyncd.core.session.encoding import decode_value
from farmsyncd.core.session.faults import DamagedState, SessionConflict, SessionGone, StoreUnavailable
from farmsyncd.core.session.token import Token, read_token
from farmsyncd.sessions.configured import lifetime
from farmsyncd.sessions.django.wiring import wiring
from farmsyncd.sessions.jsonlike import encode_as_json_would
from farmsyncd.sessions.session import Session
from farmsyncd.sessions.view import Codec

P = ParamSpec("P")
T = TypeVar("T")
UNKNOWN_VERSION = 0

_CODEC = Codec(encode_as_json_would, decode_value)
_security = logging.getLogger("django.security.SuspiciousSession")


def token_of(key: str | None) -> Token | None:
    """What a session key, or a cookie's ``KEY.VERSION``, names; of version 0 when it names none."""
    if not isinstance(key, str):
        return None
    token = read_token(key)
    if token is None and (bare := read_token(f"{key}.1")) is not None:
        token = Token(bare.id, UNKNOWN_VERSION)
    return token


class SessionStore(SessionBase):
    """Django's ``SessionBase`` as its documentation describes it. Changes inside values are noticed, too.

    A key that is not known, or no more, is never used again: what is put in gets a new one. ``presented`` is what the
    client's cookie says, ``seen`` what all of its cookies say, if the middleware has looked. ``fault`` is the last
    error of the database, or because of others' changes, that this session has raised. ``flushed`` and ``saved`` say
    whether it was, ``given_up`` whether nothing of it is stored any more.
    """

    _session_cache: Session

    def __init__(self, session_key: str | None = None) -> None:
        self._said: bool | None = None
        self.saved = False
        self.fault: Exception | None = None
        self.flushed = self.given_up = False
        self.presented = token = token_of(session_key)
        self.seen: Presented | None = None
        super().__init__(session_key if token is None else token.id)

    # -- what each of Django's stores has -------------------------------------------------------------------------

    def load(self) -> dict[str, Any]:
        """What the database has, or nothing."""
        session = self._look_up()
        if session.is_new:
            self._session_key = None
        return dict(session)

    def exists(self, session_key: str | None) -> bool:
        """Whether there is a session of this key."""
        token = token_of(session_key)
        with self._remembering():
            return token is not None and wiring.sessions().store.read(token.digest) is not None

    def create(self) -> None:
        """Store what there is, even if it is nothing, as a new session with a new key."""
        old: Session | None = getattr(self, "_session_cache", None)
        if old is None or not old.is_new:
            self._session_cache = self._new()
            self._session_cache.update(old or {})
        self._commit(self._session_cache)
        self.modified = self.saved = True

    def save(self, must_create: bool = False) -> None:
        """Store what there is.

        Raises UpdateError when the session has ended meanwhile, SessionConflict when another request changed the same
        key at the same time, SessionTooLarge, NotStorable, StoreUnavailable.
        """
        session = self._get_session(no_load=must_create)
        if session.is_new:
            self.create()
        elif must_create:
            raise CreateError("expected a session that is not stored yet, found one that is")
        else:
            session.touch()
            self._commit(session)
            self.saved = True

    def delete(self, session_key: str | None = None) -> None:
        """End the session of this key, or this one."""
        token = token_of(self.session_key if session_key is None else session_key)
        if token is not None:
            with self._remembering():
                wiring.sessions().end(token)

    @classmethod
    def clear_expired(cls) -> None:
        """Remove what has expired; a thread does so all the time besides."""
        wiring.sessions().sweep()

    def flush(self) -> None:
        """End this session; what is put in from now on is another one."""
        self.delete()
        self._session_cache = self._new()
        self._session_key = None
        self.accessed = self.modified = self.flushed = True

    def cycle_key(self) -> None:
        """Give the session a new key at once, in one transaction that ends the old one."""
        session = self._get_session()
        if session.is_new:
            self.create()
            return
        session.rotate()
        self._commit(session)
        self.modified = self.saved = True

    def change(self, function: Callable[[SessionStore], object]) -> None:
        """Call ``function`` with this session and save; when another request came first, again with what that left.

        What was changed before is saved first. Raises what :meth:`save` does.
        """
        session = self._get_session()
        self._choose_life(session)
        with self._remembering():
            session.change(lambda _session: function(self))
        if not session.is_new:
            self._session_key = session.id
            self.modified = self.saved = True

    def clear(self) -> None:
        """Remove all values; the session stays."""
        self._get_session().clear()
        self.modified = True

    def is_empty(self) -> bool:
        """Whether there is neither a key nor a value.

        Where each request saves its session, it is looked up first: a key that nobody issued is to leave no row.
        """
        if settings.SESSION_SAVE_EVERY_REQUEST and self.session_key is not None:
            self._get_session()
        return super().is_empty()

    # -- the same for coroutines: what this process knows at once, the database in a thread -----------------------

    async def aload(self) -> dict[str, Any]:
        """See :meth:`load`."""
        return await _in_thread(self.load)()

    async def aexists(self, session_key: str | None) -> bool:
        """See :meth:`exists`."""
        return await _in_thread(self.exists)(session_key)

    async def acreate(self) -> None:
        """See :meth:`create`."""
        await _in_thread(self.create)()

    async def asave(self, must_create: bool = False) -> None:
        """See :meth:`save`."""
        await _in_thread(self.save)(must_create)

    async def adelete(self, session_key: str | None = None) -> None:
        """See :meth:`delete`."""
        await _in_thread(self.delete)(session_key)

    async def aflush(self) -> None:
        """See :meth:`flush`."""
        await _in_thread(self.flush)()

    async def acycle_key(self) -> None:
        """See :meth:`cycle_key`."""
        await _in_thread(self.cycle_key)()

    async def achange(self, function: Callable[[SessionStore], object]) -> None:
        """See :meth:`change`; ``function`` is called in a thread."""
        await _in_thread(self.change)(function)

    @classmethod
    async def aclear_expired(cls) -> None:
        """See :meth:`clear_expired`."""
        await _in_thread(cls.clear_expired)()

    # -- what has changed -----------------------------------------------------------------------------------------

    def __setitem__(self, key: str, value: Any) -> None:
        self._get_session()[_text(key)] = value
        self.modified = True

    async def aset(self, key: str, value: Any) -> None:
        """As ``session[key] = value``."""
        (await self._aget_session())[_text(key)] = value
        self.modified = True

    @property
    def modified(self) -> bool:
        """Whether something has changed; may be set to say that it has, or that what has is to be left alone."""
        if self._said is not None:
            return self._said
        session: Session | None = getattr(self, "_session_cache", None)
        return session is not None and session.modified

    @modified.setter
    def modified(self, value: bool) -> None:
        if value or self.modified:  # SessionBase says False also of what has not changed yet
            self._said = value
            self.saved = False

    @property
    def unsaved(self) -> bool:
        """Whether something has changed since it was saved."""
        return self.modified and (not self.saved or self._session_cache.modified)

    # -- farmsync's session below ---------------------------------------------------------------------------------

    @property
    def session(self) -> Session | None:
        """Farmsync's session, if it has been looked up."""
        return getattr(self, "_session_cache", None)

    def _get_session(self, no_load: bool = False) -> Session:
        self.accessed = True
        if not hasattr(self, "_session_cache"):
            self._begin(self._new() if no_load else self._look_up())
        return self._session_cache

    _session = property(_get_session)

    async def _aget_session(self, no_load: bool = False) -> Session:
        if not no_load and not hasattr(self, "_session_cache"):
            token = self._token()
            if token is not None and not _is_known(token):
                return await _in_thread(self._get_session)()
        return self._get_session(no_load)

    def _begin(self, session: Session) -> None:
        self._session_cache = session
        if session.is_new:
            self._session_key = None

    def _token(self) -> Token | None:
        key, presented = self.session_key, self.presented
        return presented if presented is not None and presented.id == key else token_of(key)

    def _new(self) -> Session:
        return Session(wiring.sessions(), lambda: (None, None), _CODEC)

    def _look_up(self) -> Session:
        sessions, token = wiring.sessions(), self._token()
        session = Session(sessions, lambda: sessions.find(token, versioned=_says_version(token)), _CODEC)
        with self._remembering():
            try:
                session.view.parts()
            except DamagedState as error:
                _security.warning("Session data corrupted: %s", error)
                return self._new()
        return session

    def _choose_life(self, session: Session) -> None:
        session.life = lifetime(self.get_expiry_age(), wiring.sessions().settings.absolute_s)

    def _commit(self, session: Session) -> None:
        self._choose_life(session)
        with self._remembering():
            wiring.sessions().commit(session, even_empty=True)
        self._session_key = session.id

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            yield
        except SessionGone as error:
            self.fault = error
            raise UpdateError(str(error)) from error
        except (SessionConflict, StoreUnavailable) as error:
            self.fault = error
            raise


def _says_version(token: Token | None) -> bool:
    return token is not None and token.version != UNKNOWN_VERSION


def _is_known(token: Token) -> bool:
    return wiring.opened and wiring.sessions().find_cached(token, versioned=_says_version(token)) is not None


def _text(key: str) -> str:
    return str.__str__(key) if isinstance(key, str) else key


def _in_thread(function: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    return sync_to_async(function, thread_sensitive=False)
