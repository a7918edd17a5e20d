"""How a front ends, and how it pauses: its clients may finish, for a while; and what ends a connection, to the byte."""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from farmsyncd.lb.relaying.binding import bind
from farmsyncd.lb.relaying.events import IN
from farmsyncd.lb.relaying.front import Front
from farmsyncd.lb.relaying.settings import RelaySettings
from farmsyncd.lb.relaying.sockets import is_closed
from tests.eventually import LIMIT, eventually, eventually_async
from tests.lb_farm import reset
from tests.relay_scene import EchoNode, exactly
from tests.relaying_front import PlainDispatcher, node


@attrs.frozen
class Scene:
    """A front in this process, before a node that echoes."""

    front: Front
    listener: socket.socket
    dispatcher: PlainDispatcher

    def client(self) -> socket.socket:
        """One that connects; its node answers only while the reactor runs."""
        return socket.create_connection(self.listener.getsockname(), LIMIT)


def _echo(client: socket.socket) -> None:
    client.sendall(b"hello")
    assert exactly(client, 5) == b"hello"


@pytest.fixture
def scene() -> Iterator[Scene]:
    with EchoNode() as echo, bind("tcp:0:interface=127.0.0.1") as listener:
        dispatcher = PlainDispatcher([node(*echo.node)])
        front = Front(listener, dispatcher, reactor, RelaySettings())
        front.start()
        yield Scene(front, listener, dispatcher)
        pytest_twisted.blockon(front.finish(0))


@pytest_twisted.ensureDeferred
async def test_a_front_waits_until_its_last_client_has_gone(scene: Scene) -> None:
    with scene.client() as client:
        await deferToThread(_echo, client)
        assert scene.front.connections == 1
        done = scene.front.finish(10 * LIMIT)
        await deferToThread(_echo, client)
        assert not done.called
    await done
    assert scene.front.connections == 0
    assert scene.dispatcher.nodes[0].connections == 0
    await scene.front.finish(0)  # once more is harmless


@pytest_twisted.ensureDeferred
async def test_a_front_resets_those_who_stay_too_long(scene: Scene) -> None:
    with scene.client() as client:
        await deferToThread(_echo, client)
        await scene.front.finish(0.1)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


@pytest_twisted.ensureDeferred
async def test_who_comes_while_a_front_ends_waits_in_the_kernels_queue_for_whoever_accepts_next(scene: Scene) -> None:
    with scene.client() as client:
        await deferToThread(_echo, client)
        done = scene.front.finish(10 * LIMIT)
        with scene.client() as late:
            late.sendall(b"hello")
            await deferToThread(_echo, client)
            assert scene.front.connections == 1
            client.close()
            await done
            successor = Front(scene.listener, scene.dispatcher, reactor, RelaySettings())
            successor.start()
            assert await deferToThread(exactly, late, 5) == b"hello"
        await eventually_async(lambda: successor.connections == 0)
        await successor.finish(0)


def _watched(front: Front, one: socket.socket) -> int:
    """The events of ``one`` that the front's epoll watches, as the kernel tells."""
    told = Path(f"/proc/self/fdinfo/{front._events.fileno()}").read_text()
    found = re.search(rf"tfd:\s+{one.fileno()} events:\s+([0-9a-f]+)", told)
    assert found is not None, told
    return int(found[1], 16)


@pytest_twisted.ensureDeferred
async def test_a_front_without_descriptors_does_not_ask_for_clients_until_there_are_some(scene: Scene) -> None:
    assert _watched(scene.front, scene.listener) & IN
    scene.front.out_of_descriptors()
    assert not _watched(scene.front, scene.listener) & IN, "it would be told of those who wait again and again"
    with scene.client() as client:
        await deferToThread(_echo, client)
    assert _watched(scene.front, scene.listener) & IN


@pytest_twisted.ensureDeferred
async def test_what_a_node_said_before_it_reset_reaches_the_client_although_the_client_was_heard_first() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, bind("tcp:0:interface=127.0.0.1") as listener:
        front = Front(listener, PlainDispatcher([node("a", *server.getsockname())]), reactor, RelaySettings())
        front.start()
        with socket.create_connection(listener.getsockname(), LIMIT) as client:
            client.sendall(b"?")
            behind, _ = await deferToThread(server.accept)
            await deferToThread(exactly, behind, 1)
            (relay,) = front._common.open
            assert relay.back is not None
            back = relay.back.sock
            behind.sendall(b"too large")
            reset(behind)
            client.sendall(b"more")
            eventually(lambda: is_closed(back))
            eventually(lambda: select.select([relay.front.fd], [], [], 0)[0])
            relay.front.event(IN)
            assert exactly(client, 9) == b"too large"
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        await front.finish(0)


@pytest_twisted.ensureDeferred
async def test_what_a_client_said_before_it_reset_reaches_the_node_and_never_looks_whole() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, bind("tcp:0:interface=127.0.0.1") as listener:
        front = Front(listener, PlainDispatcher([node("a", *server.getsockname())]), reactor, RelaySettings())
        front.start()
        client = socket.create_connection(listener.getsockname(), LIMIT)
        behind, _ = await deferToThread(server.accept)
        with behind:
            behind.settimeout(LIMIT)
            await eventually_async(lambda: [one for one in front._common.open if one.back is not None])
            (relay,) = front._common.open
            assert relay.back is not None
            client.sendall(b"half of it")
            reset(client)
            behind.sendall(b"an answer")
            eventually(lambda: is_closed(relay.front.sock))
            eventually(lambda: select.select([relay.back.fd], [], [], 0)[0])  # type: ignore[union-attr]
            relay.back.event(IN)
            assert exactly(behind, 10) == b"half of it"
            with pytest.raises(ConnectionResetError):
                behind.recv(1)
        await front.finish(0)


@pytest_twisted.ensureDeferred
async def test_a_front_without_clients_ends_at_once(scene: Scene) -> None:
    await scene.front.finish(10 * LIMIT)
