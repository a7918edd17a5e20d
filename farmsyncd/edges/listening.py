"""Ports that a daemon listens on: opened when it starts, or it does not start; and told to whoever has to know."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from farmsyncd.edges.startup import one_line
from farmsyncd.errors import ConfigError

_BACKLOG: Final = 1024
"""Connections that may wait to be accepted: a whole farm comes back at once when its data server was started again.

Twisted's default is 50, and whoever comes when so many wait tries again only after a second, then two, then four.
"""


class Listener(Service):
    """Listens on one endpoint for as long as it runs.

    ``what`` completes the sentence "... listens on", ``described`` is the endpoint as the user wrote it. A port that
    cannot be had ends the process with one line and status 78: a daemon that nobody can reach must not look alive.
    """

    log = Logger()

    def __init__(
        self, program: str, what: str, described: str, endpoint: IStreamServerEndpoint, factory: IProtocolFactory
    ) -> None:
        self._program = program
        self._what = what
        self._described = described
        self._endpoint = endpoint
        self._factory = factory
        self._port: IListeningPort | None = None

    @property
    def address(self) -> str | None:
        """The address that it really listens on, spelled as a client's endpoint; None while it does not."""
        return None if self._port is None else spelled(self._port.getHost())

    def privilegedStartService(self) -> None:  # noqa: N802 - IService
        """Open the port, while the process may still be root."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._open()

    def startService(self) -> None:  # noqa: N802 - IService
        """Open the port if that has not been done."""
        super().startService()  # type: ignore[no-untyped-call]
        self._open()

    def stopService(self) -> Deferred[None]:  # noqa: N802 - IService
        """Close the port; fires when it is closed."""
        super().stopService()  # type: ignore[no-untyped-call]
        port, self._port = self._port, None
        return succeed(None) if port is None else maybeDeferred(port.stopListening)  # type: ignore[call-overload]

    def _open(self) -> None:
        if self._port is not None:
            return
        opened: list[IListeningPort | Failure] = []
        self._endpoint.listen(self._factory).addBoth(opened.append)
        with one_line(self._program):
            if not opened or isinstance(opened[0], Failure):
                raise ConfigError(
                    f"expected to listen on {self._described} for {self._what}: {_reason(opened)}; "
                    "stop the program that has the port, or name another endpoint"
                )
        assert not isinstance(opened[0], Failure)
        self._port = opened[0]
        listening = getattr(self._port, "socket", None)
        if listening is not None and "backlog=" not in self._described:
            listening.listen(_BACKLOG)  # a socket may be told so again
        self.log.info("{what} listens on {address}", what=self._what, address=self.address)


def _reason(opened: list[IListeningPort | Failure]) -> str:
    if not opened:
        return "it does not open at once"
    failure = opened[0]
    assert isinstance(failure, Failure)
    inner = getattr(failure.value, "socketError", failure.value)
    return getattr(inner, "strerror", None) or str(inner)


def spelled(address: IAddress) -> str:
    """``address`` as the description of a client's endpoint; a wildcard address becomes the loopback one."""
    if isinstance(address, IPv4Address):
        host = "127.0.0.1" if address.host == "0.0.0.0" else address.host  # noqa: S104 - compared, not bound
        return f"tcp:{host}:{address.port}"
    if isinstance(address, IPv6Address):
        host = "::1" if address.host == "::" else address.host
        return f"tcp:{host.replace(':', chr(92) + ':')}:{address.port}"
    if isinstance(address, UNIXAddress):
        return f"unix:{os.fsdecode(address.name or b'')}"
    return str(address)


def url(address: str) -> str:
    """The HTTP URL of an address that :func:`spelled` made."""
    host, _, port = address.removeprefix("tcp:").replace("\\:", ":").rpartition(":")
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Listening(Protocol):
    """Something that listens."""

    @property
    def address(self) -> str | None:
        """Where, spelled as a client's endpoint; None while it does not."""


class AddressBook(Service):
    """Writes the addresses that a daemon really listens on to a file, for programs that started it on port 0.

    Comes after its listeners in the daemon's services, so that the file appears when all of them listen. The key
    ``http`` is spelled as a URL, every other one as a client's endpoint.
    """

    def __init__(self, path: Path, listeners: Mapping[str, Listening]) -> None:
        self._path = path
        self._listeners = listeners
        self._own: os.stat_result | None = None

    def startService(self) -> None:  # noqa: N802 - IService
        """Write the file, whole or not at all."""
        super().startService()  # type: ignore[no-untyped-call]
        book = {key: _told(key, listener.address or "") for key, listener in self._listeners.items()}
        draft = self._path.with_name(f"{self._path.name}.new")
        with one_line("farmsync"):
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                draft.write_text(json.dumps(book) + "\n", "utf-8")
                self._own = draft.stat()
                draft.replace(self._path)
            except OSError as error:
                raise ConfigError(f"expected to write the addresses to {self._path}: {error.strerror}") from None

    def stopService(self) -> None:  # noqa: N802 - IService
        """Take the file away, since nobody listens there any more; not that of a successor."""
        super().stopService()  # type: ignore[no-untyped-call]
        with contextlib.suppress(OSError):
            if self._own is not None and os.path.samestat(self._path.stat(), self._own):
                self._path.unlink()


def _told(key: str, address: str) -> str:
    return url(address) if key == "http" else address
