"""Carts on a real farm: nodes and the database are killed while shoppers go on, through the balancer.

What shoppers do, and what they compare, is in :mod:`tests.shopping`.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.daemons import Daemons
from tests.postgres import Postgres
from tests.shop_farm import Plan, ShopFarm, run
from tests.shopping import Shopper, Tally

PLAN = Plan(shoppers=24, seconds=8, pause_s=0.5, nodes=3, kill_every_s=1.0, down_s=0.3, roaming=True)


def kept_all(tally: Tally) -> bool:
    """Whether every cart is whole, and no id was taken that was not issued."""
    return not (tally.lost or tally.went_backwards or tally.ghosts or tally.adopted)


def test_no_cart_loses_anything_nor_goes_back_while_nodes_and_postgresql_are_killed(
    daemons: Daemons, postgres: Postgres, postgres_url: str
) -> None:
    def restart() -> None:
        postgres.kill()
        postgres.start()

    tally, happened = run(ShopFarm(daemons, postgres_url, PLAN.nodes), PLAN, random.Random(1), restart)
    assert kept_all(tally), (tally.lost, tally.went_backwards, tally.ghosts, tally.adopted)
    assert tally.acknowledged >= PLAN.shoppers, tally
    assert happened.nodes_killed >= 1
    assert happened.database_restarts == 1


def test_no_cart_loses_anything_nor_goes_back_with_sqlite_while_nodes_are_killed(
    daemons: Daemons, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/carts.sqlite"
    tally, happened = run(ShopFarm(daemons, url, PLAN.nodes), PLAN, random.Random(2))
    assert kept_all(tally), (tally.lost, tally.went_backwards, tally.ghosts, tally.adopted)
    assert tally.acknowledged >= PLAN.shoppers, tally
    assert happened.nodes_killed >= 1


@pytest.mark.parametrize(
    ("articles", "additions", "found"),
    [({"a", "b"}, 1, "nothing"), ({"a"}, 1, "lost"), ({"a", "b", "c"}, 1, "ghosts"), ({"a", "b"}, 0, "lost")],
)
def test_shoppers_notice_what_is_missing_and_what_is_too_much(articles: set[str], additions: int, found: str) -> None:
    tally = Tally()
    shopper = Shopper("127.0.0.1", [1], random.Random(1), tally)
    shopper.acknowledged |= {"a", "b"}
    shopper.counted = 1
    shopper.compare(articles, additions)
    assert {"lost": bool(tally.lost), "ghosts": bool(tally.ghosts)} == {
        "lost": found == "lost", "ghosts": found == "ghosts"
    }  # fmt: skip
    shopper.watch({"a"}, 1, articles - {"a"}, additions)
    assert tally.went_backwards
