"""``make demo``, as a newcomer runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from demo.live import killed
from demo.shop import MARK, marked_copy
from tests.daemons import TREE, environment


def demo(tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the demo, its files below ``tmp_path``."""
    return subprocess.run(
        [sys.executable, "-m", "demo"], env=environment(TMPDIR=str(tmp_path), XDG_CACHE_HOME=str(tmp_path), **env),
        cwd=TREE, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_one_cart_has_one_shopper() -> None:
    assert killed("web1", 1).endswith("which held one of the carts; its shopper goes on:")
    assert killed("web1", 2).endswith("which held 2 of the carts; their shoppers go on:")


def test_the_demo_flips_a_farm_reports_it_and_brings_carts_over_a_nodes_death(tmp_path: Path) -> None:
    done = demo(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "between the first and the last of 5 nodes" in done.stdout
    assert " 0 failed" in done.stdout
    for name in ("web1", "web2", "web3", "web4", "web5", "127.0.1.1", "127.0.1.6"):
        assert name in done.stdout
    assert "things were put into carts, and each page showed all that were there" in done.stdout
    moved = [line.split() for line in done.stdout.partition("CART NOW")[2].splitlines() if line.startswith("127.0.1.")]
    assert moved, "the node that was killed had shoppers"
    for _shopper, was_at, cart, is_at, cart_now in moved:
        assert was_at != is_at
        assert cart == cart_now
    assert not list(tmp_path.glob("farmsync-demo-*")), "nothing is left behind"


def test_the_demo_takes_a_directory_of_ones_own(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "a page.txt").write_text("mine")
    (site / MARK).write_text("mine, too")
    done = demo(tmp_path, SITE=str(site))
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout
    assert "Killed" not in done.stdout, "there are no carts in what is only data"
    here = {path.name: path.read_text() for path in site.iterdir()}
    assert here == {"a page.txt": "mine", MARK: "mine, too"}, "the directory is only read"


def test_the_second_version_of_a_directory_of_ones_own_leaves_the_first_alone(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    for name in (MARK, "a page.txt"):
        (site / name).write_text("mine")
    copy = marked_copy(site, tmp_path / "copy", "new")
    assert {path.name: path.read_text() for path in site.iterdir()} == {MARK: "mine", "a page.txt": "mine"}
    assert {path.name: path.read_text() for path in copy.iterdir()} == {MARK: "new\n", "a page.txt": "mine"}


def test_a_directory_without_files_is_told(tmp_path: Path) -> None:
    (tmp_path / "site" / "empty").mkdir(parents=True)
    done = demo(tmp_path, SITE=str(tmp_path / "site"))
    assert done.returncode == 65
    assert "expected a directory with files in it for SITE" in done.stdout


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = demo(tmp_path, SITE=str(tmp_path / "nowhere"))
    assert done.returncode == 65
    assert "expected a directory for SITE" in done.stdout
