"""What sessions are measured beside: Flask-Session on Redis, and Django's ``cached_db`` on PostgreSQL and Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import django
import flask
from django.conf import settings
from flask_session.redis import RedisSessionInterface
from redis import Redis as RedisClient

State = dict[str, Any]


class FlaskSession:
    """A Flask application whose sessions are Flask-Session's, in a Redis on loopback."""

    def __init__(self, port: int) -> None:
        self._client = RedisClient(port=port)
        self._app = flask.Flask("bench")
        self._app.config["SECRET_KEY"] = "bench"
        self._interface = RedisSessionInterface(self._app, self._client)
        self._app.session_interface = self._interface

    def hit(self, state: State, key: str) -> Callable[[], object]:
        """What opens a stored session by its cookie and reads ``key``."""
        with self._app.test_request_context():
            stored = self._interface.session_class(state, sid="a" * 43, permanent=True)
            stored.modified = True
            self._interface.save_session(self._app, stored, flask.Response())
        request = cookie_request(self._app, f"{self._app.config['SESSION_COOKIE_NAME']}={'a' * 43}")

        def read() -> object:
            return self._interface.open_session(self._app, request)[key]

        return read

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()


def cookie_request(app: flask.Flask, cookie: str) -> flask.Request:
    """A request that carries this ``Cookie`` header; its cookies are parsed already, which counts for nobody."""
    request = app.request_class(app.test_request_context(headers={"Cookie": cookie}).request.environ)
    assert request.cookies
    return request


def configure_django(postgres: str, redis_port: int, ours: dict[str, Any]) -> None:
    """Set Django up once for this process: its sessions' table in ``postgres``, its cache in Redis, and ``ours``."""
    parts = urlsplit(postgres)
    host = parts.hostname or parse_qs(parts.query).get("host", [""])[0]
    settings.configure(
        INSTALLED_APPS=["django.contrib.sessions"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql", "NAME": parts.path.lstrip("/"), "HOST": host,
                "USER": parts.username or "postgres", "PASSWORD": parts.password or "",
                "PORT": str(parts.port or ""), "CONN_MAX_AGE": None,
            }
        },
        CACHES={
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": f"redis://127.0.0.1:{redis_port}",
            }
        },
        SESSION_SERIALIZER="django.contrib.sessions.serializers.JSONSerializer",
        SECRET_KEY="bench",
        FARMSYNC_SESSIONS=ours,
    )  # fmt: skip
    django.setup()


@contextmanager
def django_table() -> Iterator[None]:
    """Django's own table of sessions, as long as the block lasts."""
    from django.core.management import call_command  # noqa: PLC0415 - needs the settings
    from django.db import connection  # noqa: PLC0415

    call_command("migrate", "sessions", verbosity=0)
    try:
        yield
    finally:
        connection.close()
