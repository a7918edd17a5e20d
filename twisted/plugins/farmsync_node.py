"""``twistd farmsync-node``."""

from twisted.application.service import ServiceMaker

farmsync_node = ServiceMaker(
    "farmsync-node",
    "farmsyncd.node.service",
    "A node of a farm: stages new data, and switches to it on time.",
    "farmsync-node",
)
