"""What can be configured about a balancer: the ``[lb]`` table of its file, and its command line's options."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import attrs

from farmsyncd.edges.config import setting
from farmsyncd.edges.endpointcheck import CLIENT, SERVER
from farmsyncd.edges.settings import (
    DURATION,
    HOST_PORT,
    INTEGER,
    NAME,
    PATH,
    Kind,
    bounded,
    listing,
)  # fmt: skip


@attrs.frozen
class NodeAddress:
    """Where a node's web server takes traffic."""

    name: str
    host: str
    port: int


def _node(value: object) -> NodeAddress:
    if not isinstance(value, str):
        raise ValueError
    name, equals, address = value.partition("=")
    if not equals:
        raise ValueError("there is no equals sign")
    return NodeAddress(NAME.read(name), *HOST_PORT.read(address))


NODE: Kind[NodeAddress] = Kind('a node\'s name and address, such as "shop-1=10.0.0.5:8080"', _node)


@attrs.frozen
class BalancerConfig:
    """A balancer's configuration."""

    TABLE: ClassVar[str] = "lb"

    listen: str = setting(SERVER, "the endpoint that clients connect to")
    data: str | None = setting(CLIENT, "the data server's endpoint, which knows the nodes", default=None)
    node: tuple[NodeAddress, ...] = setting(listing(NODE), "NAME=HOST:PORT, a node to use in any case", default=[])
    http: str | None = setting(SERVER, "the endpoint of the HTTP side", default=None)
    addresses: Path | None = setting(PATH, "where the addresses that were bound are written", default=None)
    sources: int = setting(bounded(INTEGER, 1), "how many sources are remembered with their node", default=1_000_000)
    remember_ns: int = setting(
        bounded(DURATION, "1s"), "a source is forgotten after so long without a connection", default="30m"
    )
    connect_timeout_ns: int = setting(
        bounded(DURATION, "10ms"), "for a node to take a connection, before another one is tried", default="2s"
    )
    retry_after_ns: int = setting(
        bounded(DURATION, "10ms"), "a node that took no connection is given no new source for so long", default="2s"
    )
    half_closed_ns: int = setting(
        bounded(DURATION, "1s"), "a connection that one side has ended may be silent for so long", default="5m"
    )

    def __attrs_post_init__(self) -> None:
        if self.listen.startswith(("ssl:", "tls:")):
            raise ValueError(
                "expected a tcp or unix endpoint to listen on: TLS is carried through to the nodes as it is"
            )
        if self.data is None and not self.node:
            raise ValueError("expected a data server (data) or nodes (node), found neither: there is nobody to balance")
        names = [one.name for one in self.node]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"expected each node once, found {', '.join(twice)} more often")
