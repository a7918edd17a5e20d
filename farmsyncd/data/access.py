"""Who may change the farm: operators are known by where they connect from."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from farmsyncd.core.refusal import Refused
from farmsyncd.data.config import UNIX


class Operators:
    """The networks from which changes are allowed; ``unix`` among them stands for local sockets."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._said = tuple(networks)
        self._networks = [ipaddress.ip_network(one) for one in self._said if one != UNIX]

    def expect(self, address: str, verb: str) -> None:
        """Raises Refused (``forbidden``) unless a peer at ``address``, as a link spells it, may change things."""
        if not self._allows(address):
            raise Refused(
                "forbidden",
                f"{verb} is allowed from {', '.join(self._said) or 'nowhere'}, and you come from {address}; "
                "run the command there, or add your network to `operators` in the data server's configuration",
            )

    def _allows(self, address: str) -> bool:
        host, colon, _port = address.rpartition(":")
        if not colon:
            return UNIX in self._said
        try:
            found = ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            return False
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        return any(found in network for network in self._networks)
