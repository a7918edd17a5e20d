"""What programs get that speak another protocol to the data server's port."""

from __future__ import annotations

from farmsyncd.core.wire import Frame

_HTTP_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "PRI"})
_HTTP_ANSWER = (
    "This port speaks the farmsync protocol, not HTTP; the daemon's HTTP side is where its --http option says.\n"
)


def http_answer(frame: Frame) -> bytes | None:
    """An answer that a web client can show, when ``frame`` is the first line of an HTTP request; else None."""
    if frame.verb not in _HTTP_METHODS or not frame.words or not frame.words[-1].startswith("HTTP/"):
        return None
    head = (
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n"
        f"Content-Length: {len(_HTTP_ANSWER)}\r\n\r\n"
    )
    return (head + ("" if frame.verb == "HEAD" else _HTTP_ANSWER)).encode()
