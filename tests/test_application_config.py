"""The application's part of a node's configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from farmsyncd.cli.main import run
from farmsyncd.edges.config import load
from farmsyncd.errors import ConfigError
from farmsyncd.node.config import NodeConfig
from farmsyncd.sessions import CookieSettings, SessionSettings

NODE = 'state = "s"\ndata = "tcp:127.0.0.1:1"\nname = "web"\n'
HTTP = 'http = "tcp:0"\n'


def config(tmp_path: Path, text: str) -> NodeConfig:
    """The configuration that a file makes."""
    path = tmp_path / "node.toml"
    path.write_text(f"[node]\n{text}")
    return load(path, NodeConfig)


def test_without_settings_sessions_are_as_their_own_defaults_have_it(tmp_path: Path) -> None:
    found = config(tmp_path, NODE)
    assert found.session.settings() == SessionSettings()
    assert found.session.cookies() == CookieSettings()


def test_settings_of_sessions_can_be_chosen(tmp_path: Path) -> None:
    found = config(
        tmp_path,
        f"""{NODE}{HTTP}wsgi = "shop:make()"
sessions = "sqlite:///sessions.db"
[node.session]
idle = "1h"
revalidate-after = "0s"
cache = "1MiB"
cookie = "shop"
cookie-secure = "always"
cookie-same-site = "Strict"
""",
    )
    settings = found.session.settings()
    assert (settings.idle_s, settings.revalidate_after_s, settings.cache_bytes) == (3600.0, 0.0, 1024 * 1024)
    assert found.session.cookies() == CookieSettings(name="shop", secure=True, same_site="Strict")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('wsgi = "shop:application"', "expected http with wsgi"),
        ('http = "tcp:0"\nsessions = "sqlite:///x.db"', "expected wsgi with sessions"),
        ('http = "tcp:0"\nwsgi = "shop"', "expected the name of a WSGI application"),
        ('http = "tcp:0"\nwsgi = "shop:a b"', "expected the name of a WSGI application"),
        ('http = "tcp:0"\nwsgi = "a:b"\nsessions = "mysql://root:secret@x/y"', "sessions: expected the URL of a"),
        ('dataset = ["shop", "lock"]', "nodes have a file of their own named lock"),
        ('[node.session]\ncookie = "a b"', "session: expected a cookie's name"),
        ("[node.application]\nthreads = 0", "application.threads: expected a whole number, at least 1"),
        ('[node.application]\nbody-limits = "1MiB"', "did you mean body-limit?"),
    ],
)
def test_what_is_wrong_is_found_by_check_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, fault: str
) -> None:
    path = tmp_path / "node.toml"
    path.write_text(f"[node]\n{NODE}{text}\n")
    assert run(["check-config", str(path)]) == 78
    told = capsys.readouterr().err
    assert fault in told
    assert "secret" not in told
    with pytest.raises(ConfigError):
        load(path, NodeConfig)
