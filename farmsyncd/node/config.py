"""What can be configured about a node: the ``[node]`` table of its file, and its command line's options."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import attrs

from farmsyncd.core.skew import Skew, parse_skew
from farmsyncd.edges import endpointcheck
from farmsyncd.edges.config import setting, table
from farmsyncd.edges.settings import (
    DURATION,
    HOST_PORT,
    INTEGER,
    NAME,
    PATH,
    RATE,
    TEXT,
    Kind,
    bounded,
    choice,
    listing,
)  # fmt: skip


def _skew(value: object) -> Skew:
    if not isinstance(value, str) or not value:
        raise ValueError
    return parse_skew(value)


SKEW: Kind[Skew] = Kind('seconds, and parts per million after a comma, such as "3600,-200"', _skew)


@attrs.frozen
class StagingConfig:
    """``[node.staging]``: how much bringing versions in may ask of this machine and its network."""

    at_once: int = setting(bounded(INTEGER, 1), "datasets that are staged at the same time", default=2)
    rate_bytes: int | None = setting(bounded(RATE, "64KiB"), "all staging of this node together", default=None)
    spread_ns: int = setting(DURATION, "nodes begin to stage at random within this time", default="500ms")


@attrs.frozen
class HooksConfig:
    """``[node.hooks]``: what is told of each flip, once it is done.

    The command finds FARMSYNC_DATASET, FARMSYNC_VERSION, FARMSYNC_CYCLE and FARMSYNC_PATH in its environment; the URL
    is posted the same as JSON.
    """

    command: tuple[str, ...] = setting(listing(TEXT), "a program and its arguments", default=[])
    url: str | None = setting(TEXT, "an http or https address", default=None)
    timeout_ns: int = setting(bounded(DURATION, "100ms"), "a hook that takes longer is ended", default="10s")

    def __attrs_post_init__(self) -> None:
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"expected an http or https address, found {self.url!r}")


@attrs.frozen
class NodeConfig:
    """A node's configuration."""

    TABLE: ClassVar[str] = "node"

    state: Path = setting(PATH, "the node's own directory")
    data: str = setting(endpointcheck.CLIENT, "the endpoint of the data server")
    name: str = setting(NAME, "this node's name, its own in the farm")
    dataset: tuple[str, ...] = setting(listing(NAME), "a dataset to follow; all of them when none is named", default=[])
    http: str | None = setting(endpointcheck.SERVER, "the endpoint of the HTTP side", default=None)
    serve: tuple[str, int] | None = setting(
        HOST_PORT, "where this node's web server takes traffic, told to balancers", default=None
    )
    agent: str | None = setting(
        endpointcheck.SERVER, "the endpoint where HAProxy's agent-check is answered", default=None
    )
    stale_after_ns: int = setting(DURATION, "HAProxy is told of a missed activation after so long", default="10s")
    skew: Skew = setting(SKEW, "makes every clock that the node reads wrong, to rehearse", default="0")
    addresses: Path | None = setting(PATH, "where the addresses that were bound are written", default=None)
    follow_ns: int = setting(
        bounded(DURATION, "100ms"), "how often the schedule is asked for, besides being told", default="15s"
    )
    keep: int = setting(
        bounded(INTEGER, 1), "how many versions of a dataset are kept after they were active", default=3
    )
    check: str = setting(
        choice("stat", "stat-then-hash", "hash"),
        "how versions on the disk are checked before they are served, and after",
        default="stat-then-hash",
    )
    staging: StagingConfig = setting(table(StagingConfig), "limits of staging", default={})
    hooks: HooksConfig = setting(table(HooksConfig), "what is told of each flip", default={})

    @property
    def addresses_file(self) -> Path:
        """Where the addresses that were bound are written."""
        return self.addresses if self.addresses is not None else self.state / "addresses.json"
