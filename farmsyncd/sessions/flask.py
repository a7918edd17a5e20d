"""Flask's sessions, kept by farmsync: ``flask.session`` as Flask documents it, and what farmsync adds to it.

::

    app.config["FARMSYNC_SESSIONS"] = "postgresql://shop@db/shop"
    FarmsyncSessions(app)

The session is stored when Flask saves it, before the response's first byte. When it cannot be stored, the response is
what the application's error handlers make of that; without one, 409 when another request changed the same key, 503 when
the database is away. A response of status 500 and above, and an exception, leave the session as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast

import flask
from flask.sessions import NullSession, SessionInterface, SessionMixin
from markupsafe import Markup
from werkzeug.exceptions import default_exceptions

from farmsyncd.core.session.encoding import Encoded, decode_value
from farmsyncd.core.session.faults import SessionConflict, SessionGone, StoreUnavailable
from farmsyncd.errors import ConfigError, FarmsyncError
from farmsyncd.sessions.configured import lifetime, sessions_from
from farmsyncd.sessions.engine import Sessions
from farmsyncd.sessions.exchange import Exchange, answer_for
from farmsyncd.sessions.jsonlike import encode_as_json_would
from farmsyncd.sessions.session import Opened, Session
from farmsyncd.sessions.settings import CookieSettings
from farmsyncd.sessions.view import Codec

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue
    from flask.wrappers import Request, Response

SETTING = "FARMSYNC_SESSIONS"
_FAILED = 500  # from this status on nothing is stored
_ANSWERED = (SessionConflict, SessionGone, StoreUnavailable)

# Flask's own sessions bring Markup back as Markup. It travels as what no document from outside can contain.
_MARKUP = "\x00Markup"
_MARKUP_ENCODED = _MARKUP.encode()
_CONTAINERS = frozenset((list, dict, tuple, set, frozenset))


class FarmsyncSession(Session, SessionMixin):
    """``flask.session``: Flask's ``permanent``, ``new``, ``modified`` and ``accessed``, and all of farmsync's Session.

    Changes inside values are noticed. ``modified`` set to True stores the session although nothing has changed; set to
    False, it leaves what is stored as it is, until something is set again.
    """

    exchange: Exchange
    permanent_s: float
    absolute_s: float

    def __init__(self, sessions: Sessions, opening: Callable[[], Opened]) -> None:
        super().__init__(sessions, opening, _CODEC)
        self.left_alone = False

    def __setitem__(self, key: str, value: Any) -> None:
        self.left_alone = False
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self.left_alone = False
        super().__delitem__(key)

    @property
    def new(self) -> bool:  # type: ignore[override]
        """Whether it is not stored yet."""
        return self.is_new

    @property
    def accessed(self) -> bool:
        """Whether the request looked at the session; Flask sets it when ``flask.session`` is used."""
        return super().accessed

    @accessed.setter
    def accessed(self, value: bool) -> None:
        self._accessed = value

    @property
    def modified(self) -> bool:
        """Whether there is something to store."""
        return not self.left_alone and super().modified

    @modified.setter
    def modified(self, value: bool) -> None:
        self.left_alone = not value
        if value:
            self.touch()

    def commit(self) -> None:
        """Store the changes now; see Session.commit."""
        self.settle()
        super().commit()

    def settle(self) -> None:
        """Before it is stored: a permanent session lives as long as Flask says, and one that was emptied ends."""
        if not self.opened:
            return
        self.exchange.permanent = permanent = self.permanent
        self.life = lifetime(self.permanent_s, self.absolute_s) if permanent else None
        if self.modified and not self and not self.is_new:
            self.destroy()


class _NoSession(NullSession):
    def _fail(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise RuntimeError(
            f"expected a database of sessions, and none was named: set {SETTING}, or FarmsyncSessions(app, sessions)"
        )

    __setitem__ = __delitem__ = clear = pop = popitem = update = setdefault = _fail


class FarmsyncSessionInterface(SessionInterface):
    """What Flask opens and saves sessions by; with ``sessions`` None, Flask's null sessions, which cannot be changed.

    The cookie is as Flask's ``SESSION_COOKIE_*`` settings say, except that it is always ``HttpOnly``, is ``Secure`` for
    each request over TLS (``SESSION_COOKIE_SECURE``: for others too), and ``SameSite=Lax`` where nothing is said.
    """

    null_session_class = _NoSession

    def __init__(self, sessions: Sessions | None = None) -> None:
        self.sessions = sessions
        self._cookies: dict[tuple[object, ...], CookieSettings] = {}

    def cookies(self, app: flask.Flask) -> CookieSettings:
        """What the application's settings say of the cookie; raises ConfigError."""
        chosen = (
            self.get_cookie_name(app),
            self.get_cookie_path(app),
            self.get_cookie_domain(app) or None,
            self.get_cookie_secure(app) or None,
            (self.get_cookie_samesite(app) or "Lax").title(),
        )
        known = self._cookies.get(chosen)
        if known is None:
            known = self._cookies[chosen] = _cookie_settings(*chosen)
        return known

    def open_session(self, app: flask.Flask, request: Request) -> FarmsyncSession | None:
        """The request's session; it is looked up when it is first used."""
        sessions = self.sessions
        if sessions is None:
            return None
        cookie = request.headers.get("Cookie")
        exchange = Exchange(sessions, self.cookies(app), cookie, request.is_secure, FarmsyncSession)
        session = cast("FarmsyncSession", exchange.session)
        session.exchange = exchange
        session.permanent_s = app.permanent_session_lifetime.total_seconds()
        session.absolute_s = sessions.settings.absolute_s
        return session

    def should_set_cookie(self, app: flask.Flask, session: SessionMixin) -> bool:  # noqa: ARG002
        """Whether this response may store the session and set its cookie; a subclass may say no for some.

        The cookie is set whenever the client is shown a state that it has not seen. That of a permanent session is
        renewed after a tenth of its life; ``SESSION_REFRESH_EACH_REQUEST`` is not needed.
        """
        return True

    def save_session(self, app: flask.Flask, session: SessionMixin, response: Response) -> None:
        """Store the session and tell the client what it has to know, or make ``response`` another one."""
        assert isinstance(session, FarmsyncSession), "expected the session that this interface has opened"
        allowed, told = self.should_set_cookie(app, session), None
        try:
            if allowed and not (session.closed or session.left_alone) and response.status_code < _FAILED:
                session.settle()
                told = session.exchange.finish(response.status_code)
        except _ANSWERED as error:
            if flask.session._get_current_object() is not session:  # type: ignore[attr-defined]  # noqa: SLF001
                raise  # a test client's session_transaction has no response
            _replace(app, response, error)
        finally:
            session.close()
        if told is None:
            told = session.exchange.set_cookies() if allowed else []
        self._tell(app, session, response, told)

    def _tell(self, app: flask.Flask, session: SessionMixin, response: Response, set_cookies: list[str]) -> None:
        if session.accessed:
            response.vary.add("Cookie")
        partitioned = "; Partitioned" if self.get_cookie_partitioned(app) else ""
        for value in set_cookies:
            response.headers.add("Set-Cookie", value + partitioned)
            response.headers.setdefault("Cache-Control", 'no-cache="Set-Cookie"')


def _cookie_settings(name: str, path: str, domain: str | None, secure: bool | None, same_site: str) -> CookieSettings:
    if same_site not in ("Lax", "Strict", "None"):
        raise ConfigError(f"expected SESSION_COOKIE_SAMESITE to be Lax, Strict or None, found {same_site!r}")
    kind = cast("Literal['Lax', 'Strict', 'None']", same_site)
    return CookieSettings(name=name, path=path, domain=domain, secure=secure, same_site=kind)


class FarmsyncSessions:
    """The extension: gives an application sessions, ``sessions`` or those that ``FARMSYNC_SESSIONS`` names.

    That is the URL of a database, or a table with its ``url`` and any of SessionSettings. They are then to be found as
    ``app.extensions["farmsync_sessions"]``. Raises ConfigError, WrongSchema.
    """

    def __init__(self, app: flask.Flask | None = None, sessions: Sessions | None = None) -> None:
        self._sessions = sessions
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask) -> None:
        """Give this application its sessions."""
        given = app.config.get(SETTING) if self._sessions is None else self._sessions
        interface = FarmsyncSessionInterface()
        interface.cookies(app)
        interface.sessions = app.extensions["farmsync_sessions"] = sessions_from(given, SETTING)
        app.session_interface = interface
        for kind in _ANSWERED:
            app.register_error_handler(kind, answer)


def answer(error: Exception) -> ResponseReturnValue:
    """What is answered when a session cannot be read or stored: a handler of errors that an application may replace.

    It goes through the application's handlers of 409 and 503, if there are some.
    """
    session = flask.session._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
    if isinstance(session, Session):
        session.close()  # nothing of this request is stored
    assert isinstance(error, FarmsyncError)
    status, headers, body = answer_for(error)
    plain = flask.Response(body, status, headers)
    return flask.current_app.handle_http_exception(
        default_exceptions[status](description=body.decode().strip(), response=plain)
    )


def _replace(app: flask.Flask, response: Response, error: FarmsyncError) -> None:
    """Make the application's response the one that says what went wrong; called while ``error`` is handled."""
    try:
        other = app.make_response(app.handle_user_exception(error))
    except type(error):
        other = app.make_response(answer(error))
    close = getattr(response.response, "close", None)
    if close is not None:
        close()
    response.status, response.headers, response.response = other.status, other.headers, other.response
    response.direct_passthrough = other.direct_passthrough
    response.call_on_close(other.close)


def _encode(value: object, where: str) -> bytes:
    return encode_as_json_would(value, where, _dress)


def _dress(text: str) -> object:
    plain = str.__str__(text)
    return frozenset({(_MARKUP, plain)}) if isinstance(text, Markup) else plain


def _decode(raw: Encoded) -> Any:
    value = decode_value(raw)
    return _undress(value) if type(value) in _CONTAINERS and _MARKUP_ENCODED in bytes(raw) else value


def _undress(value: Any) -> Any:
    if isinstance(value, frozenset) and len(value) == 1:
        match tuple(value):
            case ((str(name), str(text)),) if name == _MARKUP:
                return Markup(text)  # noqa: S704  it was Markup when it was stored
    if isinstance(value, dict):
        return {key: _undress(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)([_undress(one) for one in value])
    return value


_CODEC = Codec(_encode, _decode)
