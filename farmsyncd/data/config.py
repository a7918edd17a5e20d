"""What can be configured about a data server: the ``[data]`` table of its file, and its command line's options."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import attrs

from farmsyncd.core import naming
from farmsyncd.edges.config import setting, table, tables
from farmsyncd.edges.endpointcheck import SERVER
from farmsyncd.edges.settings import (
    DURATION,
    INTEGER,
    NAME,
    PATH,
    RATE,
    SIZE,
    TEXT,
    Kind,
    bounded,
    listing,
)  # fmt: skip

UNIX = "unix"
LOOPBACK = ("127.0.0.0/8", "::1/128", UNIX)


def _network(value: object) -> str:
    if value == UNIX:
        return UNIX
    if not isinstance(value, str):
        raise ValueError
    return str(ipaddress.ip_network(value))


NETWORK: Kind[str] = Kind('a network such as "10.0.0.0/8" or "::1/128", or "unix" for Unix sockets', _network)


@attrs.frozen
class StagingConfig:
    """``[data.staging]``: how much staging may ask of this machine."""

    at_once: int = setting(bounded(INTEGER, 1), "transfers to nodes at the same time; others wait", default=16)
    rate_bytes: int | None = setting(bounded(RATE, "64KiB"), "all transfers to nodes together", default=None)


@attrs.frozen
class SourceConfig:
    """``[data.dataset.NAME]``: a periodic dataset, which is read again at each activation.

    Exactly one of ``directory``, ``url`` and ``command`` says where from. A command prints a tar archive, or writes
    files into the directory that ``$FARMSYNC_OUT`` names.
    """

    period_ns: int = setting(bounded(DURATION, "1s"), "time between two activations")
    offset_ns: int = setting(DURATION, "moves the activations from whole periods since 1970 (UTC)", default="0s")
    directory: Path | None = setting(PATH, "a directory to read", default=None)
    url: str | None = setting(TEXT, "an http or https address of a tar archive or a single file", default=None)
    command: tuple[str, ...] = setting(listing(TEXT), "a program and its arguments", default=[])
    timeout_ns: int = setting(bounded(DURATION, "1s"), "for fetching, or for the command to end", default="10m")
    limit_bytes: int = setting(SIZE, "the most bytes that may be fetched or unpacked", default="16GiB")

    def __attrs_post_init__(self) -> None:
        if sum([self.directory is not None, self.url is not None, bool(self.command)]) != 1:
            raise ValueError("expected exactly one of directory, url and command")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"expected an http or https address, found {self.url!r}")
        if self.offset_ns >= self.period_ns:
            raise ValueError("expected an offset that is less than the period")


@attrs.frozen
class DataConfig:
    """A data server's configuration."""

    TABLE: ClassVar[str] = "data"

    state: Path = setting(PATH, "the data server's own directory")
    listen: str = setting(SERVER, "the endpoint that nodes and the command connect to")
    http: str | None = setting(SERVER, "the endpoint of the HTTP side", default=None)
    addresses: Path | None = setting(PATH, "where the addresses that were bound are written", default=None)
    operators: tuple[str, ...] = setting(listing(NETWORK), "from where changes may be made", default=LOOPBACK)
    freeze_lead_ns: int = setting(DURATION, "before an activation, its plan stands for so long", default="2s")
    now_lead_ns: int = setting(bounded(DURATION, "1ms"), "from `publish --now` to its activation", default="3s")
    backstop_ns: int = setting(DURATION, "after an activation, until it is rolled over without a node", default="5s")
    keep: int = setting(
        bounded(INTEGER, 1), "how many versions of a dataset are kept after they were active", default=3
    )
    expect_within_ns: int = setting(DURATION, "a node away for longer is not missed in a flip's report", default="10m")
    forget_after_ns: int = setting(DURATION, "a node away for longer is forgotten", default="30d")
    staging: StagingConfig = setting(table(StagingConfig), "limits of transfers to nodes", default={})
    dataset: Mapping[str, SourceConfig] = setting(
        tables(SourceConfig, NAME), "datasets that are read from a source, periodically", default={}
    )

    def __attrs_post_init__(self) -> None:
        naming.expect_free(self.dataset)

    @property
    def addresses_file(self) -> Path:
        """Where the addresses that were bound are written."""
        return self.addresses if self.addresses is not None else self.state / "addresses.json"
