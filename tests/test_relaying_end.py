"""How a front ends: its clients may finish, for a while."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from farmsyncd.lb.relaying.binding import bind
from farmsyncd.lb.relaying.front import Front
from farmsyncd.lb.relaying.settings import RelaySettings
from tests.eventually import LIMIT, eventually_async
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


@pytest_twisted.ensureDeferred
async def test_a_front_without_clients_ends_at_once(scene: Scene) -> None:
    await scene.front.finish(10 * LIMIT)
