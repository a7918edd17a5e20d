from __future__ import annotations

import contextlib
import os
import signal
import socket
import urllib.error
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from twisted.names import dns

from farmsyncd.cli.lb.status import print_status
from farmsyncd.core.affinity import source_of
from farmsyncd.core.sourcebook import Record
from farmsyncd.edges.config import load
from farmsyncd.errors import BadInput, ConfigError
from farmsyncd.lb.bookfile import Reading
from farmsyncd.lb.config import BalancerConfig
from farmsyncd.lb.processes import shares
from farmsyncd.lb.processes.asking import Asker, Gone
from farmsyncd.lb.processes.cbpf import Spread
from farmsyncd.lb.processes.reshuffle import _write, book, reshuffle
from tests.daemons import Daemons
from tests.eventually import LIMIT, eventually
from tests.lb_farm import Balancer, ThreadedNode, says_its_name
from tests.lb_load import SOURCES, Load, QuickNode, homes_of, port_of, quick_nodes

SPREAD = Spread(2)


def worker_of(source: str) -> int:
    return SPREAD.worker_of(source_of(source))


def pids(balancer: Balancer) -> dict[int, int]:
    with contextlib.suppress(urllib.error.HTTPError):
        return {one["worker"]: one["pid"] for one in balancer.get("/status").get("workers", ())}
    return {}


def command(balancer: Balancer, *words: str) -> Any:
    """What the admin socket of ``balancer`` answers."""
    from farmsyncd.cli.lb.asking import ask

    return ask(balancer.daemon.directory / "admin", *words)


# Real processes


def test_a_worker_that_is_killed_under_load_is_replaced_and_nobody_who_waits_or_comes_is_lost(
    daemons: Daemons, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with quick_nodes("abc") as nodes:
        balancer = Balancer(daemons, *nodes, "--workers", "2", "--state", str(state))
        port = port_of(balancer)
        homes = homes_of(port)
        before = eventually(lambda: len(found := pids(balancer)) == 2 and found)
        unlucky = worker_of(SOURCES[0])
        its = [source for source in SOURCES if worker_of(source) == unlucky]
        others = [source for source in SOURCES if worker_of(source) != unlucky]
        eventually(lambda: set(_sources_in(book(state, unlucky))) >= {source_of(one) for one in its})
        with Load(port, others, homes) as load, contextlib.ExitStack() as held:
            load.more(200)
            os.kill(before[unlucky], signal.SIGSTOP)
            eventually(lambda: stopped(before[unlucky]))
            waiting = {source: held.enter_context(connected(port, source)) for source in its}
            os.kill(before[unlucky], signal.SIGKILL)
            assert {source: client.recv(1).decode() for source, client in waiting.items()} == {
                source: homes[source] for source in its
            }
            load.more(200)
            assert load.faults == []
        after = eventually(lambda: len(found := pids(balancer)) == 2 and found)
        assert after[unlucky] != before[unlucky]
        assert after[1 - unlucky] == before[1 - unlucky]
        assert homes_of(port) == homes
        assert f"worker {unlucky} has died" in balancer.daemon.log
        assert balancer.daemon.stop() == -signal.SIGTERM
        for pid in {*before.values(), *after.values()}:
            assert not alive(pid)


def connected(port: int, source: str) -> socket.socket:
    client = socket.socket()
    client.settimeout(LIMIT)
    client.bind((source, 0))
    client.connect(("127.0.0.1", port))
    return client


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def _sources_in(path: Path) -> dict[bytes, str]:
    reading = Reading(path)
    records = reading.more()
    reading.close()
    return {source: node for source, node, _ in records}


def test_workers_answer_and_are_steered_as_one_and_a_new_one_knows_the_orders(daemons: Daemons, tmp_path: Path) -> None:
    state, admin = tmp_path / "state", tmp_path / "lb" / "admin"
    with quick_nodes("ab") as nodes:
        balancer = Balancer(daemons, *nodes, "--workers", "2", "--state", str(state), "--admin", str(admin))
        homes = homes_of(port_of(balancer))
        status = command(balancer, "status")
        assert status["sources"] == len(homes)
        assert {one["worker"]: one["sources"] for one in status["workers"]} == Counter(map(worker_of, homes))
        assert {node["name"]: node["sources"] for node in status["nodes"]} == Counter(homes.values())
        for source in SOURCES[:6]:
            told = command(balancer, "explain", source)
            assert (told["worker"], told["goes_to"]) == (worker_of(source), [homes[source]])
        listed = command(balancer, "sources", "5")
        assert (listed["known"], len(listed["sources"])) == (len(homes), 5)
        assert balancer.get("/ready") == "2 of 2 nodes take new sources\n"
        assert 'farmsync_lb_node_ready{worker="1",node="b"} 1.0' in balancer.get("/metrics")
        with pytest.raises(BadInput, match="expected a node of this farm"):
            command(balancer, "drain", "nobody")

        assert command(balancer, "drain", "a")["state"] == "draining"
        assert set(homes_of(port_of(balancer), [f"127.0.2.{one}" for one in range(1, 9)]).values()) == {"b"}
        assert homes_of(port_of(balancer)) == homes
        eventually(lambda: '"a":"drain"' in (state / "farm.json").read_text())
        before = pids(balancer)
        os.kill(before[0], signal.SIGKILL)
        eventually(lambda: len(found := pids(balancer)) == 2 and found != before)
        assert {one["name"]: one["order"] for one in command(balancer, "nodes")["nodes"]} == {
            "a": "drain",
            "b": "ready",
        }
        assert set(homes_of(port_of(balancer), [f"127.0.3.{one}" for one in range(1, 9)]).values()) == {"b"}


def test_orders_outlive_all_workers_also_when_nothing_is_written_down(daemons: Daemons, tmp_path: Path) -> None:
    with quick_nodes("abc") as nodes:
        balancer = Balancer(daemons, *nodes, "--workers", "2", "--admin", str(tmp_path / "lb" / "admin"))
        command(balancer, "drain", "a")
        command(balancer, "maint", "b")
        command(balancer, "ready", "b")
        with pytest.raises(BadInput, match="expected a node of this farm"):
            command(balancer, "maint", "nobody")
        before = pids(balancer)
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(found := pids(balancer)) == 2 and not set(found.values()) & set(before.values()))
        wanted = {"a": "drain", "b": "ready", "c": "ready"}
        eventually(lambda: {one["name"]: one["order"] for one in command(balancer, "nodes")["nodes"]} == wanted)
        assert set(homes_of(port_of(balancer)).values()) == {"b", "c"}


def test_workers_leave_when_their_supervisor_dies_and_another_number_of_them_knows_all_sources(
    daemons: Daemons, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with quick_nodes("abc") as nodes:
        balancer = Balancer(daemons, *nodes, "--workers", "2", "--state", str(state))
        homes = homes_of(port_of(balancer))
        workers = pids(balancer)
        port = port_of(balancer)
        balancer.daemon.kill()
        eventually(lambda: not any(map(alive, workers.values())))
        with pytest.raises(ConnectionRefusedError):
            connected(port, "127.0.0.1")
        arguments = [word if word != "2" else "1" for word in balancer.daemon.arguments]
        balancer.daemon.arguments = tuple(arguments)
        balancer.daemon.start().ready()
        assert homes_of(port_of(balancer)) == homes
        assert sorted(path.name for path in state.glob("sources.*")) == ["sources.0"]


def test_workers_that_finish_after_their_supervisor_died_write_nothing_down_any_more(
    daemons: Daemons, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with ThreadedNode("a", says_its_name("a")) as node:
        balancer = Balancer(daemons, "--node", node.option, "--workers", "2", "--state", str(state))
        with balancer.connect(SOURCES[0]) as client:
            assert client.recv(1) == b"a"
            worker = pids(balancer)[worker_of(SOURCES[0])]
            assert writes(worker, state)
            balancer.daemon.kill()
            eventually(lambda: not writes(worker, state))
            assert alive(worker), "somebody is still connected there"
            balancer.daemon.start().ready()
            assert homes_of(port_of(balancer.daemon), SOURCES[:1]) == {SOURCES[0]: "a"}
        eventually(lambda: not alive(worker))


def writes(pid: int, state: Path) -> bool:
    """Whether a process has a book open."""
    found = []
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(one.readlink())
    return any(path.parent == state and path.name.startswith("sources.") for path in found)


def test_the_supervisor_answers_for_the_farms_name_and_hears_of_orders(daemons: Daemons, tmp_path: Path) -> None:
    from farmsyncd.cli.lb.asking import ask

    admin = tmp_path / "admin"
    with QuickNode("a") as one, QuickNode("b") as other:
        nodes = ["--node", one.option, "--node", other.option]
        name = ["--dns", "tcp:0:interface=127.0.0.1", "--dns-name", "shop.example"]
        balancer = Balancer(daemons, *nodes, *name, "--workers", "2", "--admin", str(admin))
        port = int(balancer.daemon.addresses["dns"].rpartition(":")[2])
        assert looked_up(port) == ["127.0.0.1"]
        ask(admin, "maint", "a")
        ask(admin, "maint", "b")
        assert looked_up(port) == []


def looked_up(port: int) -> list[str]:
    question = dns.Message(id=7)
    question.addQuery("shop.example", dns.A)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(LIMIT)
        client.sendto(question.toStr(), ("127.0.0.1", port))
        answer = dns.Message()
        answer.fromStr(client.recv(4096))
    payloads: list[Any] = [record.payload for record in answer.answers]
    return [payload.dottedQuad() for payload in payloads]


# What is shared


def config(**more: object) -> BalancerConfig:
    return load(None, BalancerConfig, {"listen": "tcp:80", "node": ["a=h:1"], **more})


def test_of_a_limit_each_worker_has_its_part() -> None:
    whole = config(
        **{"workers": 3, "max-connections": 10, "sources": 100, "queue": 0, "nodes": {"a": {"max-connections": 2}}}
    )
    parts = [shares.share_of(whole, number) for number in range(3)]
    assert [part.max_connections for part in parts] == [4, 3, 3]
    assert [part.sources for part in parts] == [34, 33, 33]
    assert [part.queue for part in parts] == [0, 0, 0]
    assert [part.nodes["a"].max_connections for part in parts] == [1, 1, 1], "nobody is left without"
    assert sum(part.move_rate for part in parts) == pytest.approx(whole.move_rate)
    only = config(workers=2)
    assert shares.share_of(only, 1).max_connections is None


def test_the_answers_of_workers_are_told_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    def answer(clients: int, state: str, ready: bool) -> dict[str, object]:
        node = {"name": "a", "state": state, "connections": clients, "limit": None, "connections_total": 10}
        return {"ready": ready, "reason": f"{ready}", "clients": clients, "sources": 1, "nodes": [node]}

    found = shares.status_of_all(
        [answer(2, "ready", ready=False), answer(3, "down", ready=True)], [{"worker": 0}, {"worker": 1}]
    )
    assert (found["ready"], found["reason"], found["clients"], found["sources"]) == (True, "True", 5, 2)
    assert found["nodes"] == [{"name": "a", "state": "down", "connections": 5, "limit": None, "connections_total": 20}]
    assert found["workers"] == [
        {"worker": 0, "clients": 2, "sources": 1},
        {"worker": 1, "clients": 3, "sources": 1},
    ]
    nobody = shares.status_of_all([], [])
    assert nobody["ready"] is False
    print_status(nobody)
    assert "being replaced" in capsys.readouterr().out
    assert shares.ready_of_all([(False, "no"), (True, "yes")]) == (True, "yes")
    assert shares.ready_of_all([])[0] is False


def test_a_family_of_metrics_stands_together_with_the_worker_as_a_label() -> None:
    text = '# HELP x Text {0}\n# TYPE x gauge\nx 1.0\n# HELP y_total T\n# TYPE y_total counter\ny_total{node="a"} 2.0\n'
    assert shares.metrics_of_all([(0, text), (4, text)]) == (
        '# HELP x Text {0}\n# TYPE x gauge\nx{worker="0"} 1.0\nx{worker="4"} 1.0\n'
        "# HELP y_total T\n# TYPE y_total counter\n"
        'y_total{worker="0",node="a"} 2.0\ny_total{worker="4",node="a"} 2.0\n'
    )


def test_a_worker_that_dies_leaves_nobody_waiting_for_its_answers() -> None:
    said: list[bytes] = []
    asker = Asker(said.append)
    results: list[Any] = []
    for verb in ("status", "answer", "metrics"):
        asker.ask(verb, 1).addBoth(results.append)
    assert said[1] == b'[2,"answer",1]\n'
    asker.heard(b'[2,null,"no such')
    asker.heard(b' node",65]\n[1,{"a":1}]\n')
    assert results[0].check(BadInput)
    assert results[1] == {"a": 1}
    asker.lost()
    asker.ask("ready").addBoth(results.append)
    assert [bool(result.check(Gone)) for result in results[2:]] == [True, True]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"workers": 2, "listen": "unix:/run/x"}, "expected a tcp endpoint for 2 workers"),
        ({"workers": 2, "accept-proxy": True}, "expected one worker"),
        ({"workers": 65}, "at most 64"),
        ({"take-over": True}, "expected a state directory"),
    ],
)
def test_what_workers_cannot_share_is_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        config(**options)


# Another number of workers


def some(count: int) -> list[Record]:
    return [(number.to_bytes(4, "big"), f"n{number % 3}", number * 10**9) for number in range(count)]


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (3, 2), (2, 3)])
def test_sources_find_their_new_worker(tmp_path: Path, before: int, after: int) -> None:
    records = some(200)
    old, new = Spread(before), Spread(after)
    for number in range(before):
        _write(book(tmp_path, number), [one for one in records if old.worker_of(one[0]) == number])
    reshuffle(tmp_path, new)
    for number in range(after):
        assert _sources_in(book(tmp_path, number)) == {
            source: node for source, node, _ in records if new.worker_of(source) == number
        }
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"sources.{number}" for number in range(after)]


def test_a_crash_while_books_are_written_anew_loses_no_source(tmp_path: Path) -> None:
    records = some(100)
    old, new = Spread(3), Spread(2)
    for crash in range(4):
        for path in tmp_path.iterdir():
            path.unlink()
        for number in range(3):
            _write(book(tmp_path, number), [one for one in records if old.worker_of(one[0]) == number])
        _write(tmp_path / "sources.all", records)
        for number in range(min(crash, 2)):
            _write(book(tmp_path, number), [one for one in records if new.worker_of(one[0]) == number])
        if crash == 3:
            book(tmp_path, 2).unlink()
        reshuffle(tmp_path, new)
        found = {**_sources_in(book(tmp_path, 0)), **_sources_in(book(tmp_path, 1))}
        assert found == {source: node for source, node, _ in records}
        assert not (tmp_path / "sources.all").exists()


def test_what_was_said_last_holds_and_nothing_is_touched_without_need(tmp_path: Path) -> None:
    _write(book(tmp_path, 0), [(b"\1\1\1\1", "new", 20 * 10**9)])
    _write(book(tmp_path, 1), [(b"\1\1\1\1", "old", 10 * 10**9)])
    reshuffle(tmp_path, Spread(1))
    assert _sources_in(book(tmp_path, 0)) == {b"\1\1\1\1": "new"}
    before = book(tmp_path, 0).stat()
    reshuffle(tmp_path, Spread(1))
    assert os.path.samestat(before, book(tmp_path, 0).stat())
    reshuffle(tmp_path / "nothing", Spread(4))
