"""A daemon's command line is made from its configuration class."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import attrs
import pytest

from farmsyncd.edges.config import setting, table
from farmsyncd.edges.options import DaemonOptions
from farmsyncd.edges.settings import DURATION, FLAG, NAME, PATH, TEXT, listing
from farmsyncd.edges.startup import one_line
from farmsyncd.errors import ConfigError


@attrs.frozen
class Inner:
    text: str = setting(TEXT, "some text")


@attrs.frozen
class Config:
    TABLE: ClassVar[str] = "lb"

    state: Path = setting(PATH, "the daemon's own directory")
    ramp_up_ns: int = setting(DURATION, "how slowly", default="30s")
    nodes: tuple[str, ...] = setting(listing(NAME), "which nodes", key="node", default=[])
    quiet: bool = setting(FLAG, "say less", default=False)
    inner: Inner | None = setting(table(Inner), "more", default=None)


class Options(DaemonOptions, schema=Config):
    """Options of a daemon."""


def parsed(*words: str) -> Config:
    options = Options()
    options.parseOptions(list(words))
    config: Config = options.config
    return config


def test_each_setting_is_an_option() -> None:
    config = parsed("--state", "/s", "--ramp-up=1m", "--node", "a", "--node", "b", "--quiet")
    assert config == Config(state=Path("/s"), ramp_up_ns=60_000_000_000, nodes=("a", "b"), quiet=True)


def test_two_command_lines_share_nothing() -> None:
    assert parsed("--state", "/s", "--node", "a").nodes == ("a",)
    assert parsed("--state", "/s").nodes == ()


def test_an_option_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "lb.toml"
    file.write_text('[lb]\nstate = "/file"\nramp-up = "2s"\nnode = ["a"]\n[lb.inner]\ntext = "t"\n')
    config = parsed("--config", str(file), "--ramp-up", "3s", "--node", "b")
    assert config == Config(state=Path("/file"), ramp_up_ns=3_000_000_000, nodes=("b",), inner=Inner(text="t"))


def test_what_is_wrong_ends_the_process_with_a_line_for_each_fault(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed("--ramp-up", "slow", "--node", "a b")
    assert ended.value.code == 78
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[:2] for line in lines] == [
        ["farmsync-lb", " --state"],
        ["farmsync-lb", " --ramp-up"],
        ["farmsync-lb", " --node"],
    ]


def test_help_tells_each_option_and_its_default() -> None:
    text = str(Options())
    assert text.startswith("Usage: twistd [-n] farmsync-lb [options]\n")
    for expected in (
        "--state=",
        "--ramp-up=",
        "[default: 30s]",
        "--node=",
        "(may be repeated)",
        "--quiet",
        "--config=",
    ):
        assert expected in text
    assert "--inner" not in text


def test_a_known_failure_ends_the_start_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, one_line("farmsync-x"):
        raise ConfigError("expected this, found that")
    assert ended.value.code == 78
    assert capsys.readouterr().err == "farmsync-x: expected this, found that\n"


def test_a_bug_shows_its_traceback() -> None:
    with pytest.raises(KeyError), one_line("farmsync-x"):
        raise KeyError("x")
