"""The demo's two versions: the shop's spring and its summer price list, or the user's own directory."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

SITE = Path(__file__).parent / "site"
MARK = "farmsync-demo.txt"


def shop(target: Path, edition: str, percent: int) -> Path:
    """Write the shop's data into ``target``: its pictures, and a list at ``percent`` of the usual prices."""
    shutil.copytree(SITE, target, dirs_exist_ok=True)
    told = json.loads((SITE / "products.json").read_text())
    told["edition"] = edition
    if percent != 100:
        for product in told["products"]:
            product["was"] = product["price"]
            product["price"] = product["price"] * percent // 100
    (target / "products.json").write_text(json.dumps(told, indent=2) + "\n")
    return target


def marked_copy(site: Path, target: Path, text: str) -> Path:
    """A copy of the user's own directory with one small file more, so that there is a second version to switch to."""
    shutil.copytree(site, target, symlinks=True, copy_function=_link_or_copy)
    target.chmod(0o755)
    # A file of that name may be there, and be the user's own by another name: it makes way, and is not written to.
    new = target.with_name(MARK)
    new.write_text(text + "\n")
    new.replace(target / MARK)
    return target


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
