"""``farmsync sessions show``: what is in a session."""

from __future__ import annotations

import math
from typing import Any

import click
from rich.markup import escape

from farmsyncd.cli import options, show
from farmsyncd.cli.sessions import asking
from farmsyncd.core.session.encoding import Encoded, decode_value, split
from farmsyncd.core.session.faults import DamagedState
from farmsyncd.errors import BadInput
from farmsyncd.sessions.stores.base import Listed


@click.command("show", short_help="Show what is in a session.")
@click.argument("digest", metavar="DIGEST", callback=asking.check_prefix)
@click.option("--values", is_flag=True, help="Show the values too: they may be private.")
@asking.store
@options.as_json
def command(digest: str, values: bool, url: str, as_json: bool) -> None:
    """Show the keys of the session whose digest begins with DIGEST, what kinds of values they have, and their sizes."""
    if not digest:
        raise click.UsageError("expected the beginning of a digest, and found nothing")
    with asking.opened(url) as store:
        listed = asking.the_one(store, digest)
        row = store.read(listed.digest)
    if row is None:
        raise BadInput(f"the session {digest} has just ended")
    keys = [_key(name, encoded, values) for name, encoded in split(row.state).items()]
    if as_json:
        for one in keys:
            if values:
                one["value"] = _for_json(one["value"])
        show.print_json({**asking.as_json(listed), "version": row.version, "bytes": len(row.state), "keys": keys})
    else:
        _print(listed, row.version, len(row.state), keys)


def _key(name: str, encoded: Encoded, values: bool) -> dict[str, Any]:
    try:
        value = decode_value(encoded)
    except DamagedState:
        value, kind = None, "damaged"
    else:
        kind = type(value).__name__
        if isinstance(value, str | bytes | list | tuple | dict | set | frozenset):
            kind += f"[{len(value)}]"
    told = {"key": name, "kind": kind, "bytes": len(bytes(encoded))}
    return {**told, "value": value} if values else told


def _for_json(value: Any) -> Any:
    """The value if JSON has such a thing, else as Python spells it."""
    if isinstance(value, list):
        return [_for_json(one) for one in value]
    if isinstance(value, dict):
        return {name: _for_json(one) for name, one in value.items()}
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return repr(value)


def _print(listed: Listed, version: int, size: int, keys: list[dict[str, Any]]) -> None:
    out, now = show.out(), show.now()
    out.print(f"[bold]{listed.digest.hex()}[/]")
    out.print(f"  version  {version}, {show.size(size)}")
    out.print(f"  created  {show.moment(listed.created_us * 1000, now)}")
    out.print(f"  changed  {show.moment(listed.changed_us * 1000, now)}")
    unless = ", unless it is used before" if listed.idle_expires_us < listed.absolute_expires_us else ""
    out.print(f"  expires  {show.moment(asking.expires_us(listed) * 1000, now)}{unless}")
    if not keys:
        return
    out.print()
    shown = "value" in keys[0]
    made = show.table("KEY", "KIND", "SIZE", *(("VALUE",) if shown else ()), right=("SIZE",))
    for one in keys:
        value = (escape(repr(one["value"])),) if shown else ()
        made.add_row(escape(_plain(one["key"])), escape(one["kind"]), show.size(one["bytes"]), *value)
    out.print(made)


def _plain(key: str) -> str:
    """A key that cannot do anything to a terminal: clients may have chosen it."""
    return key if key.isprintable() and key else repr(key)
