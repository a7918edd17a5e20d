"""The tables of configuration keys in docs/operations.md, made from the classes that read them.

``python -m tests.config_tables`` writes them anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import attrs

from farmsyncd.data.config import DataConfig
from farmsyncd.edges.config import Setting, settings
from farmsyncd.lb.config import BalancerConfig
from farmsyncd.node.config import NodeConfig

PAGE = Path(__file__).resolve().parent.parent / "docs" / "operations.md"
SCHEMAS: tuple[tuple[str, Any], ...] = (("data", DataConfig), ("node", NodeConfig), ("lb", BalancerConfig))


def rows(schema: Any) -> Iterator[str]:
    """One row for each key of a daemon, those of tables within its table included."""
    for prefix, one in _keys("", schema):
        default = "*required*" if one.required else _spelled(one.default)
        yield f"| `{prefix}{one.key}` | {default} | {one.help} |"


def _keys(prefix: str, schema: Any) -> Iterator[tuple[str, Setting]]:
    inner: list[tuple[str, Any]] = []
    hints = get_type_hints(schema)
    for one in settings(schema):
        hint = hints[one.field]
        if not one.kind.nested:
            yield prefix, one
        elif attrs.has(hint):
            inner.append((f"{prefix}{one.key}.", hint))
        else:
            inner.append((f"{prefix}{one.key}.NAME.", get_args(hint)[1]))  # a mapping of names to tables
    for deeper, part in inner:
        yield from _keys(deeper, part)


def _spelled(default: object) -> str:
    if default is None or default == []:
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, list | tuple):
        return ", ".join(f"`{one}`" for one in default)
    return f"`{default}`"


def with_tables(page: str) -> str:
    """The page with its tables made anew."""
    for name, schema in SCHEMAS:
        before, mark, rest = page.partition(f"<!-- keys of {name} -->\n")
        _old, end, after = rest.partition("<!-- end of keys -->")
        assert mark, f"expected a table of the keys of {name}"
        assert end, f"expected an end of the keys of {name}"
        table = "\n".join(["| key | default | |", "|---|---|---|", *rows(schema)])
        page = f"{before}{mark}{table}\n{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text("utf-8")), "utf-8")
