"""What rollback, publish and cancel print about the cycle that they made."""

from __future__ import annotations

from typing import Any

from farmsyncd.cli import show
from farmsyncd.core.messages.operating import Accepted


def print_accepted(accepted: Accepted, as_json: bool) -> None:
    """The cycle that the data server has accepted, durable by now."""
    if as_json:
        show.print_json(accepted_json(accepted))
        return
    out = show.out()
    out.print(f"[bold]{accepted.dataset}[/] cycle {accepted.cycle}, version {show.version(accepted.version)}")
    out.print(f"activates {show.moment(accepted.utc_ns, show.now())}")
    if accepted.replaced is not None:
        out.print(f"replaces the pending version {show.version(accepted.replaced)}, which will not be activated")


def accepted_json(accepted: Accepted) -> dict[str, Any]:
    """The same for scripts."""
    return {
        "dataset": accepted.dataset,
        "cycle": accepted.cycle,
        "version": accepted.version,
        "activates_at_ns": accepted.activates_at,
        "utc_ns": accepted.utc_ns,
        "replaced": accepted.replaced,
    }
