"""What can be configured about a node: the ``[node]`` table of its file, and its command line's options."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import attrs

from farmsyncd.core import naming
from farmsyncd.core.skew import Skew, parse_skew
from farmsyncd.edges import endpointcheck
from farmsyncd.edges.config import setting, table
from farmsyncd.edges.settings import (
    DURATION,
    HOST_PORT,
    INTEGER,
    NAME,
    PATH,
    RATE,
    SIZE,
    TEXT,
    Fault,
    Faults,
    Kind,
    bounded,
    choice,
    listing,
)  # fmt: skip
from farmsyncd.errors import ConfigError
from farmsyncd.node.application.loading import read_name
from farmsyncd.sessions.settings import CookieSettings, SessionSettings


def _skew(value: object) -> Skew:
    if not isinstance(value, str) or not value:
        raise ValueError
    return parse_skew(value)


def _sessions(value: object) -> str:
    if not isinstance(value, str) or not value.startswith(_DATABASES):
        # The value is not shown: there may be a password in it.
        raise Faults(
            [Fault((), "expected the URL of a database, sqlite:///FILE or postgresql://..., found another text")]
        )
    return value


_DATABASES = ("sqlite:", "postgresql:", "postgres:")
APPLICATION: Kind[str] = Kind('the name of a WSGI application, such as "shop:application"', read_name)
SESSIONS: Kind[str] = Kind("the URL of a database", _sessions)
SKEW: Kind[Skew] = Kind('seconds, and parts per million after a comma, such as "3600,-200"', _skew)


@attrs.frozen
class StagingConfig:
    """``[node.staging]``: how much bringing versions in may ask of this machine and its network."""

    at_once: int = setting(bounded(INTEGER, 1), "datasets that are staged at the same time", default=2)
    rate_bytes: int | None = setting(bounded(RATE, "64KiB"), "all staging of this node together", default=None)
    spread_ns: int = setting(DURATION, "nodes begin to stage at random within this time", default="500ms")


@attrs.frozen
class HooksConfig:
    """``[node.hooks]``: what is told of each flip, once it is done.

    The command finds FARMSYNC_DATASET, FARMSYNC_VERSION, FARMSYNC_CYCLE and FARMSYNC_PATH in its environment; the URL
    is posted the same as JSON.
    """

    command: tuple[str, ...] = setting(listing(TEXT), "a program and its arguments", default=[])
    url: str | None = setting(TEXT, "an http or https address", default=None)
    timeout_ns: int = setting(bounded(DURATION, "100ms"), "a hook that takes longer is ended", default="10s")

    def __attrs_post_init__(self) -> None:
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"expected an http or https address, found {self.url!r}")


@attrs.frozen
class ApplicationConfig:
    """``[node.application]``: how the WSGI application is run."""

    threads: int = setting(bounded(INTEGER, 1, 1000), "requests that are in work at the same time", default=8)
    queue: int = setting(bounded(INTEGER, 0), "requests that may wait; more are answered with 503", default=128)
    body_limit_bytes: int = setting(SIZE, "the largest body of a request; more is answered with 413", default="10MiB")
    body_in_memory_bytes: int = setting(
        bounded(SIZE, 1), "larger bodies of requests are kept in a temporary file", default="256KiB"
    )
    client_timeout_ns: int = setting(
        bounded(DURATION, "1s"), "a client that takes nothing of its answer for so long is cut off", default="60s"
    )
    stop_limit_ns: int = setting(DURATION, "a node that is stopped gives requests so long to end", default="10s")


@attrs.frozen
class SessionConfig:
    """``[node.session]``: the application's sessions and their cookie."""

    idle_ns: int = setting(bounded(DURATION, "1s"), "a session ends after so long without a request", default="14d")
    absolute_ns: int = setting(bounded(DURATION, "1s"), "a session ends so long after its begin", default="90d")
    revalidate_after_ns: int = setting(
        DURATION, "a session in the node's memory is used for so long without asking the database", default="5s"
    )
    cache_bytes: int = setting(SIZE, "the node's memory for sessions", default="64MiB")
    cache_entries: int = setting(bounded(INTEGER, 0), "how many sessions are kept in it", default=100_000)
    warn_bytes: int = setting(bounded(SIZE, 1), "a larger session is told in the log", default="16KiB")
    limit_bytes: int = setting(bounded(SIZE, 1), "a larger session is refused", default="64KiB")
    sweep_every_ns: int = setting(DURATION, "how often expired sessions are removed; 0s: never", default="60s")
    cookie: str = setting(TEXT, "the cookie's name", default="farmsync")
    cookie_path: str = setting(TEXT, "below which path the cookie is sent", default="/")
    cookie_domain: str | None = setting(TEXT, "to which domain; to this host alone without it", default=None)
    cookie_secure: str = setting(
        choice("auto", "always", "never"), "whether it is for https alone; auto: when the request was", default="auto"
    )
    cookie_same_site: str = setting(choice("Lax", "Strict", "None"), "its SameSite attribute", default="Lax")

    def __attrs_post_init__(self) -> None:
        try:
            self.cookies()
        except ConfigError as error:
            raise ValueError(str(error)) from None

    def settings(self) -> SessionSettings:
        """The same as ``farmsyncd.sessions`` has it."""
        return SessionSettings(
            idle_s=self.idle_ns / 1e9,
            absolute_s=self.absolute_ns / 1e9,
            revalidate_after_s=self.revalidate_after_ns / 1e9,
            cache_bytes=self.cache_bytes,
            cache_entries=self.cache_entries,
            warn_bytes=self.warn_bytes,
            limit_bytes=self.limit_bytes,
            sweep_every_s=self.sweep_every_ns / 1e9,
        )

    def cookies(self) -> CookieSettings:
        """The cookie's part of it."""
        return CookieSettings(
            name=self.cookie,
            path=self.cookie_path,
            domain=self.cookie_domain,
            secure={"auto": None, "always": True, "never": False}[self.cookie_secure],
            same_site=self.cookie_same_site,  # type: ignore[arg-type]  # choice() has seen to it
        )


@attrs.frozen
class NodeConfig:
    """A node's configuration."""

    TABLE: ClassVar[str] = "node"

    state: Path = setting(PATH, "the node's own directory")
    data: str = setting(endpointcheck.CLIENT, "the endpoint of the data server")
    name: str = setting(NAME, "this node's name, its own in the farm")
    dataset: tuple[str, ...] = setting(listing(NAME), "a dataset to follow; all of them when none is named", default=[])
    http: str | None = setting(endpointcheck.SERVER, "the endpoint of the HTTP side", default=None)
    serve: tuple[str, int] | None = setting(
        HOST_PORT, "where this node's web server takes traffic, told to balancers", default=None
    )
    wsgi: str | None = setting(
        APPLICATION, "MODULE:NAME of a WSGI application, which answers what is not the node's own", default=None
    )
    sessions: str | None = setting(
        SESSIONS,
        "the URL of the database of the application's sessions, sqlite:///FILE or postgresql://...",
        default=None,
    )
    agent: str | None = setting(
        endpointcheck.SERVER, "the endpoint where HAProxy's agent-check is answered", default=None
    )
    stale_after_ns: int = setting(DURATION, "HAProxy is told of a missed activation after so long", default="10s")
    skew: Skew = setting(SKEW, "makes every clock that the node reads wrong, to rehearse", default="0")
    addresses: Path | None = setting(PATH, "where the addresses that were bound are written", default=None)
    follow_ns: int = setting(
        bounded(DURATION, "100ms"), "how often the schedule is asked for, besides being told", default="15s"
    )
    keep: int = setting(
        bounded(INTEGER, 1), "how many versions of a dataset are kept after they were active", default=3
    )
    check: str = setting(
        choice("stat", "stat-then-hash", "hash"),
        "how versions on the disk are checked before they are served, and after",
        default="stat-then-hash",
    )
    staging: StagingConfig = setting(table(StagingConfig), "limits of staging", default={})
    hooks: HooksConfig = setting(table(HooksConfig), "what is told of each flip", default={})
    application: ApplicationConfig = setting(table(ApplicationConfig), "how the application is run", default={})
    session: SessionConfig = setting(table(SessionConfig), "the application's sessions", default={})

    def __attrs_post_init__(self) -> None:
        if self.wsgi is not None and self.http is None:
            raise ValueError("expected http with wsgi: the application answers on the node's HTTP side")
        if self.sessions is not None and self.wsgi is None:
            raise ValueError("expected wsgi with sessions: they are the application's")
        naming.expect_free(self.dataset)

    @property
    def addresses_file(self) -> Path:
        """Where the addresses that were bound are written."""
        return self.addresses if self.addresses is not None else self.state / "addresses.json"
