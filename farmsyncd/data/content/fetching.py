"""A periodic dataset from the web: fetched only when the server says that it is another."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from farmsyncd.edges.webclient import dismiss, explained, take
from farmsyncd.errors import BadInput, FarmsyncError, Unavailable

_OK = 200
_NOT_MODIFIED = 304


@attrs.define
class Fetcher:
    """Fetches ``url`` into files. What it got last is remembered, so that it need not come again.

    ``clock`` bounds the whole by ``timeout`` seconds; more than ``limit_bytes`` is refused.
    """

    url: str
    http: HTTPClient
    clock: IReactorTime
    timeout: float
    limit_bytes: int
    _validators: dict[str, str] = attrs.Factory(dict)
    _new_validators: dict[str, str] = attrs.Factory(dict)

    @property
    def name(self) -> str:
        """What a single file is called: the last part of the address's path."""
        name = PurePosixPath(unquote(urlsplit(self.url).path)).name
        return name if name not in {"", ".", ".."} and "/" not in name and "\0" not in name else "index"

    def settle(self) -> None:
        """What was fetched last is in use: ask only for what is newer."""
        self._validators = self._new_validators

    def fetch(self, file: Path, *, known: bool) -> Deferred[bool]:
        """Write what the server has into ``file``; False when it has nothing newer than what was settled upon.

        ``known`` says that the caller has that still; otherwise everything is fetched.
        Fails with BadInput for an answer that cannot be used, and with Unavailable when there is none in time.
        """
        running = Deferred.fromCoroutine(self._fetch(file, self._validators if known else {}))
        running.addTimeout(self.timeout, self.clock, self._too_late)
        return running.addErrback(self._explain)

    def _too_late(self, _result: object, _timeout: float) -> bool:
        raise Unavailable(f"expected to fetch {self.url} within {self.timeout:g} s, and it is not done")

    def _explain(self, failure: Failure) -> bool:
        failure.trap(Exception)
        if not failure.check(FarmsyncError):
            raise Unavailable(f"expected to fetch {self.url}: {explained(failure)}") from failure.value
        failure.raiseException()
        raise AssertionError

    async def _fetch(self, file: Path, validators: dict[str, str]) -> bool:
        response: Any = await self.http.get(
            self.url, headers=Headers({name: [value] for name, value in validators.items()}), unbuffered=True
        )
        if response.code == _NOT_MODIFIED and validators:
            dismiss(response)
            return False
        if response.code != _OK:
            dismiss(response)
            raise BadInput(f"expected {self.url} to answer with status 200, and it answered with {response.code}")
        with file.open("wb") as out:
            await take(response, _Bounded(out, self.limit_bytes, self.url).write)
        self._new_validators = {
            ask: value
            for ask, header in (("If-None-Match", "ETag"), ("If-Modified-Since", "Last-Modified"))
            if (value := _header(response, header)) is not None
        }
        return True


def _header(response: Any, name: str) -> str | None:
    values = response.headers.getRawHeaders(name)
    return values[0] if values else None


@attrs.define
class _Bounded:
    """Writes to ``out``, but no more than ``limit`` bytes."""

    out: Any
    limit: int
    url: str
    count: int = 0

    def write(self, data: bytes) -> None:
        self.count += len(data)
        if self.count > self.limit:
            raise BadInput(f"expected at most {self.limit} bytes from {self.url}, and more came")
        self.out.write(data)
