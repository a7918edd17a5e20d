"""A farm that keeps carts: real nodes with the cart application, one database of sessions, a real balancer before them.

Nodes are killed and started again, and the database too, while shoppers (:mod:`tests.shopping`) go on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

import attrs

from tests.daemons import Daemon, Daemons
from tests.shopping import Shopper, Tally, source

_LOCAL = "tcp:0:interface=127.0.0.1"
_NOWHERE = "tcp:127.0.0.1:1"


@attrs.frozen
class Plan:
    """How a run goes. Times are seconds; ``pause_s`` is how long a shopper thinks between two visits.

    Shoppers who are ``roaming`` go to the balancer and to all nodes, at random: so they meet old copies.
    """

    shoppers: int
    seconds: float
    pause_s: float
    nodes: int = 4
    kill_every_s: float = 2.0
    down_s: float = 0.7
    roaming: bool = False


@attrs.define
class Happened:
    """How often something was killed."""

    nodes_killed: int = 0
    database_restarts: int = 0


class ShopFarm:
    """The daemons of one run; ``url`` names the database of sessions."""

    def __init__(self, daemons: Daemons, url: str, nodes: int) -> None:
        self.nodes = [self._node(daemons, f"node-{number}", url) for number in range(nodes)]
        named = [f"--node={node.name}=127.0.0.1:{_port(node)}" for node in self.nodes]
        self.balancer = daemons.start(
            "farmsync-lb", "--listen", _LOCAL, "--check-interval", "200ms", *named, name="lb", state=False
        )
        self.ports = [int(self.balancer.address("listen").rpartition(":")[2]), *(_port(node) for node in self.nodes)]
        for node in self.nodes:
            node.ready()

    def _node(self, daemons: Daemons, name: str, url: str) -> Daemon:
        listen = f"tcp:{daemons.reserve()}:interface=127.0.0.1"
        return daemons.start(
            "farmsync-node", "--data", _NOWHERE, "--name", name, "--http", listen,
            "--wsgi", "tests.cart_application:application", "--sessions", url, name=name,
        )  # fmt: skip


def _port(node: Daemon) -> int:
    listen = node.arguments[node.arguments.index("--http") + 1]
    return int(listen.split(":")[1])


def run(
    farm: ShopFarm, plan: Plan, chance: random.Random, restart_database: Callable[[], None] | None = None
) -> tuple[Tally, Happened]:
    """Let shoppers shop while nodes die, and the database is restarted half-way if there is a way to."""
    tally, happened = Tally(), Happened()
    shoppers = [
        Shopper(source(number), farm.ports if plan.roaming else farm.ports[:1], random.Random(chance.random()), tally)
        for number in range(plan.shoppers)
    ]
    asyncio.run(_run(farm.nodes, shoppers, plan, chance, restart_database, happened))
    return tally, happened


async def _run(
    nodes: Sequence[Daemon],
    shoppers: Sequence[Shopper],
    plan: Plan,
    chance: random.Random,
    restart_database: Callable[[], None] | None,
    happened: Happened,
) -> None:
    closing = asyncio.Event()
    asyncio.get_running_loop().call_later(plan.seconds, closing.set)
    trouble = [_kill_nodes(nodes, closing, plan, chance, happened)]
    if restart_database is not None:
        trouble.append(_restart(restart_database, plan.seconds / 2, happened))
    await asyncio.gather(*trouble, *(one.shop(closing, plan.pause_s) for one in shoppers))
    await asyncio.gather(*(one.leave() for one in shoppers))


async def _kill_nodes(
    nodes: Sequence[Daemon], closing: asyncio.Event, plan: Plan, chance: random.Random, happened: Happened
) -> None:
    """Kill a node, start it again, and so on. All run in the end."""
    while not closing.is_set():
        node = chance.choice(nodes)
        await asyncio.to_thread(node.kill)
        happened.nodes_killed += 1
        await asyncio.sleep(plan.down_s)
        await asyncio.to_thread(lambda node=node: node.start().ready())  # type: ignore[misc]
        await asyncio.sleep(plan.kill_every_s)


async def _restart(restart_database: Callable[[], None], after_s: float, happened: Happened) -> None:
    await asyncio.sleep(after_s)
    await asyncio.to_thread(restart_database)
    happened.database_restarts += 1
