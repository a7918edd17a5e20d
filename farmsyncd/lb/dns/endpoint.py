"""A balancer's DNS side, put together from its configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from farmsyncd.lb.config import BalancerConfig, NodeAddress
from farmsyncd.lb.dns.addresses import Addresses
from farmsyncd.lb.dns.serving import DnsEndpoint
from farmsyncd.lb.dns.zone import Zone
from farmsyncd.lb.farm import Farm
from farmsyncd.lb.relaying.names import Names

_SECOND_NS = 1_000_000_000


def dns_endpoint(config: BalancerConfig, farm: Farm, now_ns: Callable[[], int], reactor: Any) -> DnsEndpoint:
    """What answers for ``config.dns_name`` at ``config.dns``: the nodes of ``farm`` that get new sources."""
    assert config.dns is not None
    assert config.dns_name is not None
    addresses = Addresses(lambda: eligible(farm, now_ns()), Names(reactor).find)
    ttl = -(-config.dns_ttl_ns // _SECOND_NS)
    return DnsEndpoint(config.dns, Zone(config.dns_name, config.dns_server, ttl, addresses), reactor)


def eligible(farm: Farm, now_ns: int) -> list[tuple[NodeAddress, float]]:
    """The nodes that get new sources, and what each weighs at this moment."""
    farm.freshen(now_ns)
    return [(node.address, node.weight) for node in farm.takers()]
