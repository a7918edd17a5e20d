"""What can be configured about a balancer: the ``[lb]`` table of its file, and its command line's options."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import attrs

from farmsyncd.edges.config import setting, tables
from farmsyncd.edges.endpointcheck import CLIENT, SERVER
from farmsyncd.edges.settings import (
    DURATION,
    FLAG,
    HOST_PORT,
    INTEGER,
    NAME,
    NUMBER,
    PATH,
    TEXT,
    Kind,
    bounded,
    choice,
    listing,
)  # fmt: skip

_STATUS = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?", re.ASCII)
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_LONGEST_DOMAIN = 200
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_PRIVATE = ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7", "fe80::/10"]


@attrs.frozen
class NodeAddress:
    """Where a node's web server takes traffic: a host and a port, or, when ``path`` is not empty, a Unix socket."""

    name: str
    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _node(value: object) -> NodeAddress:
    if not isinstance(value, str):
        raise ValueError
    name, equals, address = value.partition("=")
    if not equals:
        raise ValueError("there is no equals sign")
    if address.startswith("unix:"):
        return NodeAddress(NAME.read(name), "", 0, str(PATH.read(address.removeprefix("unix:"))))
    return NodeAddress(NAME.read(name), *HOST_PORT.read(address))


def _network(value: object) -> Network:
    return ipaddress.ip_network(TEXT.read(value))


def _dns_endpoint(value: object) -> str:
    if not SERVER.read(value).startswith(("tcp:", "tcp6:")):
        raise ValueError("tcp stands for UDP on the same port, too")
    return SERVER.read(value)


def _domain(value: object) -> str:
    name = TEXT.read(value).lower().removesuffix(".")
    if len(name) > _LONGEST_DOMAIN or not all(map(_LABEL.fullmatch, name.split("."))):
        raise ValueError
    return name


def _statuses(value: object) -> frozenset[int]:
    codes: set[int] = set()
    for part in TEXT.read(value).split(","):
        found = _STATUS.fullmatch(part.strip())
        if found is None or (found[2] or found[1]) < found[1]:
            raise ValueError
        codes.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    return frozenset(codes)


NODE: Kind[NodeAddress] = Kind('a node\'s name and address, such as "shop-1=10.0.0.5:8080" or "b=unix:/run/b"', _node)
DNS_ENDPOINT: Kind[str] = Kind('a tcp endpoint, such as "tcp:53:interface=10.0.0.1"', _dns_endpoint)
DOMAIN: Kind[str] = Kind('a domain name, such as "www.shop.example"', _domain)
NETWORK: Kind[Network] = Kind('a network, such as "10.0.0.0/8" or "2001:db8::5"', _network)
STATUSES: Kind[frozenset[int]] = Kind('HTTP status codes, such as "200-399"', _statuses)


@attrs.frozen
class NodeConfig:
    """``[lb.nodes.NAME]``: what is special about one node, whoever tells of it."""

    weight: float = setting(bounded(NUMBER, 0.01, 1000), "it gets so many times the connections", default=1)
    max_connections: int | None = setting(
        bounded(INTEGER, 1), "more of them wait; see lb.max-connections", default=None
    )
    send_proxy: str | None = setting(
        choice("none", "v1", "v2"), "which PROXY header it is sent; see lb.send-proxy", default=None
    )


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
        bounded(DURATION, "10ms"), "without checks, a node that is down is tried again after so long", default="10s"
    )
    forgive_ns: int = setting(
        bounded(DURATION, "10ms"), "a connection that a node did not take counts half after so long", default="5s"
    )
    ramp_up_ns: int = setting(DURATION, "for a node that is new or back to get its whole part", default="30s")
    max_connections: int | None = setting(bounded(INTEGER, 1), "at each node; more of them wait", default=None)
    queue: int = setting(bounded(INTEGER, 0), "how many connections may wait for a node", default=1024)
    queue_timeout_ns: int = setting(
        bounded(DURATION, "1ms"), "a connection that waited for so long is closed", default="5s"
    )
    move_rate: float = setting(
        bounded(NUMBER, 0.1), "how many sources of nodes that are gone are moved per second", default=1000
    )
    share: float | None = setting(
        bounded(NUMBER, 0.001, 1), "of a node's connections that one source may have there", default=None
    )
    prefix_ipv4: int = setting(bounded(INTEGER, 0, 32), "bits of an IPv4 address that make a source", default=32)
    prefix_ipv6: int = setting(bounded(INTEGER, 0, 128), "bits of an IPv6 address that make a source", default=64)
    stale_after_ns: int = setting(DURATION, "a node that missed an activation serves on for so long", default="10s")
    settle_ns: int = setting(
        DURATION, "a data server that is just back has so long to see its nodes again", default="15s"
    )
    admin: Path | None = setting(PATH, "the Unix socket for `farmsync lb`", default=None)
    idle_ns: int = setting(
        bounded(DURATION, "1s"), "a connection on which nothing is said for so long is reset", default="1h"
    )
    half_closed_ns: int = setting(
        bounded(DURATION, "1s"), "a connection that one side has ended may be silent for so long", default="5m"
    )
    send_proxy: str = setting(
        choice("none", "v1", "v2"), "which PROXY header tells nodes who the client is: none, v1 or v2", default="none"
    )
    accept_proxy: bool = setting(
        FLAG, "each connection begins with a PROXY header, from a balancer in front", default=False
    )
    proxy_from: tuple[Network, ...] = setting(
        listing(NETWORK), "a network that PROXY headers are accepted from", default=_PRIVATE
    )
    dns: str | None = setting(DNS_ENDPOINT, "where questions for dns-name are answered, over UDP and TCP", default=None)
    dns_name: str | None = setting(DOMAIN, "the farm's name, which this is a name server of", default=None)
    dns_server: tuple[str, ...] = setting(
        listing(DOMAIN), "a name of a name server of dns-name, as the parent zone has it", default=[]
    )
    dns_ttl_ns: int = setting(
        bounded(DURATION, "1s", "1d"), "for how long an answer may be kept by whoever asked", default="5s"
    )

    check: str = setting(choice("tcp", "http", "none"), "how nodes are checked: tcp, http or none", default="tcp")
    check_path: str = setting(TEXT, "what a check by HTTP asks for", default="/")
    check_status: frozenset[int] = setting(STATUSES, "the answers to it that are good", default="200-399")
    check_interval_ns: int = setting(bounded(DURATION, "50ms"), "from one check of a node to the next", default="2s")
    check_timeout_ns: int = setting(bounded(DURATION, "10ms"), "for a check to end well", default="2s")
    check_rise: int = setting(bounded(INTEGER, 1), "so many good checks in a row bring a node back", default=2)
    check_fall: int = setting(bounded(INTEGER, 1), "so many bad ones, or connects, in a row take it down", default=3)
    workers: int = setting(bounded(INTEGER, 1, 64), "how many processes share the work", default=1)
    state: Path | None = setting(PATH, "the balancer's own directory: what a restart is to know", default=None)
    take_over: bool = setting(
        FLAG, "take over from the balancer that uses the state directory, if there is one", default=False
    )
    drain_limit_ns: int = setting(
        DURATION, "a balancer that is stopped gives connections so long to end", default="30s"
    )
    linger_ns: int = setting(
        DURATION, "a balancer that another one took over from gives connections so long to end", default="1h"
    )
    nodes: Mapping[str, NodeConfig] = setting(tables(NodeConfig, NAME), "what is special about a node", default={})

    def __attrs_post_init__(self) -> None:
        if self.listen.startswith(("ssl:", "tls:")):
            raise ValueError(
                "expected a tcp or unix endpoint to listen on: TLS is carried through to the nodes as it is"
            )
        if self.data is None and not self.node:
            raise ValueError("expected a data server (data) or nodes (node), found neither: there is nobody to balance")
        if not self.check_path.startswith("/"):
            raise ValueError(f"expected a path to check that begins with a slash, found {self.check_path!r}")
        if (self.dns is None) != (self.dns_name is None):
            raise ValueError("expected both or neither of dns and dns-name")
        names = [one.name for one in self.node]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"expected each node once, found {', '.join(twice)} more often")
        if self.take_over and self.state is None:
            raise ValueError("expected a state directory (state) to take over from another balancer (take-over)")
        if self.workers > 1:
            self._check_workers()

    def _check_workers(self) -> None:
        if not self.listen.startswith(("tcp:", "tcp6:")):
            raise ValueError(f"expected a tcp endpoint for {self.workers} workers to share, found {self.listen}")
        if self.accept_proxy:
            raise ValueError(
                "expected one worker (workers) with accept-proxy: the kernel finds a client's worker by the packets' "
                "address, and with a balancer in front that is the balancer's"
            )
