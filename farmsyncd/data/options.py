"""The command line of ``twistd farmsync-data``."""

from __future__ import annotations

from farmsyncd.data.config import DataConfig
from farmsyncd.edges.options import DaemonOptions


class Options(DaemonOptions, schema=DataConfig):
    """Options for the data server."""

    longdesc = "The data server of a farm: keeps datasets' versions and schedules, and tells nodes of both."
