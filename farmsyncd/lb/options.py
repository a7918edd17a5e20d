"""The command line of ``twistd farmsync-lb``."""

from __future__ import annotations

from farmsyncd.edges.options import DaemonOptions
from farmsyncd.lb.config import BalancerConfig


class Options(DaemonOptions, schema=BalancerConfig):
    """What can be said; everything of it can stand in a file, too."""

    config: BalancerConfig
    synopsis = "--listen ENDPOINT [--data ENDPOINT] [--node NAME=HOST:PORT]... [options]"
    longdesc = (
        "Sends a source's first connection to the node with the least connections, and its later ones to the same "
        "node. The nodes are those that the data server knows (--data), or those that are named here (--node)."
    )
