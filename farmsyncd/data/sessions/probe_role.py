"""A node's clock comparison: each PROBE is echoed at once, stamped when it came and as late as can be when it goes."""

from __future__ import annotations

from farmsyncd.core.messages.base import Message
from farmsyncd.core.messages.clock import Echo, Probe
from farmsyncd.core.messages.greeting import No
from farmsyncd.edges.link import Link


class ProbeRole:
    """Echoes probes. ``epoch`` is that of the farm clock whose time the link stamps."""

    def __init__(self, link: Link, epoch: str) -> None:
        self._link = link
        self._epoch = epoch

    def received(self, message: Message) -> None:
        """Echo a probe."""
        if not isinstance(message, Probe):
            self._link.send(No("refused", message.VERB, f"{message.VERB} is not for a probe".encode()))
            return
        t1, t2, epoch = message.t1, self._link.arrived_ns, self._epoch
        self._link.send_now(lambda t3: Echo(t1, t2, t3, epoch))

    def lost(self, _reason: str) -> None:
        """The link is gone."""
