"""Each worker's part of what is configured for all of them together, and what their answers say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from farmsyncd.core.eligibility import State
from farmsyncd.lb.config import BalancerConfig

Json = dict[str, Any]
_RANK = {state.value: rank for rank, state in enumerate(State)}
NOBODY = "no worker is there at this moment: those that died are being replaced"
_SUMMED = ("clients", "sources", "waiting", "connections", "limit", "known")


def share_of(config: BalancerConfig, number: int) -> BalancerConfig:
    """What worker ``number`` is configured as. Of a limit each gets its part, and one at least."""
    workers = config.workers

    def part(whole: int) -> int:
        return max(1, whole // workers + (number < whole % workers))

    def limit(whole: int | None) -> int | None:
        return None if whole is None else part(whole)

    nodes = {name: attrs.evolve(one, max_connections=limit(one.max_connections)) for name, one in config.nodes.items()}
    return attrs.evolve(
        config,
        sources=part(config.sources),
        max_connections=limit(config.max_connections),
        queue=config.queue and part(config.queue),
        move_rate=max(0.1, config.move_rate / workers),
        nodes=nodes,
    )


def status_of_all(answers: Sequence[Mapping[str, Any]], workers: Sequence[Json]) -> Json:
    """One status for all workers: what can be counted is summed, and a node is in the worst state that one sees.

    ``workers`` is what is known of each of those that answered.
    """
    if not answers:
        return {"ready": False, "reason": NOBODY, "nodes": [], "workers": []}
    told = next((one for one in answers if one["ready"]), answers[0])
    return {
        **_summed(answers, told),
        "nodes": nodes_of_all(answers),
        "workers": [
            {**worker, "clients": one["clients"], "sources": one["sources"]}
            for worker, one in zip(workers, answers, strict=True)
        ],
    }


def nodes_of_all(answers: Sequence[Mapping[str, Any]]) -> list[Json]:
    """The nodes that any of them knows, by name."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for answer in answers:
        for row in answer["nodes"]:
            rows.setdefault(row["name"], []).append(row)
    return [_summed(found, max(found, key=_rank)) for _, found in sorted(rows.items())]


def sources_of_all(answers: Sequence[Mapping[str, Any]], count: int) -> Json:
    """Those that came last to any of them."""
    found = [entry for answer in answers for entry in answer["sources"]]
    found.sort(key=lambda entry: entry["used_ago_ns"])
    return {"known": sum(answer["known"] for answer in answers), "sources": found[:count]}


def order_of_all(answers: Sequence[Mapping[str, Any]]) -> Json:
    """What an order came to."""
    return _summed(answers, max(answers, key=_rank))


def ready_of_all(answers: Sequence[tuple[bool, str]]) -> tuple[bool, str]:
    """Ready when one of them is: it serves its sources, and the others may still be starting."""
    if not answers:
        return False, NOBODY
    return max(answers, key=lambda answer: answer[0])


def metrics_of_all(answers: Sequence[tuple[int, str]]) -> str:
    """The workers' metrics, each sample with the worker's number as a label; a family's samples stand together."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for worker, text in answers:
        family = ""
        for line in text.splitlines():
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                if family not in samples or not samples[family]:
                    heads.setdefault(family, []).append(line)
                samples.setdefault(family, [])
            else:
                samples[family].append(_labelled(line, worker))
    return "".join(f"{line}\n" for family, head in heads.items() for line in (*head, *samples[family]))


def _labelled(sample: str, worker: int) -> str:
    name, brace, rest = sample.partition("{")
    if brace:
        return f'{name}{{worker="{worker}",{rest}'
    name, _, value = sample.partition(" ")
    return f'{name}{{worker="{worker}"}} {value}'


def _rank(row: Mapping[str, Any]) -> int:
    return _RANK[row["state"]]


def _summed(rows: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any]) -> Json:
    """``chosen``, with the sums of all for what is counted."""
    whole = dict(chosen)
    for key, value in chosen.items():
        counted = key in _SUMMED or key.endswith("_total")
        if counted and all(isinstance(row.get(key), int) for row in rows) and isinstance(value, int):
            whole[key] = sum(row[key] for row in rows)
    return whole
