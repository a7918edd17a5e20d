"""Run the demo: ``python -m demo``; ``KEEP=1`` keeps the farm up.

``SITE`` names a directory to use instead of the shop: the nodes serve it as data, and there are no carts.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from demo.farm import MEMBERS, Farm, FarmFailedError
from demo.live import killed, moves, picture
from demo.shop import marked_copy, shop
from demo.shopper import ADDRESSES, Shopper
from farmsyncd.cli.report import print_report
from farmsyncd.cli.show import out, version

_COUNTDOWN = 12  # seconds from the second publication to its activation
_PATIENCE = 120.0  # seconds that any step may take on a busy machine


class UnusableSiteError(Exception):
    """The directory that the user named cannot be used; the text says why."""


def main() -> int:
    """Run the whole demo; its exit status."""
    console = Console(highlight=False) if out().is_terminal else out()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    site = os.environ.get("SITE")
    if site and not Path(site).is_dir():
        console.print(f"demo: expected a directory for SITE, and found none at {site}", markup=False)
        return 65
    with tempfile.TemporaryDirectory(prefix="farmsync-demo-") as root:
        try:
            return _demo(Path(root), Path(site) if site else None, console)
        except UnusableSiteError as error:
            console.print(f"demo: {error}", markup=False)
            return 65
        except FarmFailedError as error:
            console.print(f"demo: {error}", markup=False)
            return 1
        except KeyboardInterrupt:
            console.print("stopped")
            return 130


def _demo(root: Path, site: Path | None, console: Console) -> int:
    old, new, page = _versions(root, site)
    application = "demo.storefront:application" if site is None else None
    console.print(
        f"[bold]Starting[/] a data server, {len(MEMBERS)} nodes whose clocks are wrong on purpose, a balancer"
    )
    console.print("A wrong rate adds up from the machine's start: +200 ppm are 17 s a day")
    with Farm(root, application) as farm:
        first = json.loads(farm.farmsync("publish", "shop", str(old), "--now", "--json"))["version"]
        console.print(f"[bold]Published[/] version {version(first)}, to be active as soon as all can follow")
        _until(farm, lambda status: _all_serve(status, first), "the first version to be active everywhere")
        url = f"{farm.shop_url}/" if application else f"{farm.shop_url}/shop/{page}"
        _until_reachable(url)
        with ExitStack() as shop:
            shoppers = [shop.enter_context(Shopper(url, one, buys=site is None)) for one in ADDRESSES]
            second = json.loads(farm.farmsync("publish", "shop", str(new), "--in", str(_COUNTDOWN), "--json"))
            console.print(f"[bold]Scheduled[/] version {version(second['version'])} in {_COUNTDOWN} s\n")
            with Live(console=console, auto_refresh=False, transient=not console.is_terminal) as live:

                def look(status: dict[str, Any]) -> bool:
                    if console.is_terminal:
                        live.update(picture(status, shoppers, farm.places()), refresh=True)
                    return _all_serve(status, second["version"]) and all(
                        shopper.pages[second["version"]] for shopper in shoppers
                    )

                _until(farm, look, "the flip")
            if not console.is_terminal:
                console.print(picture(farm.status(), shoppers, farm.places()))
        report = _whole_report(farm, second["cycle"])
        console.print()
        print_report(report)
        pages = sum(shopper.pages.total() for shopper in shoppers)
        failures = sum(shopper.failures for shopper in shoppers)
        console.print(f"\n{pages} pages were fetched through the balancer, {failures} failed")
        if application:
            _lose_a_node(farm, shoppers, console)
        if os.environ.get("KEEP") == "1":
            _keep(farm, url, console)
    return 0


def _versions(root: Path, site: Path | None) -> tuple[Path, Path, str]:
    """The two versions, and a page to look at."""
    if site is None:
        spring, summer = root / "spring", root / "summer"
        spring.mkdir()
        summer.mkdir()
        return shop(spring, "Spring", 100), shop(summer, "Summer", 80), "index.html"
    pages = sorted(path.relative_to(site) for path in site.rglob("*") if path.is_file())
    if not pages:
        raise UnusableSiteError(f"expected a directory with files in it for SITE, and {site} has none")
    try:
        copy = marked_copy(site, root / "site", "This file came with the demo's second version.")
    except OSError as error:
        # What copies a tree tells of each file: (from, to, why).
        why = error.args[0][0][2] if isinstance(error, shutil.Error) else error
        raise UnusableSiteError(f"expected to read all of {site}, and could not: {why}") from None
    page = next((path for path in pages if path.name == "index.html"), pages[0])
    return site, copy, page.as_posix()


def _all_serve(status: dict[str, Any], wanted: str) -> bool:
    serving = [node["name"] for node in status["nodes"] if node["active"] == wanted]
    return len(serving) == len(MEMBERS)


def _until(farm: Farm, done: Callable[[dict[str, Any]], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not done(farm.status()):
        if time.monotonic() > deadline:
            raise FarmFailedError(f"expected {what} within {_PATIENCE:.0f} s")
        time.sleep(0.1)


def _until_reachable(url: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    with Shopper(url) as scout:
        while not scout.pages:
            if time.monotonic() > deadline:
                raise FarmFailedError(f"expected an answer through the balancer at {url}")
            time.sleep(0.1)


def _whole_report(farm: Farm, cycle: int) -> dict[str, Any]:
    deadline = time.monotonic() + _PATIENCE
    while True:
        report: dict[str, Any] = json.loads(farm.farmsync("report", "shop", str(cycle), "--json"))
        if len(report["nodes"]) == len(MEMBERS) or time.monotonic() > deadline:
            return report
        time.sleep(0.2)


def _lose_a_node(farm: Farm, shoppers: list[Shopper], console: Console) -> None:
    """Kill the node that holds a shopper's cart; the next request of each of its shoppers must find the cart whole."""
    lost = sum(shopper.lost for shopper in shoppers)
    bought = sum(shopper.bought for shopper in shoppers)
    if lost:
        raise FarmFailedError(f"expected each page to show all that was in the cart, and {lost} did not")
    console.print(f"{bought} things were put into carts, and each page showed all that were there")
    victim = max(shoppers, key=lambda shopper: shopper.bought).node
    moved = [shopper for shopper in shoppers if shopper.node == victim]
    farm.kill(victim)
    console.print(f"\n{killed(victim, len(moved))}\n")
    rows = []
    for shopper in moved:
        items = shopper.look("/cart")
        rows.append((shopper.address, shopper.bought, victim, shopper.node, items))
    console.print(moves(rows))
    if any(before != after or is_at in {victim, ""} for _, before, _, is_at, after in rows):
        raise FarmFailedError(f"expected the carts of {victim} whole at other nodes")


def _keep(farm: Farm, url: str, console: Console) -> None:
    console.print(f"\nThe farm stays up until Ctrl-C. The shop: {url}")
    command = os.path.relpath(Path(sys.executable).with_name("farmsync"))
    console.print(f"Try: {command} status --data {farm.data}", soft_wrap=True)
    console.print(f"     {command} sessions list --store {farm.sessions}", soft_wrap=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        console.print("stopping")


if __name__ == "__main__":
    sys.exit(main())
