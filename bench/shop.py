"""A shop for a minute: 200 shoppers fill their carts through the balancer while its nodes are killed and started again.

There is no peer: what counts is that nothing is lost. Every addition that was acknowledged must be in its cart in the
end, and no shopper may ever see fewer things than before. PostgreSQL keeps the carts; it is killed once, too.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
from pathlib import Path

from bench.balancers import end_quietly
from bench.goals import Goal, Say, at_most
from tests.daemons import Daemons
from tests.postgres import Postgres
from tests.shop_farm import Plan, ShopFarm
from tests.shop_farm import run as shop

_PLAN = Plan(shoppers=200, seconds=60, pause_s=1.0)


def run(say: Say = print) -> list[Goal]:
    """Let them shop, and tell what has become of their carts."""
    with tempfile.TemporaryDirectory() as folder, Postgres() as postgres, contextlib.ExitStack() as stack:
        daemons = Daemons(Path(folder))
        stack.callback(end_quietly, daemons)

        def restart() -> None:
            postgres.kill()
            postgres.start()

        farm = ShopFarm(daemons, postgres.url(), _PLAN.nodes)
        say(f"shop: {_PLAN.shoppers} shoppers, {_PLAN.nodes} nodes, {_PLAN.seconds:.0f} seconds")
        tally, happened = shop(farm, _PLAN, random.Random(), restart)
        say(f"shop: {happened.nodes_killed} nodes killed, the database {happened.database_restarts} time(s); {tally}")
    return [
        at_most("acknowledged additions that were lost", len(tally.lost), 0),
        at_most("carts that went backwards", len(tally.went_backwards), 0),
        at_most("things in carts that nobody has asked for", len(tally.ghosts), 0),
        at_most("ids that no server has issued, and were adopted", len(tally.adopted), 0),
    ]
