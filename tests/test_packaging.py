"""What is built from the tree: a wheel that brings three daemons to twistd, and one command."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import BytesParser
from pathlib import Path

import attrs
import pytest

from tests.daemons import TREE, environment

# Python code's prelude that takes the tree itself out of reach, so that only what was installed is found.
ALONE = f"import sys; sys.path[:] = [p for p in sys.path if p not in ('', {str(TREE)!r})]; sys.argv[0] = 'x'; "
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "-q")


@attrs.frozen
class Built:
    """The copy of the tree that was built, the wheel, and the folder into which it has been installed."""

    tree: Path
    wheel: Path
    target: Path

    def names(self) -> list[str]:
        with zipfile.ZipFile(self.wheel) as archive:
            return archive.namelist()

    def run(self, code: str, *arguments: str) -> str:
        """What ``code`` prints, run with the installed packages; AssertionError when it fails."""
        return ran(
            [sys.executable, "-c", ALONE + code, *arguments],
            self.target.parent,
            {**environment(), "PYTHONPATH": str(self.target)},
        )


def ran(command: list[str], cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("packaging")
    tree, target = folder / "tree", folder / "target"
    tree.mkdir()
    for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TREE / file, tree)
    junk = shutil.ignore_patterns("__pycache__", "dropin.cache")
    for package in ("farmsyncd", "twisted", "tests"):
        shutil.copytree(TREE / package, tree / package, ignore=junk)
    env = environment(PIP_NO_INDEX="1")
    ran([*PIP, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(folder), str(tree)], folder, env)
    (wheel,) = folder.glob("farmsync-*.whl")
    ran([*PIP, "install", "--no-deps", "--target", str(target), str(wheel)], folder, env)
    return Built(tree, wheel, target)


def test_claim_s1_17_twistd_lists_three_daemons(built: Built) -> None:
    listed = built.run("from twisted.scripts.twistd import run; run()", "--help")
    named = [line.split()[0] for line in listed.splitlines() if line.strip().startswith("farmsync-")]
    assert named == ["farmsync-data", "farmsync-lb", "farmsync-node"]


@pytest.mark.parametrize("daemon", ["data", "node", "lb"])
def test_each_daemon_explains_its_options(built: Built, daemon: str) -> None:
    told = built.run("from twisted.scripts.twistd import run; run()", f"farmsync-{daemon}", "--help")
    assert "--config" in told
    assert "--listen" in told or daemon == "node"


def test_the_command_is_installed(built: Built) -> None:
    find = (
        "from importlib.metadata import entry_points; (main,) = entry_points(group='console_scripts', name='farmsync')"
    )
    assert "publish" in built.run(f"{find}; main.load()()", "--help")
    assert (built.target / "bin" / "farmsync").exists()


def test_the_wheel_holds_the_program_and_nothing_else(built: Built) -> None:
    names = built.names()
    roots = {name.partition("/")[0] for name in names}
    assert len(roots) == 3
    assert {"farmsyncd", "twisted"} < roots
    assert "farmsyncd/py.typed" in names
    assert [name for name in names if name.startswith("twisted/")] == [
        f"twisted/plugins/farmsync_{daemon}.py" for daemon in ("data", "lb", "node")
    ]
    shipped = {str(path.relative_to(built.tree)) for path in (built.tree / "farmsyncd").rglob("*.py")}
    assert shipped == {name for name in names if name.startswith("farmsyncd/") and name.endswith(".py")}


def test_the_readme_leads_to_files_that_are_there() -> None:
    links = re.findall(r"\]\(([^):]+)\)", (TREE / "README.md").read_text("utf-8"))
    assert len(links) >= 5
    assert [link for link in links if not (TREE / link).exists()] == []


def test_the_wheel_says_what_it_is(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        said = BytesParser().parsebytes(archive.read(name))
    assert said["Name"] == "farmsync"
    assert said["Requires-Python"] == ">=3.11"
    assert said["License-Expression"] == "MIT" or said["License"] == "MIT"
    assert "make demo" in said.get_payload()
