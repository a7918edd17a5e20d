"""A small Django site for tests: settings, views, and a database in memory for its users. Imported before Django is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import django
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.conf import settings
from django.db import connections
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

OURS = "farmsyncd.sessions.django.middleware.SessionMiddleware"
DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"


def middleware(sessions: str) -> list[str]:
    """The site's middleware, with one of the two for sessions."""
    return [
        sessions,
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ]


settings.configure(
    SECRET_KEY="for tests alone",
    USE_TZ=True,
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF="tests.django_site",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
    ],
    MIDDLEWARE=middleware(OURS),
    SESSION_ENGINE="farmsyncd.sessions.django",
    MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": "file:farmsync_django_site?mode=memory&cache=shared",
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    LOGGING_CONFIG=None,
)
django.setup()

T = TypeVar("T")
View = Callable[[HttpRequest], Any]
VIEWS: dict[str, View] = {}  # what a test wants a path to do


def view(request: HttpRequest, name: str) -> Any:
    """Do what the test has said, and show the session when it says nothing to show."""
    answer = VIEWS[name](request)
    return answer if answer is not None else JsonResponse(dict(request.session.items()))


async def aview(request: HttpRequest, name: str) -> Any:
    """The same for a coroutine."""
    answer = await VIEWS[name](request)
    return answer if answer is not None else HttpResponse("done")


def pieces(*texts: str) -> StreamingHttpResponse:
    """A response of several pieces."""

    def run() -> Iterator[str]:
        yield from texts

    return StreamingHttpResponse(run())


def shown(response: Any) -> dict[str, Any]:
    """The session that a response shows."""
    found: dict[str, Any] = json.loads(response.content)
    return found


def in_a_loop(function: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What the coroutine returns; its threads have ended then, and their connections are closed."""

    async def main() -> T:
        async with ThreadSensitiveContext():
            try:
                return await function()
            finally:
                await sync_to_async(connections.close_all)()

    return asyncio.run(main())


urlpatterns = [path("a/<str:name>", aview), path("<str:name>", view)]
