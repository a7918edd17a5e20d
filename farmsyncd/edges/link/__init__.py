"""One connection of farmsync's protocol, whichever side it is on.

============== =======================================================================================
``connection`` :class:`Link`, the Twisted protocol: parses, greets, keeps alive, bounds, closes
``pulse``      when to ask a silent peer, and when to give it up (pure)
``outbox``     what is still to be sent, in order, as the peer takes it; never more than is allowed
``outlet``     how bytes leave: straight through a socket, or through any other transport
``peername``   who is on the other end
``valve``      whether the peer is read from; ``portion`` how much at once (pure)
``reconnect``  :func:`reconnecting`, a service that keeps a client's link up
``timers``     a link's few timers, by name; whoever waits for it
``settings``   :class:`LinkSettings` and the :class:`Session` that a link talks to
============== =======================================================================================
"""

from farmsyncd.edges.link.connection import Link
from farmsyncd.edges.link.outbox import Extent
from farmsyncd.edges.link.reconnect import Reconnecting, reconnecting
from farmsyncd.edges.link.settings import LinkSettings, Session

__all__ = ["Extent", "Link", "LinkSettings", "Reconnecting", "Session", "reconnecting"]
