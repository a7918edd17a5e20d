"""One worker thread: work that blocks (the catalog, disks, digests) is done there, one piece after the other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

P = ParamSpec("P")
T = TypeVar("T")


class Stopped(RuntimeError):
    """Work was handed to a thread that has been told to stop."""


@attrs.define(eq=False)
class _Job:
    """One piece of work, and whom to tell; ``dropped`` once nobody waits for it any more."""

    work: Callable[[], Any]
    done: Deferred[Any] = attrs.field(init=False)
    dropped: bool = False

    def __attrs_post_init__(self) -> None:
        self.done = Deferred(self._drop)

    def _drop(self, _: Deferred[Any]) -> None:
        self.dropped = True

    def deliver(self, result: object) -> None:
        if not self.done.called:
            self.done.callback(result)


class WorkThread:
    """A thread that does what it is given in order, and delivers each result in the reactor's thread.

    The thread starts with the first piece of work. It does not keep the process alive: whoever needs its work
    done before the process ends waits for :meth:`stop`.
    """

    def __init__(self, name: str, reactor: IReactorFromThreads) -> None:
        self.name = name
        self._reactor = reactor
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopping: list[Deferred[None]] | None = None
        self._stopped = False

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """What ``work(*args, **kwargs)`` returns or raises, once the thread has come to it.

        Cancelling takes the work back if it has not begun; work that has begun goes on, and its result is dropped.
        Fails with Stopped after :meth:`stop`.
        """
        if self._stopping is not None or self._stopped:
            return fail(Stopped(f"the thread {self.name} has been stopped"))
        job = _Job(lambda: work(*args, **kwargs))
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, name=f"farmsync-{self.name}", daemon=True)
            self._thread.start()
        self._jobs.put(job)
        return job.done

    def stop(self) -> Deferred[None]:
        """Take no more work; fires when all that was taken is done and the thread has ended."""
        if self._thread is None:
            self._stopped = True
        if self._stopped:
            return succeed(None)
        if self._stopping is None:
            self._stopping = []
            self._jobs.put(None)
        waiting: Deferred[None] = Deferred()
        self._stopping.append(waiting)
        return waiting

    def _main(self) -> None:
        while (job := self._jobs.get()) is not None:
            if job.dropped:
                continue
            try:
                result: object = job.work()
            except BaseException:
                result = Failure()
            self._reactor.callFromThread(job.deliver, result)
            del job, result  # nothing is kept alive while the thread waits
        self._reactor.callFromThread(self._ended)

    def _ended(self) -> None:
        assert self._thread is not None
        assert self._stopping is not None
        self._thread.join()
        self._stopped = True
        waiting, self._stopping = self._stopping, None
        for one in waiting:
            if not one.called:
                one.callback(None)
