"""Endpoint strings, checked when the configuration is read: a mistake is one clear line, long before a port opens."""

from __future__ import annotations

import re
from collections.abc import Callable

from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import IHostnameResolver, IReactorPluggableNameResolver
from zope.interface import implementer

from farmsyncd.edges.settings import Kind

_TCP_SERVER = re.compile(r"tcp6?:(?:port=)?([^:]*)")
_TCP_CLIENT = re.compile(r"(?:tcp|tls):(?:host=)?((?:[^:\\]|\\.)+):(?:port=)?([^:]*)")
_CLIENTS = ("tcp:", "tls:", "unix:")


@implementer(IReactorPluggableNameResolver)
class _NoReactor:
    """Stands where a reactor would: endpoints are only made here, never used."""

    nameResolver = None  # noqa: N815 - IReactorPluggableNameResolver

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:  # noqa: N802 - as above
        raise NotImplementedError


def _parsed(text: object, parse: Callable[..., object]) -> str:
    if not isinstance(text, str) or not text:
        raise ValueError
    try:
        parse(_NoReactor(), text)
    except Exception as error:  # the parsers are plugins, and raise whatever comes to them
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
    return text


def _check_port(port: str, least: int) -> None:
    if not port.isdecimal() or not least <= int(port) <= 65535:
        raise ValueError(f"a port is a number from {least} to 65535")


def server(value: object) -> str:
    """``value`` as the description of an endpoint to listen on; ValueError when it describes none."""
    text = _parsed(value, serverFromString)
    if tcp := _TCP_SERVER.match(text):
        _check_port(tcp[1], least=0)
    return text


def client(value: object) -> str:
    """``value`` as the description of an endpoint to connect to; ValueError when it describes none."""
    text = _parsed(value, clientFromString)
    if not text.startswith(_CLIENTS):
        raise ValueError("only tcp, tls and unix endpoints are used here")
    if tcp := _TCP_CLIENT.match(text):
        _check_port(tcp[2], least=1)
    elif not text.startswith("unix:"):
        raise ValueError("an address is a host and a port")
    return text


SERVER: Kind[str] = Kind('an endpoint to listen on, such as "tcp:7420" or "tcp:7420:interface=127.0.0.1"', server)
CLIENT: Kind[str] = Kind('an endpoint to connect to, such as "tcp:127.0.0.1:7420"', client)
