"""A request as WSGI has it (PEP 3333)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.web.http import Request

_TOKEN = frozenset(b"!#$%&'*+-.^`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
# A name with an underscore would be taken for that with a dash, which proxies may have looked at.
_PLAIN = _TOKEN - frozenset(b"_")


def environ_of(request: Request, body: Any, errors: ErrorLines, size: int) -> dict[str, Any]:
    """The environment of ``request``, whose ``body`` of ``size`` bytes can be read from its beginning."""
    path, _, query = _target(request.uri).partition(b"?")
    host, port = _address(request.getHost()) or ("localhost", "80")
    peer, peer_port = _address(request.getClientAddress()) or ("", "")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method.decode("latin-1"),
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "REQUEST_URI": request.uri.decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": request.clientproto.decode("latin-1"),
        "REMOTE_ADDR": peer,
        "REMOTE_PORT": peer_port,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https" if request.isSecure() else "http",
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": errors,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, values in request.requestHeaders.getAllRawHeaders():
        if _PLAIN.issuperset(name):
            key = name.decode("latin-1").upper().replace("-", "_")
            environ[f"HTTP_{key}"] = (b"; " if key == "COOKIE" else b",").join(values).decode("latin-1")
    environ.pop("HTTP_PROXY", None)  # a client must not choose the proxy of programs that the application starts
    environ.pop("HTTP_CONTENT_LENGTH", None)
    if "HTTP_CONTENT_TYPE" in environ:
        environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE")
    if size or request.requestHeaders.hasHeader(b"content-length"):
        environ["CONTENT_LENGTH"] = str(size)
    return environ


def _target(uri: bytes) -> bytes:
    """The path and query of a request's target, which may be a whole URL."""
    if uri.startswith(b"/") or b"://" not in uri.partition(b"?")[0]:
        return uri
    _, slash, rest = uri.partition(b"://")[2].partition(b"/")
    return slash + rest or b"/"


def _address(address: object) -> tuple[str, str] | None:
    if isinstance(address, IPv4Address | IPv6Address):
        return address.host, str(address.port)
    return None


class ErrorLines:
    """``wsgi.errors``: what the application writes to it becomes lines of the node's log. ``line`` is thread-safe."""

    def __init__(self, line: Callable[[str], object]) -> None:
        self._line = line
        self._begun = ""

    def write(self, text: str) -> int:
        """Take text; whole lines are logged."""
        *lines, self._begun = (self._begun + text).split("\n")
        for one in lines:
            self._line(one)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Take some lines."""
        for one in lines:
            self.write(one)

    def flush(self) -> None:
        """Log what there is of a line."""
        begun, self._begun = self._begun, ""
        if begun:
            self._line(begun)
