"""Hooks that do not end: they are ended with all that they started, in time and when the node stops."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from farmsyncd.edges.webclient import web_client
from farmsyncd.node.hooks import Flip, Hooks
from tests.daemons import Daemons
from tests.eventually import eventually, eventually_async
from tests.farm import Farm

the_reactor: Any = reactor
TOLD = Flip("shop", "a" * 40, 4, "/")


def hooks(*command: str, url: str | None = None, timeout_s: float = 30.0, grace_s: float = 30.0) -> Hooks:
    return Hooks(the_reactor, the_reactor, web_client(reactor), command, url, timeout_s, grace_s=grace_s)


def begun(file: Path) -> int:
    """The process whose number ``file`` holds; 0 before it does."""
    return int(file.read_text()) if file.exists() and file.read_text().endswith("\n") else 0


def runs(pid: int) -> bool:
    """Whether a process runs that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in {"Z", "X"}
    except OSError:
        return False


@pytest.mark.parametrize(
    ("script", "grace_s"),
    [
        ("sleep 600 & echo $! > {pid}; wait", 30.0),
        ("trap '' TERM; (sleep 600 & echo $! > {pid}; wait); sleep 600", 0.2),  # heeds no SIGTERM: is killed then
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(
    script: str, grace_s: float, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    for timeout_s in (0.5, 2, 8, 30):  # on a busy machine it may not get far in half a second
        one = hooks("/bin/sh", "-c", script.format(pid=pid), timeout_s=timeout_s, grace_s=grace_s)
        assert await one.run(TOLD) == f"command /bin/sh: not done within {timeout_s:g} s"
        if begun(pid):
            break
    assert begun(pid)
    await eventually_async(lambda: not runs(begun(pid)))


@pytest_twisted.ensureDeferred
async def test_a_command_may_clean_up_when_it_is_told_to_end(tmp_path: Path) -> None:
    begins, cleaned = tmp_path / "begins", tmp_path / "cleaned"
    script = f"trap 'echo yes > {cleaned}; exit 1' TERM; echo 1 > {begins}; while :; do sleep 0.1; done"
    one = hooks("/bin/sh", "-c", script)
    running = Deferred.fromCoroutine(one.run(TOLD))
    await eventually_async(lambda: begun(begins))
    await one.stop()
    assert await running == "command /bin/sh: ended, for the node is being stopped"
    assert cleaned.read_text() == "yes\n"


@pytest_twisted.ensureDeferred
async def test_what_a_command_leaves_behind_when_it_is_done_goes_on(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    one = hooks("/bin/sh", "-c", f"sleep 600 & echo $! > {pid}")
    try:
        assert await one.run(TOLD) == ""  # although what it left holds its output open
        await one.stop()
        assert runs(begun(pid))
    finally:
        os.kill(begun(pid), signal.SIGKILL)


@pytest_twisted.ensureDeferred
async def test_a_command_may_say_more_than_a_pipe_holds_and_its_last_words_are_told() -> None:
    script = "i=0; while [ $i -lt 3000 ]; do echo 'one line of many, and this is a long one'; i=$((i+1)); done"
    detail = await hooks("/bin/sh", "-c", f"{script}; echo the last; exec 1>&- 2>&-; sleep 0.2; exit 3").run(TOLD)
    assert detail.startswith("command /bin/sh: ended with status 3: ")
    assert detail.endswith(" / the last")


class Silent(Resource):
    """Never answers."""

    isLeaf = True  # noqa: N815
    asked = 0

    def render_POST(self, request: Any) -> int:  # noqa: N802
        self.asked += 1
        request.notifyFinish().addErrback(lambda _: None)
        return NOT_DONE_YET


@pytest_twisted.ensureDeferred
async def test_a_post_that_is_not_answered_is_given_up_in_time_and_when_the_node_stops() -> None:
    silent = Silent()
    port = the_reactor.listenTCP(0, Site(silent), interface="127.0.0.1")
    url = f"http://127.0.0.1:{port.getHost().port}/hook"
    assert await hooks(url=url, timeout_s=0.5).run(TOLD) == f"POST {url}: not done within 0.5 s"
    one = hooks(url=url)
    asked = silent.asked
    running = Deferred.fromCoroutine(one.run(TOLD))
    await eventually_async(lambda: silent.asked > asked)
    await one.stop()
    assert await running == f"POST {url}: ended, for the node is being stopped"
    assert await one.run(TOLD) == f"POST {url}: ended, for the node is being stopped"
    await port.stopListening()


@pytest.fixture
def farm(daemons: Daemons, tmp_path: Path) -> Farm:
    return Farm(daemons, tmp_path)


def test_a_node_that_stops_ends_its_hooks_and_reports_the_flip_when_it_is_back(farm: Farm, tmp_path: Path) -> None:
    pid, config = tmp_path / "pid", tmp_path / "hooked.toml"
    script = f"[ -e {pid} ] || {{ sleep 600 & echo $! > {pid}; wait; }}"
    config.write_text(f"[node.hooks]\ntimeout = '600s'\ncommand = {json.dumps(['/bin/sh', '-c', script])}\n")
    node = farm.node("web-1", "--config", str(config))
    one = farm.publish({"a": b"1"})
    eventually(lambda: begun(pid), what="the hook runs")
    node.daemon.stop()
    eventually(lambda: not runs(begun(pid)), what="what the hook started has ended")
    node.daemon.start().ready()
    [flip] = farm.whole_report(one)["nodes"]
    assert flip["detail"] == "the node ended before its hooks had"
