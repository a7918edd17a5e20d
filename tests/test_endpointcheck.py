"""Endpoint strings are checked before anything listens or connects."""

from __future__ import annotations

import pytest

from farmsyncd.edges.endpointcheck import client, server


@pytest.mark.parametrize(
    "text",
    ["tcp:7420", "tcp:0:interface=127.0.0.1", "tcp:port=7420", "tcp6:7420:interface=\\:\\:1", "unix:/run/farmsync"],
)
def test_endpoints_to_listen_on(text: str) -> None:
    assert server(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "tcp:127.0.0.1:7420",
        "tcp:host=data.example:port=7420",
        "tcp:\\:\\:1:7420",
        "tls:data.example:7420",
        "unix:/run/x",
    ],
)
def test_endpoints_to_connect_to(text: str) -> None:
    assert client(text) == text


@pytest.mark.parametrize(
    "text", ["", "7420", "tcp", "tcp:", "tcp:http", "tcp:65536", "tcp:-1", "tcp:7420:interfac=x", "udp:1", None, 7420]
)
def test_what_nobody_can_listen_on(text: object) -> None:
    with pytest.raises(ValueError):
        server(text)


@pytest.mark.parametrize(
    "text",
    ["", "localhost:7420", "tcp:7420", "tcp:host", "tcp:host:0", "tcp:host:x", "tcp:host:70000", "stdio:", "ws:a:1", 5],
)
def test_what_nobody_can_connect_to(text: object) -> None:
    with pytest.raises(ValueError):
        client(text)
