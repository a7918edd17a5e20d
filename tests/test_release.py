"""Which version this is."""

from __future__ import annotations

import importlib.metadata

import pytest

from farmsyncd.edges import release


def test_a_tree_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert release.installed() == "unreleased"


def test_the_installed_version_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", {"farmsync": "1.2.3"}.__getitem__)
    assert release.installed() == "1.2.3"
