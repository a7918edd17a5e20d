"""Sessions as a framework's settings name them: a URL, a table with a URL and what else is chosen, or Sessions."""

from __future__ import annotations

import atexit
import difflib
import weakref
from collections.abc import Iterator, Mapping

import attrs

from farmsyncd.errors import ConfigError
from farmsyncd.sessions.engine import Sessions
from farmsyncd.sessions.settings import SessionSettings
from farmsyncd.sessions.stores.base import CENTURY_US, Lifetime

_FIELDS = tuple(field.name for field in attrs.fields(SessionSettings))


def sessions_from(
    given: object,
    where: str,
    *,
    defaults: Mapping[str, float] | None = None,
    elsewhere: Mapping[str, str] | None = None,
) -> Sessions:
    """What the setting called ``where`` says; ConfigError names everything that is wrong with it.

    ``given`` is the URL of a database, a mapping of ``url`` and of the names of SessionSettings, or Sessions that the
    application has made itself. ``defaults`` replaces SessionSettings' own; ``elsewhere`` maps the names that the
    framework has a setting of its own for to what it is called.
    """
    if isinstance(given, Sessions):
        return given
    if isinstance(given, str):
        given = {"url": given}
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"expected {where} to be the URL of a database, a table with its 'url', or Sessions; "
            f"found {type(given).__name__}"
        )
    faults = list(_faults(given, elsewhere or {}))
    if faults:
        raise ConfigError(f"{where}: " + "; ".join(faults))
    chosen = {name: value for name, value in given.items() if name != "url"}
    try:
        settings = SessionSettings(**{**(defaults or {}), **chosen})
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return _opened(given["url"], settings)


def lifetime(idle_s: float, absolute_s: float) -> Lifetime:
    """How long a session lives; what is negative is over at once."""
    return Lifetime(*(round(min(max(0.0, span), CENTURY_US / 1e6) * 1e6) for span in (idle_s, absolute_s)))


def _opened(url: str, settings: SessionSettings) -> Sessions:
    sessions = Sessions.at(url, settings)
    atexit.register(_close, weakref.ref(sessions))  # frameworks do not say when they are done
    return sessions


def _close(made: weakref.ref[Sessions]) -> None:
    sessions = made()
    if sessions is not None:
        sessions.close()


def _faults(given: Mapping[object, object], elsewhere: Mapping[str, str]) -> Iterator[str]:
    url = given.get("url")
    if not isinstance(url, str):
        yield f"expected 'url' to be text such as 'sqlite:////var/lib/shop/sessions.db', found {type(url).__name__}"
    known = [name for name in _FIELDS if name not in elsewhere]
    for name, value in given.items():
        if name == "url":
            continue
        if name in elsewhere:
            yield f"{name!r} is said by {elsewhere[str(name)]} here"
        elif name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            yield f"there is no {name!r}" + (f", did you mean {near[0]!r}?" if near else f"; known are {known}")
        elif isinstance(value, bool) or not isinstance(value, int | float):
            yield f"expected {name!r} to be a number, found {type(value).__name__}"
