"""``farmsync check-config``: find every fault of a configuration file before a daemon does."""

from __future__ import annotations

from pathlib import Path

import click

from farmsyncd.cli import show
from farmsyncd.data.config import DataConfig
from farmsyncd.edges.config import load, read_file
from farmsyncd.errors import ConfigError
from farmsyncd.lb.config import BalancerConfig
from farmsyncd.node.config import NodeConfig

_SCHEMAS = {"data": DataConfig, "node": NodeConfig, "lb": BalancerConfig}


@click.command("check-config", short_help="Check a configuration file.")
@click.argument("file", type=click.Path(path_type=Path))
def command(file: Path) -> None:
    """Check the configuration FILE of a data server, a node or a balancer, and name all faults at once."""
    tables = read_file(file)
    if not tables:
        raise ConfigError(f"{file}: expected a table [data], [node] or [lb], found none")
    faults = []
    for name in tables:
        try:
            load(file, _SCHEMAS[name])
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))
    show.out().print(f"{file}: the settings in {', '.join(f'[{name}]' for name in tables)} can be used", markup=False)
