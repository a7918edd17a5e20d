"""``twistd farmsync-data``."""

from twisted.application.service import ServiceMaker

farmsync_data = ServiceMaker(
    "farmsync-data",
    "farmsyncd.data.service",
    "The data server of a farm.",
    "farmsync-data",
)
