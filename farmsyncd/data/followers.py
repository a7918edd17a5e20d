"""The nodes' connections that have asked for plans, and are told of every change at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from farmsyncd.core.cycle import Course
from farmsyncd.core.messages.schedule import DatasetsAre
from farmsyncd.core.wire import encode
from farmsyncd.data.changes import Change
from farmsyncd.data.keeper import plan_message
from farmsyncd.edges.link import Link


class Followers:
    """Pushes plans and the list of datasets; each push is spelled once, however many follow."""

    def __init__(self, datasets: Callable[[], Iterable[str]]) -> None:
        self._datasets = datasets
        self._following: dict[str, set[Link]] = {}
        self._list_followers: set[Link] = set()
        self._told: tuple[str, ...] = ()
        self._spelled: dict[str, tuple[Course, bytes]] = {}

    def follow(self, link: Link, dataset: str) -> None:
        """Send ``link`` every later plan of ``dataset``, which need not exist yet."""
        self._following.setdefault(dataset, set()).add(link)

    def follow_list(self, link: Link) -> None:
        """Send ``link`` the list of datasets whenever it changes."""
        self._list_followers.add(link)

    def drop(self, link: Link) -> None:
        """Send ``link`` nothing more."""
        for dataset, links in list(self._following.items()):
            links.discard(link)
            if not links:
                del self._following[dataset]
        self._list_followers.discard(link)

    def plan(self, course: Course) -> bytes:
        """The PLAN of a course as it travels, spelled once for each revision."""
        spelled = self._spelled.get(course.dataset)
        if spelled is None or spelled[0] is not course:
            spelled = self._spelled[course.dataset] = course, encode(plan_message(course).frame())
        return spelled[1]

    def datasets(self) -> DatasetsAre:
        """The list of datasets."""
        return DatasetsAre(tuple(sorted(self._datasets())))

    def changed(self, change: Change) -> None:
        """A course has changed: tell those who follow it."""
        _tell(self._following.get(change.course.dataset, ()), self.plan(change.course))
        listed = self.datasets()
        if listed.names != self._told:
            self._told = listed.names
            _tell(self._list_followers, encode(listed.frame()))


def _tell(links: Iterable[Link], frame: bytes) -> None:
    for link in list(links):
        link.send_bytes(frame)
