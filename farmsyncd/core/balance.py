"""Which node a source that is not known yet is sent to: the one with the least connections."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs


@attrs.frozen
class Candidate:
    """A node as the choice sees it: its name, its open connections, and whether it takes new sources."""

    name: str
    connections: int
    available: bool = True


def least_connections(nodes: Iterable[Candidate], random: Callable[[], float]) -> str | None:
    """The name of the available node with the least connections; None when there is no node at all.

    Ties are broken by ``random`` (uniform in [0, 1), as ``random.random`` is). When no node is available, all are
    taken to be: checks that fail for the whole farm say more about the checks than about the farm.
    """
    everyone = list(nodes)
    willing = [node for node in everyone if node.available] or everyone
    if not willing:
        return None
    least = min(node.connections for node in willing)
    best = [node.name for node in willing if node.connections == least]
    return best[int(random() * len(best))]
