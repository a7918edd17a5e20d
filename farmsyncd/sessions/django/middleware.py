"""Django's session middleware with the session's version in the cookie, and a clear answer when it cannot be stored."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Literal, cast

import attrs
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.middleware import SessionMiddleware as DjangosMiddleware
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_vary_headers

from farmsyncd.core.session.cookies import (
    NOTHING,
    Change,
    Presented,
    changes_to_end,
    changes_to_show,
    marker_change,
    presented,
)
from farmsyncd.core.session.faults import SessionConflict, SessionError, SessionGone, StoreUnavailable
from farmsyncd.core.session.token import Token
from farmsyncd.errors import FarmsyncError
from farmsyncd.sessions.django.store import UNKNOWN_VERSION, SessionStore, token_of
from farmsyncd.sessions.django.wiring import wiring
from farmsyncd.sessions.exchange import answer_for

if TYPE_CHECKING:
    from django.http.response import HttpResponseBase

_FAILED = 500
_ANSWERED = (UpdateError, SessionConflict, SessionGone, StoreUnavailable)


@attrs.frozen
class _Name:
    """The cookie under exactly the name that Django's settings say, however the request came."""

    name: str
    path: str = "/"
    domain: str | None = None
    secure: bool | None = False
    same_site: Literal["Lax", "Strict", "None"] = "Lax"


class SessionMiddleware(DjangosMiddleware):
    """Takes the place of Django's own; Django's ``SESSION_*`` settings mean the same.

    What cannot be read or stored is answered before the response begins: 409 when another request changed the session
    at the same time or ended it, 503 when the database is away. A session that holds what cannot be kept, or too much,
    is an error of the application's, and answered as Django answers those.
    """

    def process_request(self, request: HttpRequest) -> None:
        """Give the request its session; it is looked up when it is first used."""
        session = self.SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
        if not isinstance(session, SessionStore):
            raise ImproperlyConfigured(
                "expected SESSION_ENGINE to be 'farmsyncd.sessions.django' with this middleware, "
                f"found {settings.SESSION_ENGINE!r}"
            )
        session.seen = seen = _presented(request, session.presented)
        if seen.token is not None:
            session.presented = seen.token
        request.session = session

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """What is answered when a view lets an error of its session escape."""
        session = getattr(request, "session", None)
        if not isinstance(session, SessionStore) or not isinstance(exception, _ANSWERED):
            return None
        session.given_up = True
        return _answer(exception)

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Store the session if it has changed, and tell the client what it has to know."""
        session = getattr(request, "session", None)
        if not isinstance(session, SessionStore):
            return super().process_response(request, response)
        try:
            if not session.given_up:
                _store(session, response)
        except _ANSWERED as error:
            response = _in_place_of(response, _answer(error))
        finally:
            session.given_up = True
            if session.session is not None:
                session.session.close()
        _tell(request, session, response)
        return response

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        """As in MiddlewareMixin; only what asks the database gets a thread."""
        self.process_request(request)
        response = await cast("Awaitable[HttpResponse]", self.get_response(request))
        if _asks(request):
            return await sync_to_async(self.process_response, thread_sensitive=False)(request, response)
        return self.process_response(request, response)


def _presented(request: HttpRequest, token: Token | None) -> Presented:
    """What the request's cookies say; ``token`` is what the session's own cookie does."""
    name = settings.SESSION_COOKIE_NAME
    if any(key.startswith(name) and key != name for key in request.COOKIES):
        own = "; ".join(f"{key}={value}" for key, value in request.COOKIES.items() if key.startswith(name))
        return presented(own, _Name(name), False)
    return NOTHING if token is None or token.version == UNKNOWN_VERSION else Presented(token)


def _asks(request: HttpRequest) -> bool:
    session = getattr(request, "session", None)
    try:
        return settings.SESSION_SAVE_EVERY_REQUEST or (isinstance(session, SessionStore) and session.unsaved)
    except SessionError:
        return False  # storing says what is wrong


def _store(session: SessionStore, response: HttpResponse) -> None:
    if response.status_code >= _FAILED:
        if session.fault is not None:
            raise session.fault  # of which a layer between has made a page that says 500
        return
    every = settings.SESSION_SAVE_EVERY_REQUEST and not session.saved
    if (every or session.unsaved) and not session.is_empty():
        session.save()


def _tell(request: HttpRequest, session: SessionStore, response: HttpResponse) -> None:
    changes = _changes(request, session)
    name, path, domain = settings.SESSION_COOKIE_NAME, settings.SESSION_COOKIE_PATH, settings.SESSION_COOKIE_DOMAIN
    for change in changes:
        if change.value:
            response.set_cookie(
                name + change.suffix,
                change.value,
                max_age=change.life_s,
                domain=domain,
                path=path,
                secure=settings.SESSION_COOKIE_SECURE,
                httponly=settings.SESSION_COOKIE_HTTPONLY,
                samesite=settings.SESSION_COOKIE_SAMESITE,
            )
        else:
            response.delete_cookie(name + change.suffix, path, domain, settings.SESSION_COOKIE_SAMESITE)
    if session.accessed:
        patch_vary_headers(response, ("Cookie",))
    if changes:
        response.headers.setdefault("Cache-Control", 'no-cache="Set-Cookie"')


def _changes(request: HttpRequest, session: SessionStore) -> list[Change]:
    """What becomes of the client's cookies."""
    shown = session.session
    if shown is None:
        return []
    said = token_of(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    seen = _presented(request, said) if session.seen is None else session.seen
    if shown.is_new:
        there = settings.SESSION_COOKIE_NAME in request.COOKIES
        return changes_to_end() if session.flushed and there else []
    if not shown.own_writes and seen.token is not None and shown.version <= seen.token.version:
        return []  # most responses
    token = Token(shown.id, shown.version)
    life_s = None if session.get_expire_at_browser_close() else max(0, session.get_expiry_age())
    marker_s = wiring.sessions().marker_life_s()
    if seen.token is not None or said is None or said.id != token.id:
        return changes_to_show(seen, token, own_writes=shown.own_writes, life_s=life_s, marker_s=marker_s)
    # Django's own middleware, or a test's client, has set a cookie that says no version.
    changes = [Change("", token.spell(), life_s)]
    return changes if marker_s is None else [*changes, marker_change(token, marker_s)]


def _answer(error: Exception) -> HttpResponse:
    status, headers, body = answer_for(error if isinstance(error, FarmsyncError) else SessionGone())
    return HttpResponse(body, status=status, headers=dict(headers))


def _in_place_of(response: HttpResponse, other: HttpResponse) -> HttpResponse:
    """What ends with the one response ends with the other."""
    closers = cast("Any", response)._resource_closers  # noqa: SLF001
    cast("Any", other)._resource_closers.extend(closers)  # noqa: SLF001
    closers.clear()
    return other
