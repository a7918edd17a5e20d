"""What can be chosen about sessions and their cookie."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import attrs

from farmsyncd.errors import ConfigError

_DAY_S = 86_400.0
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PATH = re.compile(r"/[!-:<-~]{0,200}")
_DOMAIN = re.compile(r"\.?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")


def _at_least(least: float) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    def check(_instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
        if not value >= least:
            raise ConfigError(f"expected {attribute.name} to be at least {least:g}, found {value!r}")

    return check


@attrs.frozen(kw_only=True)
class SessionSettings:
    """How long sessions live, how far a copy is trusted, and how much may be kept. Durations are seconds, sizes bytes.

    ``revalidate_after_s`` bounds how long the end of a session elsewhere can go unseen: a cached copy older than this
    is checked with the database before it is used; 0 asks each time.
    """

    idle_s: float = attrs.field(default=14 * _DAY_S, validator=_at_least(1))
    absolute_s: float = attrs.field(default=90 * _DAY_S, validator=_at_least(1))
    revalidate_after_s: float = attrs.field(default=5.0, validator=_at_least(0))
    cache_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=_at_least(0))
    cache_entries: int = attrs.field(default=100_000, validator=_at_least(0))
    warn_bytes: int = attrs.field(default=16 * 1024, validator=_at_least(1))
    limit_bytes: int = attrs.field(default=64 * 1024, validator=_at_least(1))
    sweep_every_s: float = attrs.field(default=60.0, validator=_at_least(0))


@attrs.frozen(kw_only=True)
class CookieSettings:
    """The cookie's name and attributes.

    ``HttpOnly`` is always there. With ``secure`` None, a cookie is ``Secure`` when its request was. A secure cookie
    for path ``/`` and no domain is named ``__Host-NAME``.
    """

    name: str = attrs.field(default="farmsync")
    path: str = attrs.field(default="/")
    domain: str | None = attrs.field(default=None)
    secure: bool | None = None
    same_site: Literal["Lax", "Strict", "None"] = attrs.field(default="Lax")

    @name.validator
    def _check_name(self, _attribute: attrs.Attribute[str], value: str) -> None:
        if not _NAME.fullmatch(value):
            raise ConfigError(f"expected a cookie's name of letters, digits, - and _, found {value!r}")
        if value.lower().startswith(("__host-", "__secure-")):
            raise ConfigError(f"expected a cookie's name without the prefix that it is given, found {value!r}")

    @path.validator
    def _check_path(self, _attribute: attrs.Attribute[str], value: str) -> None:
        if not _PATH.fullmatch(value):
            raise ConfigError(
                f"expected a cookie's path that begins with / and has no spaces and no ;, found {value!r}"
            )

    @domain.validator
    def _check_domain(self, _attribute: attrs.Attribute[str | None], value: str | None) -> None:
        if value is not None and not _DOMAIN.fullmatch(value):
            raise ConfigError(f"expected a host's name as a cookie's domain, found {value!r}")

    @same_site.validator
    def _check_same_site(self, _attribute: attrs.Attribute[str], value: str) -> None:
        if value not in ("Lax", "Strict", "None"):
            raise ConfigError(f"expected a cookie's SameSite to be Lax, Strict or None, found {value!r}")
        if value == "None" and self.secure is False:
            raise ConfigError("expected a cookie with SameSite=None to be secure: browsers refuse it otherwise")
