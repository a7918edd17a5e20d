"""The data server's numbers, in Prometheus's text format."""

from __future__ import annotations

from collections.abc import Iterable

Labels = dict[str, str]
Sample = tuple[Labels, float]


def text(families: Iterable[tuple[str, str, str, Iterable[Sample]]]) -> str:
    """The text of metric families: name, type (gauge or counter), help, and samples with their labels."""
    lines: list[str] = []
    for name, kind, about, samples in families:
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{_labels(labels)} {value:.17g}" for labels, value in samples]
    return "\n".join([*lines, ""])


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
