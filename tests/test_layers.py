"""The layers of the code, read from its syntax trees: imports run downwards only."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemons import TREE, environment

PACKAGE = TREE / "farmsyncd"
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = sorted(path for folder in ("farmsyncd", "twisted", "demo", "bench") for path in (TREE / folder).rglob("*.py"))
PROGRAMS = ("data", "node", "lb", "cli")
BELOW = {
    "errors": set[str](),
    "core": {"errors"},
    "edges": {"errors", "core"},
    "reader": {"errors", "core", "edges"},
    "sessions": {"errors", "core", "edges"},
    **{program: {"errors", "core", "edges"} for program in PROGRAMS},
}
for program in ("node", "cli"):
    BELOW[program].add("sessions")
BELOW["node"].add("reader")
IMPURE = {
    "asyncio", "fcntl", "http", "io", "logging", "mmap", "multiprocessing", "os", "pathlib", "random", "select",
    "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "time", "treq",
    "twisted", "urllib", "zope",
}  # fmt: skip
LONGEST = 350


def layer(module: str) -> str:
    """The layer of a module's dotted name; empty for what is none of ours and for the package itself."""
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == "farmsyncd" else ""


def dotted(path: Path) -> str:
    parts = path.relative_to(TREE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """Every module that ``path`` imports, wherever in the file it does; for ``from x import y``, ``x`` and ``x.y``."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides which layer it is from"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def faults(path: Path) -> Iterator[str]:
    """What is wrong with the imports of one module of ours."""
    own = layer(dotted(path))
    if own == "core" and set(re.findall(r"\bthreading\.(\w+)", path.read_text("utf-8"))) - {"local"}:
        yield f"{dotted(path)} is in core, and does more with threads than to keep apart what each has"
    for module in imported(path):
        other = layer(module)
        if other and other != own and other not in BELOW.get(own, set()) and not checked_by_the_command(own, module):
            yield f"{dotted(path)} is in {own} and imports {module}"
        if own in ("core", "errors") and module.partition(".")[0] in IMPURE:
            yield f"{dotted(path)} is in {own}, which touches nothing of the world, and imports {module}"
        if own not in PROGRAMS and module == "twisted.internet.reactor":
            yield f"{dotted(path)} takes the global reactor, which only the programs may"


def checked_by_the_command(own: str, module: str) -> bool:
    """``farmsync check-config`` reads each daemon's configuration class, and nothing else of a daemon."""
    return own == "cli" and module.split(".")[2:3] == ["config"]


def test_imports_run_downwards_only() -> None:
    assert [fault for path in MODULES for fault in faults(path)] == []


def test_each_module_belongs_to_a_layer() -> None:
    known = {*BELOW, ""}
    assert {dotted(path) for path in MODULES if layer(dotted(path)) not in known} == set()


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("core/x.py", "import time"),
        ("core/x.py", "import threading\nthreading.Lock()"),
        ("core/x.py", "from twisted.internet import defer"),
        ("core/x.py", "import farmsyncd.edges.config"),
        ("edges/x.py", "from farmsyncd.node import service"),
        ("edges/x.py", "from farmsyncd import reader"),
        ("edges/x.py", "def f():\n    from twisted.internet import reactor"),
        ("data/x.py", "from farmsyncd.node.service import Options"),
        ("cli/x.py", "from farmsyncd.data.keeper import Keeper"),
        ("errors.py", "from farmsyncd.core import wire"),
        ("reader.py", "from farmsyncd.node import pointing"),
    ],
)
def test_the_walk_sees_each_way_to_break_the_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, line: str
) -> None:
    path = tmp_path / "farmsyncd" / place
    path.parent.mkdir(parents=True)
    path.write_text(line)
    monkeypatch.setattr(sys.modules[__name__], "TREE", tmp_path)
    assert len(list(faults(path))) >= 1


def test_the_reader_needs_no_twisted() -> None:
    code = """
import sys
import farmsyncd.reader
heavy = {"twisted", "zope", "treq", "click", "rich", "prometheus_client"}
print(sorted(name for name in sys.modules if name.partition(".")[0] in heavy))
print(sorted(name for name in sys.modules if name.startswith(("farmsyncd.data", "farmsyncd.node", "farmsyncd.lb"))))
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n[]\n", "")


SESSIONS_MAY_IMPORT = {
    "twisted": "farmsyncd.sessions.twisted",
    "zope": "farmsyncd.sessions.twisted",
    "flask": "farmsyncd.sessions.flask",
    "werkzeug": "farmsyncd.sessions.flask",
    "markupsafe": "farmsyncd.sessions.flask",
    "django": "farmsyncd.sessions.django",
    "psycopg": "farmsyncd.sessions.stores.postgres",
    "psycopg_pool": "farmsyncd.sessions.stores.postgres",
}


def test_sessions_need_a_framework_or_a_driver_only_where_it_is_used() -> None:
    code = """
import sys
import farmsyncd.sessions, farmsyncd.sessions.wsgi, farmsyncd.sessions.asgi
from farmsyncd.sessions.stores.url import open_store
open_store("sqlite:///never-opened.db").close()
heavy = {"twisted", "zope", "flask", "werkzeug", "django", "starlette", "psycopg", "psycopg_pool", "click", "rich"}
print(sorted(name for name in sys.modules if name.partition(".")[0] in heavy))
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_each_framework_and_driver_is_imported_by_its_own_part_of_the_sessions_alone() -> None:
    wrong = [
        f"{dotted(path)} imports {module}"
        for path in MODULES
        if layer(dotted(path)) == "sessions"
        for module in imported(path)
        if (place := SESSIONS_MAY_IMPORT.get(module.partition(".")[0]))
        and not f"{dotted(path)}.".startswith(f"{place}.")
    ]
    assert wrong == []


def test_each_file_says_what_it_is_for() -> None:
    assert [str(path) for path in SOURCES if not ast.get_docstring(ast.parse(path.read_bytes()))] == []


def test_no_file_is_too_long_to_hold_one_idea() -> None:
    sizes = {dotted(path): len(path.read_bytes().splitlines()) for path in SOURCES}
    assert {name: size for name, size in sizes.items() if size > LONGEST} == {}


def test_the_packages_docstring_names_each_layer() -> None:
    text = (PACKAGE / "__init__.py").read_text()
    assert [name for name in BELOW if f"``{name}``" not in text] == []
