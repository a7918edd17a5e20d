"""The demo's two versions: the small shop with its spring and its summer price list, or the user's own directory."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

SITE = Path(__file__).parent / "site"
_PRICE = re.compile(r"\{\{price:(\w+)\}\}")
MARK = "farmsync-demo.txt"


def shop(target: Path, edition: str, percent: int) -> Path:
    """Write the shop into ``target``, every page from one price list at ``percent`` of the list's prices."""
    prices = {name: cents * percent // 100 for name, cents in _list_prices().items()}
    for source in sorted(SITE.rglob("*")):
        made = target / source.relative_to(SITE)
        if source.is_dir():
            made.mkdir(parents=True, exist_ok=True)
        elif source.name == "prices.json":
            made.write_text(json.dumps({"edition": edition, "prices": prices}, indent=2) + "\n")
        else:
            made.parent.mkdir(parents=True, exist_ok=True)
            text = source.read_text().replace("{{edition}}", edition)
            made.write_text(_PRICE.sub(lambda found: f"{prices[found[1]] / 100:.2f} EUR", text))
    return target


def _list_prices() -> dict[str, int]:
    prices: dict[str, int] = json.loads((SITE / "prices.json").read_text())["prices"]
    return prices


def marked_copy(site: Path, target: Path, text: str) -> Path:
    """A copy of the user's own directory with one small file more, so that there is a second version to switch to."""
    shutil.copytree(site, target, symlinks=True, copy_function=_link_or_copy)
    (target / MARK).write_text(text + "\n")
    return target


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
