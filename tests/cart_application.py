"""A WSGI application that does nothing but keep carts: ``POST /add?ARTICLE`` puts one in, ``GET /`` shows them all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Each article has a key of its own, so that requests at once seldom change the same one."""
    session = environ["farmsync.session"]
    if environ["REQUEST_METHOD"] == "POST" and environ["PATH_INFO"] == "/add":
        session[f"article:{environ['QUERY_STRING']}"] = 1
        session["additions"] = session.get("additions", 0) + 1
    elif environ["REQUEST_METHOD"] == "POST" and environ["PATH_INFO"] == "/put":
        session[f"article:{environ['QUERY_STRING']}"] = 1
    articles = sorted(key.partition(":")[2] for key in session if key.startswith("article:"))
    body = json.dumps({"articles": articles, "additions": session.get("additions", 0)}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
