"""A dataset whose directory on this node cannot be used. That is told like any other standing, and tried again."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from farmsyncd.core.messages.schedule import Flipped, Plan, Standing
from farmsyncd.node.swaps import LONGEST_DETAIL


@attrs.define(eq=False)
class Unopened:
    """Stands for a dataset that is not followed, because of ``fault``; ``again`` tries to open it."""

    dataset: str
    fault: str
    _again: Callable[[str], None]

    state = "failed"

    def hear(self, plan: Plan) -> None:
        """Nothing can be done about it."""

    def keep(self, versions: tuple[str, ...]) -> None:
        """Told again once the dataset is followed."""

    def noted(self, cycle: int) -> None:
        """No flip was told."""

    def connected(self) -> None:
        """Nothing to do."""

    def reconsider(self) -> None:
        """Somebody may have put it right."""
        self._again(self.dataset)

    def standing(self) -> Standing:
        """What the data server is told."""
        detail = self.fault.encode("utf-8", "replace")[:LONGEST_DETAIL]
        return Standing(self.dataset, self.state, None, None, None, None, None, None, detail)

    def flips(self) -> list[Flipped]:
        """None."""
        return []
