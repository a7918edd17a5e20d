"""``twistd farmsync-lb``."""

from twisted.application.service import ServiceMaker

farmsync_lb = ServiceMaker(
    "farmsync-lb",
    "farmsyncd.lb.service",
    "The balancer in front of a farm's nodes.",
    "farmsync-lb",
)
