"""docs/sessions.md keeps step: each of its examples is run, with real requests, and its tables are the program's."""

from __future__ import annotations

import asyncio
import re
import shlex
import threading
import types
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import attrs
import httpx
import pytest
import pytest_twisted
from click.testing import CliRunner
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from farmsyncd.cli.main import farmsync
from farmsyncd.sessions import CookieSettings, SessionConflict, Sessions, SessionSettings
from tests import django_site
from tests.daemons import TREE, Daemons

assert django_site  # configures Django

PAGE = TREE / "docs" / "sessions.md"
TEXT = PAGE.read_text("utf-8")
COUNTS = [f"pears in your cart: {number}\n" for number in (1, 2, 3)]


def blocks() -> dict[str, list[tuple[str, str]]]:
    """The blocks of code below each heading: their language, and their text."""
    found: dict[str, list[tuple[str, str]]] = {}
    for part in re.split(r"^#+ ", TEXT, flags=re.MULTILINE)[1:]:
        heading = part.partition("\n")[0]
        found[heading] = re.findall(r"^```(\w*)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    return found


def block(heading: str, number: int = 0, language: str = "python") -> str:
    """One of them."""
    found = blocks()[heading][number]
    assert found[0] == language
    return found[1]


def run(code: str, **names: Any) -> dict[str, Any]:
    """What the code defines."""
    space: dict[str, Any] = {"__name__": "example", **names}
    exec(compile(code, str(PAGE), "exec"), space)
    return space


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_args: Any) -> None:
        """Say nothing of each request."""


@contextmanager
def serving(application: Any) -> Iterator[str]:
    """An HTTP server of this process with the application; its address."""
    server = make_server("127.0.0.1", 0, application, handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def shop_at(address: str) -> list[str]:
    """What a shopper is told who puts in three pears; another one has a cart of their own."""
    with httpx.Client(base_url=address, timeout=30, trust_env=False) as shopper:
        told = [shopper.post("/pears").raise_for_status().text for _ in range(3)]
        (cookie,) = shopper.cookies.jar
        assert cookie.has_nonstandard_attr("HttpOnly")
    with httpx.Client(base_url=address, timeout=30, trust_env=False) as other:
        assert other.post("/pears").text == COUNTS[0]
    return told


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_example_for_wsgi() -> None:
    space = run(block("WSGI"))
    with serving(space["application"]) as address:
        assert shop_at(address) == COUNTS
    space["sessions"].close()
    assert Path("sessions.db").exists()


def test_the_example_for_starlette() -> None:
    space = run(block("Starlette and other ASGI"))
    told: list[str] = []

    async def shop() -> None:
        transport = httpx.ASGITransport(space["application"])
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as shopper:
            told.extend([(await shopper.post("/pears")).text for _ in range(3)])

    _in_a_loop(shop)
    assert told == COUNTS
    space["sessions"].close()


def _in_a_loop(function: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await function()

    asyncio.run(main())


def test_the_example_for_flask() -> None:
    app = run(block("Flask"))["app"]
    with serving(app) as address:
        assert shop_at(address) == COUNTS
    app.extensions["farmsync_sessions"].close()


def test_the_example_for_django() -> None:
    chosen = {name: value for name, value in run(block("Django")).items() if name.isupper()}
    urls = types.ModuleType("shop_urls")
    vars(urls).update(run(block("Django", 1)))
    assert set(chosen) == {"SESSION_ENGINE", "FARMSYNC_SESSIONS", "MIDDLEWARE"}
    with override_settings(**chosen, ROOT_URLCONF=urls), serving(WSGIHandler()) as address:
        assert shop_at(address) == COUNTS
    assert Path("sessions.db").exists()


@pytest_twisted.ensureDeferred
async def test_the_example_for_twisted() -> None:
    space = run(block("Twisted"))
    port: Any = reactor.listenTCP(0, space["site"], interface="127.0.0.1")
    told = await deferToThread(shop_at, f"http://127.0.0.1:{port.getHost().port}")
    assert told == COUNTS
    await port.stopListening()
    space["sessions"].close()


def test_the_example_for_a_node(daemons: Daemons, tmp_path: Path) -> None:
    words = shlex.split(block("On a node", 1, "sh").replace("\\\n", " "))
    assert words[:3] == ["twistd", "-n", "farmsync-node"]
    options = dict(zip(words[3::2], words[4::2], strict=True))
    options.update({"--data": "tcp:127.0.0.1:1", "--http": "tcp:0:interface=127.0.0.1"})
    del options["--state"]
    (tmp_path / "web1").mkdir()
    (tmp_path / "web1" / "shop.py").write_text(block("On a node"))
    arguments = [word for pair in options.items() for word in pair]
    node = daemons.start("farmsync-node", *arguments, name="web1")
    assert shop_at(node.address("http")) == COUNTS
    assert (tmp_path / "web1" / "sessions.db").exists()


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    made = Sessions.at("sqlite:///sessions.db", SessionSettings(sweep_every_s=0))
    yield made
    made.close()


def test_the_example_for_signing_in_and_out(sessions: Sessions) -> None:
    space = run(block("Signing in and out"))
    session = sessions.open(None)
    session["cart:pears"] = 1
    session.commit()
    planted = session.token
    space["sign_in"](session, "ann")
    session.commit()
    assert sessions.open(planted).is_new
    assert dict(sessions.open(session.token)) == {"cart:pears": 1, "user": "ann"}
    space["sign_out"](session)
    session.commit()
    assert sessions.store.stats().live == 0


def test_the_examples_for_two_requests_at_once(sessions: Sessions) -> None:
    space = run(block("Two requests at once"))
    add = space["add"]
    session = sessions.open(None)
    add(session, "pears")
    session.commit()

    def both(one: str, other: str) -> None:
        first, second = sessions.open(session.token), sessions.open(session.token)
        add(first, one)
        add(second, other)
        first.commit()
        second.commit()

    both("apples", "plums")
    with pytest.raises(SessionConflict):
        both("pears", "pears")
    held = sessions.open(session.token)
    assert held["cart:pears"] == 2
    other = sessions.open(session.token)
    add(other, "pears")
    other.commit()
    run(block("Two requests at once", 1), session=held, add=add)
    assert dict(sessions.open(session.token)) == {"cart:pears": 4, "cart:apples": 1, "cart:plums": 1}


def test_the_commands_for_operators(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    session = sessions.open(None)
    session["pears"] = 1
    session.commit()
    assert session.digest is not None
    lines = block("Operations", 0, "sh").replace("3f9a27", session.digest[:6]).splitlines()
    assert lines[0].startswith("export FARMSYNC_SESSIONS=")
    monkeypatch.setenv(*lines[0].removeprefix("export ").split("=", 1))
    told = []
    for line in lines[1:]:
        program, *words = shlex.split(line)
        assert program == "farmsync"
        result = CliRunner().invoke(farmsync, words)
        assert result.exit_code == 0, result.output
        told.append(result.output)
    assert session.digest[:6] in told[0]
    assert "pears" in told[1]
    assert sessions.store.stats().live == 0


def test_each_block_has_its_test() -> None:
    assert {heading: len(found) for heading, found in blocks().items() if found} == {
        "WSGI": 1,
        "Starlette and other ASGI": 1,
        "Flask": 1,
        "Django": 2,
        "Twisted": 1,
        "On a node": 2,
        "Signing in and out": 1,
        "Two requests at once": 2,
        "Operations": 1,
    }
    assert TEXT.count("```") == 2 * 12


@pytest.mark.parametrize(("name", "kind"), [("settings", SessionSettings), ("cookie", CookieSettings)])
def test_each_setting_is_listed_with_its_default(name: str, kind: type[attrs.AttrsInstance]) -> None:
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- end of {name} -->", TEXT, re.DOTALL)
    assert found is not None
    rows = re.findall(r"^\| `(\w+)` \| `?(.*?)`? \| .+ \|$", found[1], re.MULTILINE)
    expected = [(field.name, field.default) for field in attrs.fields(kind)]
    assert rows == [(name, f"{value:g}" if value == 5 else _shown(value)) for name, value in expected]


def _shown(value: object) -> str:
    return str(int(value)) if isinstance(value, float) else str(value)


def test_links_lead_to_headings() -> None:
    headings = {re.sub(r"[^\w -]", "", one).strip().lower().replace(" ", "-") for one in blocks()}
    assert [link for link in re.findall(r"\]\(#([\w-]+)\)", TEXT) if link not in headings] == []
    for link in re.findall(r"\]\(([\w.]+\.md)", TEXT):
        assert (PAGE.parent / link).exists()
