"""Why a source goes where it goes: for people who wonder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from farmsyncd.core.affinity import Affinity, Stay, shown
from farmsyncd.core.balance import candidates, load
from farmsyncd.lb.farm import Farm, Node
from farmsyncd.lb.seating import GONE, STATES, Seating

Json = dict[str, Any]


class Explainer:
    """Tells what :class:`Seating` would do, and what it did, without doing anything. All ages in nanoseconds."""

    def __init__(
        self,
        farm: Farm,
        affinity: Affinity,
        seating: Seating,
        now_ns: Callable[[], int],
        shown: Callable[[bytes], str] = shown,
    ) -> None:
        self._farm = farm
        self._affinity = affinity
        self._seating = seating
        self._now_ns = now_ns
        self._shown = shown

    def explain(self, source: bytes) -> Json:
        """Where the next connection of ``source`` goes, and why not to the other nodes."""
        now_ns = self._now_ns()
        self._farm.freshen(now_ns)
        stay = self._affinity.find(source, now_ns)
        takers = self._farm.takers()
        open_to_new = [node for node in takers if not node.full]
        chosen = [node.name for node in candidates(open_to_new)]
        goes_to, because = self._verdict(stay, chosen)
        return {
            "source": self._shown(source),
            "goes_to": goes_to,
            "because": because,
            "entry": None if stay is None else self.entry(stay),
            "nodes": [self._candidate(node, chosen) for node in self._farm.nodes.values()],
        }

    def entry(self, stay: Stay) -> Json:
        """What is remembered of a source."""
        now_ns = self._now_ns()
        node = self._farm.nodes.get(stay.node)
        return {
            "source": self._shown(stay.source),
            "node": stay.node,
            "state": None if node is None else node.state.value,
            "connections": stay.connections,
            "since_ago_ns": now_ns - stay.since_ns,
            "used_ago_ns": 0 if stay.connections else now_ns - stay.used_ns,
            "why": stay.why,
            "former": stay.former,
        }

    def sources(self, count: int) -> list[Json]:
        """The sources that came last."""
        return [self.entry(stay) for stay in self._affinity.newest(count)]

    def _verdict(self, stay: Stay | None, chosen: list[str]) -> tuple[list[str], str]:
        if stay is None:
            return chosen, "it is not known here: it goes to the node with the least load" + self._none(chosen)
        node = self._farm.nodes.get(stay.node)
        if node is None or not node.keeps:
            why = GONE if node is None else STATES[node.state]
            return chosen, f"it was at {stay.node}, and {why}: it is moved to the least load" + self._none(chosen)
        if self._seating.over_share(stay, node) and chosen and node.name not in chosen:
            return chosen, f"it is at {node.name} and has its share there: what is more goes to the least load"
        if node.full:
            return [node.name], f"it is at {node.name}, which has all its connections: it waits for one to end"
        return [node.name], f"it is at {node.name}, which keeps its sources whatever its load"

    def _none(self, chosen: list[str]) -> str:
        if chosen:
            return ""
        return ", and waits, since all have their connections" if self._farm.takers() else ", and waits for one"

    def _candidate(self, node: Node, chosen: list[str]) -> Json:
        return {
            "name": node.name,
            "state": node.state.value,
            "connections": node.connections,
            "limit": None if node.limit == float("inf") else int(node.limit),
            "weight": round(node.weight, 6),
            "load": round(load(node), 3),
            "verdict": self._of(node, chosen),
        }

    def _of(self, node: Node, chosen: list[str]) -> str:
        """Why a node would get a new source, or not."""
        if not node.takes:
            return f"no new sources: {node.state.value}" + (f" ({node.reason})" if node.reason else "")
        if node.full:
            return "no new sources: it has all the connections that it may have"
        if node.name in chosen:
            if len(chosen) == 1:
                return "the least load"
            what = "the least load" if node.connections else "idle"
            return f"{what}, as others are: one of them at random, by weight"
        failures = node.penalty.failures(self._now_ns())
        lighter = ["it was new or back a short while ago"] if node.ramp_from_ns is not None else []
        lighter += ["it did not take all its connections lately"] if failures else []
        return "more load than the least" + (
            f"; its weight is reduced, since {' and '.join(lighter)}" if lighter else ""
        )
