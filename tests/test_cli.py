"""The ``farmsync`` command as its users run it: a process of its own against a real data server and a real node."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import pytest

from farmsyncd.cli.main import run
from farmsyncd.cli.status import print_status
from farmsyncd.cli.times import NS
from tests.daemons import Daemons, environment
from tests.eventually import LIMIT, eventually
from tests.shell import Shell
from tests.terminal import HIDE_CURSOR, on_a_terminal

LOCAL = "tcp:0:interface=127.0.0.1"


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a data server that a node follows."""
    with Daemons(tmp_path_factory.mktemp("farm")) as daemons:
        data = daemons.start("farmsync-data", "--listen", LOCAL, name="data").address("listen")
        daemons.start("farmsync-node", "--data", data, "--name", "web1", "--http", LOCAL, name="web1").ready()
        yield data


@pytest.fixture
def shell(farm: str, tmp_path: Path) -> Shell:
    return Shell(tmp_path, farm)


def test_a_version_is_published_waited_for_reported_and_rolled_back(shell: Shell) -> None:
    first = shell.json("publish", "story", shell.site("one", page="old"), "--now")
    assert first["cycle"] == 1
    assert first["files"] == 1
    assert first["sent_bytes"] == 3
    shell.ok("wait", "story", "--version", first["version"][:12], "--timeout", "60")
    second = shell.json("publish", "story", shell.site("two", page="new", more="more"), "--in", "3s")
    assert f"serves version {second['version'][:12]}" in shell.ok(
        "wait", "story", "--version", second["version"], "--timeout", "90"
    )
    status = shell.json("status")
    assert status["datasets"]["story"]["active"]["version"] == second["version"]
    node = next(node for node in status["nodes"] if node["dataset"] == "story")
    assert node["name"] == "web1"
    assert node["active"] == second["version"]
    assert node["error_bound_ns"] > 0
    report = shell.json("report", "story", str(second["cycle"]))
    assert report["version"] == second["version"]
    back = shell.json("rollback", "story", "--now")
    assert back["version"] == first["version"]
    shell.ok("wait", "story", "--version", first["version"], "--timeout", "90")
    history = shell.json("history", "story")["cycles"]
    assert [cycle["version"] for cycle in history] == [first["version"], second["version"], first["version"]]


def test_people_are_told_the_same_in_aligned_text(shell: Shell) -> None:
    said = shell.ok("publish", "texts", shell.site("one", page="old"), "--in", "1h")
    assert "cycle 1, version" in said
    assert "1 file, 3 B; " in said
    assert "UTC, in 1 h 0 min" in said or "UTC, in 59 min" in said
    eventually(lambda: "texts" in {node["dataset"] for node in shell.json("status")["nodes"]}, what="web1 follows it")
    status = shell.ok("status")
    assert "texts" in status
    assert "active  none yet" in status
    lines = [line for line in status.splitlines() if line.startswith(("NODE", "web1"))]
    assert len(lines) >= 2
    assert len({line.index(cell) for line, cell in zip(lines[:2], ("DATASET", lines[1].split()[1]), strict=True)}) == 1
    assert "pending" in shell.ok("history", "texts")
    assert "\x1b" not in said + status, "colour belongs on a terminal only"
    cancelled = shell.ok("cancel", "texts")
    assert "will not be activated" in cancelled


def test_a_later_publication_replaces_the_pending_one_and_says_so(shell: Shell) -> None:
    first = shell.json("publish", "later", shell.site("one", page="1"), "--in", "1h")
    second = shell.json("publish", "later", shell.site("two", page="2"), "--at", "2099-01-01T00:00Z")
    assert second["replaced"] == first["version"]
    assert abs(second["utc_ns"] - 4_070_908_800 * 10**9) < 10**6


def test_a_dry_run_says_what_would_happen_and_changes_nothing(shell: Shell) -> None:
    first = shell.json("publish", "dry", shell.site("one", kept="same", old="old", gone="gone"), "--now")
    shell.ok("wait", "dry", "--version", first["version"], "--timeout", "90")
    site = shell.site("two", kept="same", old="other", come="come")
    (Path(site) / "kept").unlink()
    os.link(Path(site).parent / "one" / "kept", Path(site) / "kept")
    forecast = shell.json("publish", "dry", site, "--in", "1h", "--dry-run")
    assert (forecast["added_names"], forecast["changed_names"], forecast["removed_names"]) == (
        ["come"],
        ["old"],
        ["gone"],
    )
    assert forecast["sent_bytes"] == len("other") + len("come")
    assert [(node["name"], node["likely"]) for node in forecast["nodes"]] == [("web1", True)]
    said = shell.ok("publish", "dry", site, "--in", "1h", "--dry-run")
    assert "nothing has been changed" in said
    assert "  + come" in said
    assert shell.json("status")["datasets"]["dry"]["next"] is None


def test_pins_are_set_and_dropped(shell: Shell) -> None:
    version = shell.json("publish", "pins", shell.site("one", page="1"), "--now")["version"]
    shell.ok("wait", "pins", "--version", version, "--timeout", "90")
    assert "keeps version" in shell.ok("pin", "web1", "pins", version[:8])
    pinned = [node["pins"] for node in shell.json("status")["nodes"] if node["dataset"] == "pins"]
    assert pinned == [[version]]
    assert "no pins" in shell.ok("unpin", "web1", "pins")
    assert "expected" in shell.fails(65, "unpin", "web1", "pins")
    assert "expected" in shell.fails(65, "pin", "nobody", "pins", version)


@pytest.mark.parametrize(
    ("status", "arguments", "told"),
    [
        (
            64,
            ("publish", "shop", ".", "--data", "tcp:h:1"),
            "expected one of --at TIME, --in SECONDS and --now, and found none",
        ),
        (64, ("publish", "shop", ".", "--now", "--in", "5", "--data", "tcp:h:1"), "found --in and --now"),
        (64, ("publish", "shop"), "Missing argument 'PATH'"),
        (64, ("publish",), "Try 'farmsync publish --help'"),
        (64, ("fly",), "No such command 'fly'"),
        (64, ("status", "--loud"), "No such option"),
        (64, ("status",), "Missing option '--data' (env var: 'FARMSYNC_DATA')"),
        (65, ("publish", "a/b", ".", "--now", "--data", "tcp:h:1"), "expected a name"),
        (65, ("publish", "shop", ".", "--at", "yesterday", "--data", "tcp:h:1"), "expected a time such as"),
        (65, ("publish", "shop", ".", "--at", "2020-01-01T00:00Z", "--data", "tcp:h:1"), "which has passed"),
        (65, ("publish", "shop", ".", "--in", "soon", "--data", "tcp:h:1"), "expected a length of time"),
        (65, ("publish", "shop", "", "--now", "--data", "tcp:h:1"), "expected a directory for PATH, and found nothing"),
        (78, ("check-config", "nowhere.toml"), "expected a configuration file at nowhere.toml"),
    ],
)
def test_wrong_input_is_told_before_anybody_is_asked(
    status: int,
    arguments: tuple[str, ...],
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("FARMSYNC_DATA", raising=False)
    assert run(list(arguments)) == status
    said = capsys.readouterr()
    assert said.err.startswith("farmsync: ")
    assert told in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("status", "arguments", "told"),
    [
        (65, ("publish", "shop", "nowhere", "--now"), "expected a directory at nowhere"),
        (65, ("history", "unheard"), "unheard"),
        (65, ("report", "unheard"), "unheard"),
        (65, ("cancel", "unheard"), "unheard"),
        (65, ("rollback", "unheard", "--now"), "unheard"),
        (65, ("rollback", "unheard", "--to", "xyz", "--now"), "at least 4 of its first hexadecimal digits"),
        (65, ("wait", "unheard", "--version", "0123abcd"), "unheard"),
        (69, ("status", "--data", "tcp:127.0.0.1:1"), "expected a data server at tcp:127.0.0.1:1"),
        (78, ("status", "--data", "carrier pigeon"), "expected an endpoint"),
    ],
)
def test_what_the_data_server_refuses_is_told_plainly(
    shell: Shell, status: int, arguments: tuple[str, ...], told: str
) -> None:
    assert told in shell.fails(status, *arguments)


def test_what_is_no_data_server_is_not_called_one(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(LIMIT)
        ssh = Thread(target=_greet_as, args=(other, b"SSH-2.0-OpenSSH_9.9\r\n"), daemon=True)
        ssh.start()
        said = shell.fails(69, "status", "--data", f"tcp:127.0.0.1:{other.getsockname()[1]}")
        ssh.join()
    assert said.startswith("farmsync: no data server has greeted there: expected a verb")
    assert "SSH-2.0-OpenSSH_9.9" in said


def _greet_as(server: socket.socket, greeting: bytes) -> None:
    client, _address = server.accept()
    with client, contextlib.suppress(ConnectionResetError):
        client.sendall(greeting)
        while client.recv(1000):
            pass


def test_a_wait_that_takes_too_long_says_who_is_missing(shell: Shell) -> None:
    version = shell.json("publish", "slow", shell.site("one", page="1"), "--in", "1h")["version"]
    assert "web1" in shell.fails(75, "wait", "slow", "--version", version, "--timeout", "1")


def test_a_configuration_is_checked_as_a_whole(shell: Shell) -> None:
    good = shell.directory / "good.toml"
    good.write_text('[data]\nstate = "/tmp/x"\nlisten = "tcp:7420"\n')
    assert "can be used" in shell.ok("check-config", str(good))
    bad = shell.directory / "bad.toml"
    bad.write_text('[data]\nstate = 5\nlisten = "tcp"\nlissen = "tcp:7420"\n')
    said = shell.fails(78, "check-config", str(bad))
    assert all(key in said for key in ("state", "listen", "lissen"))


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
def test_shells_get_their_completion(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", kind]) == 0
    assert "_FARMSYNC_COMPLETE" in capsys.readouterr().out


def test_help_teaches_and_every_command_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    said = capsys.readouterr().out
    assert "tomorrow 06:00" in said
    for command in [
        "publish",
        "status",
        "wait",
        "history",
        "report",
        "rollback",
        "cancel",
        "pin",
        "unpin",
        "check-config",
        "completion",
    ]:
        assert command in said
        assert run([command, "--help"]) == 0
        assert len(capsys.readouterr().out.splitlines()) > 5


@pytest.mark.parametrize("command", ["wait", "rollback", "pin"])
def test_help_says_that_the_beginning_of_a_version_will_do(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert "first hexadecimal digits" in " ".join(capsys.readouterr().out.split())


def test_a_reader_that_leaves_early_ends_the_output_quietly(shell: Shell) -> None:
    shell.json("publish", "pipe", shell.site("one", page="1"), "--in", "1h")
    script = f"{sys.executable} -m farmsyncd.cli status | head -n 0"
    done = subprocess.run(
        ["bash", "-c", script], env={**environment(), "FARMSYNC_DATA": shell.data},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stderr == ""


def test_off_a_terminal_nothing_is_drawn(shell: Shell) -> None:
    done = shell.run("publish", "quiet", shell.site("one", page="1"), "--in", "1h")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "quiet cycle 1" in done.stdout


def test_times_of_the_status_are_this_machines_however_far_farm_time_is_from_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    farm_ns = 1_500_000_000 * NS
    status = {
        "farm_time_ns": farm_ns,
        "datasets": {
            "shop": {
                "active": {"cycle": 1, "version": "a" * 40, "activated_at_ns": farm_ns - 90 * NS},
                "next": {"cycle": 2, "version": "b" * 40, "activates_at_ns": farm_ns + 200 * NS},
            }
        },
        "nodes": [],
    }
    print_status(status, datetime(2027, 1, 31, 6, tzinfo=UTC))
    active, coming = capsys.readouterr().out.splitlines()[1:3]
    assert active.endswith("since Sun 2027-01-31 05:58:30 UTC, 1 min 30 s ago")
    assert coming.endswith("Sun 2027-01-31 06:03:20 UTC, in 3 min 20 s")


def test_on_a_terminal_there_is_colour(shell: Shell) -> None:
    shell.json("publish", "colour", shell.site("one", page="1"), "--in", "1h")
    seen = on_a_terminal(shell, "status")
    assert seen.status == 0
    assert b"\x1b[1mcolour\x1b[0m" in seen.text


def test_a_terminal_that_is_too_narrow_gets_whole_lines_and_one_of_80_columns_is_wide_enough(shell: Shell) -> None:
    version = shell.json("publish", "narrow", shell.site("one", page="1"), "--now")["version"]
    shell.ok("wait", "narrow", "--version", version, "--timeout", "60")
    shell.json("publish", "narrow", shell.site("two", page="2"), "--in", "1h")
    eventually(
        lambda: any(node["dataset"] == "narrow" and node["staged"] for node in shell.status()["nodes"]), what="staging"
    )
    seen = on_a_terminal(shell, "status", columns=40).text.decode()
    lines = re.sub(r"\x1b\[[0-9;]*m", "", seen).splitlines()
    (header,) = (line for line in lines if line.startswith("NODE"))
    assert header.split("  ")[0] == "NODE"
    assert header.endswith("SEEN")
    (row,) = (line for line in lines if line.startswith("web1") and " narrow " in line)
    assert row.endswith(" now")
    assert version[:12] in row
    assert len(row) <= 80


def test_ctrl_c_leaves_the_terminal_as_it_was(shell: Shell) -> None:
    version = shell.json("publish", "ctrl", shell.site("one", page="1"), "--in", "1h")["version"]
    seen = on_a_terminal(shell, "wait", "ctrl", "--version", version, interrupt_at=b"nodes serve")
    assert seen.status == 130
    assert HIDE_CURSOR in seen.text, "a spinner was there"
    assert seen.cursor()
    assert b"Traceback" not in seen.text


def test_ctrl_c_ends_the_reading_of_a_large_directory(shell: Shell) -> None:
    endless = """
import time, farmsyncd.cli.publish
def scan(path, progress, cache):
    while True:
        progress(1, 1)
        time.sleep(0.01)
farmsyncd.cli.publish.scan = scan"""
    seen = on_a_terminal(shell, "publish", "ctrl", ".", "--now", interrupt_at=b"reading", meddling=endless)
    assert seen.status == 130
    assert seen.cursor()
    assert b"Traceback" not in seen.text
