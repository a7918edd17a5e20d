"""Reading a configuration: the file, the options over it, and everything that is wrong with either."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import attrs
import pytest

from farmsyncd.edges.config import load, read_file, setting, table, tables
from farmsyncd.edges.endpointcheck import SERVER
from farmsyncd.edges.settings import DURATION, FLAG, INTEGER, NAME, PATH, SIZE, TEXT, bounded, listing
from farmsyncd.errors import ConfigError


@attrs.frozen
class Source:
    url: str = setting(TEXT, "where it is read")
    period_ns: int = setting(DURATION, "how often", default="1h")


@attrs.frozen
class Hook:
    command: tuple[str, ...] = setting(listing(TEXT), "what is run")


@attrs.frozen
class Config:
    TABLE: ClassVar[str] = "node"

    state: Path = setting(PATH, "the daemon's own directory")
    listen: str = setting(SERVER, "where it listens", default="tcp:0")
    patience_ns: int = setting(DURATION, "how long", default="15s")
    stage_bytes: int | None = setting(SIZE, "how much", default=None)
    keep: int = setting(bounded(INTEGER, 1), "how many", default=3)
    datasets: tuple[str, ...] = setting(listing(NAME), "which", key="dataset", default=[])
    quiet: bool = setting(FLAG, "say less", default=False)
    sources: Mapping[str, Source] = setting(tables(Source, NAME), "what is read", key="source", default={})
    hooks: tuple[Hook, ...] = setting(listing(table(Hook)), "what is run", key="hook", default=[])

    def __attrs_post_init__(self) -> None:
        if self.quiet and self.keep > 100:
            raise ValueError("quiet and a keep above 100 do not go together")


def written(path: Path, text: str) -> Path:
    file = path / "farm.toml"
    file.write_text(text, "utf-8")
    return file


def faults(path: Path | None, **options: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, Config, {key.replace("_", "-"): value for key, value in options.items()})
    return str(caught.value).split("\n")


def test_defaults_stand_where_nothing_is_said() -> None:
    config = load(None, Config, {"state": "/var/lib/x"})
    assert config == Config(state=Path("/var/lib/x"))
    assert (config.patience_ns, config.keep, config.stage_bytes, config.sources) == (15_000_000_000, 3, None, {})


def test_a_file_says_all_that_there_is(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        [node]
        state = "/var/lib/x"
        listen = "tcp:7420:interface=127.0.0.1"
        patience = "250ms"
        stage = "4MiB"
        dataset = ["shop", "prices"]
        quiet = true
        [node.source.shop]
        url = "https://example.org/shop.tar"
        period = "5m"
        [[node.hook]]
        command = ["nginx", "-s", "reload"]
        [[node.hook]]
        command = ["true"]
        """,
    )
    config = load(file, Config)
    assert config == Config(
        state=Path("/var/lib/x"),
        listen="tcp:7420:interface=127.0.0.1",
        patience_ns=250_000_000,
        stage_bytes=4 * 1024 * 1024,
        datasets=("shop", "prices"),
        quiet=True,
        sources={"shop": Source(url="https://example.org/shop.tar", period_ns=300_000_000_000)},
        hooks=(Hook(command=("nginx", "-s", "reload")), Hook(command=("true",))),
    )


def test_an_option_wins_over_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, '[node]\nstate = "/a"\npatience = "1s"\nkeep = 5\nquiet = true\n')
    options: dict[str, object] = {"state": "/b", "patience": "2s", "keep": None, "dataset": [], "quiet": 0}
    config = load(file, Config, options)
    assert (config.state, config.patience_ns, config.keep) == (Path("/b"), 2_000_000_000, 5)
    assert config.quiet, "a flag that was not given leaves the file's word"


def test_an_option_that_replaces_a_wrong_value_heals_it(tmp_path: Path) -> None:
    file = written(tmp_path, '[node]\nstate = "/a"\nkeep = "many"\n')
    assert load(file, Config, {"keep": "4"}).keep == 4


def test_all_faults_are_told_at_once_with_their_names(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        [node]
        patience = 15
        stagee = "4MiB"
        keep = 0
        listen = "7420"
        dataset = ["good", "no good"]
        colour = "blue"
        [node.source.shop]
        urll = "https://example.org"
        [node.source.x]
        url = ""
        [node.source."no good"]
        url = "https://example.org"
        [[node.hook]]
        command = [3]
        """,
    )
    told = faults(file)
    where = f"{file}: [node] "
    assert all(line.startswith(where) for line in told), told
    said = "\n".join(line.removeprefix(where) for line in told)
    assert 'patience: expected a duration with its unit, such as "250ms", "5s" or "1h 30m", found 15' in said
    assert "stagee: not a key here; did you mean stage?" in said
    assert "keep: expected a whole number, at least 1, found 0" in said
    assert 'listen: expected an endpoint to listen on, such as "tcp:7420"' in said
    assert "dataset.item 2: expected a name (" in said
    assert "colour: not a key here; the keys are state, listen, " in said
    assert "source.shop.urll: not a key here; did you mean url?" in said
    assert "source.shop.url: expected some text (where it is read), found nothing" in said
    assert "source.x.url: expected some text, found nothing" in said
    assert "source.no good: expected a name (" in said
    assert "hook.item 1.command.item 1: expected some text, found 3" in said
    assert "state: expected a path (the daemon's own directory), found nothing" in said
    assert len(told) == 12


def test_a_fault_of_an_option_is_told_by_the_options_name(tmp_path: Path) -> None:
    assert faults(None, state="/a", keep="x") == ['--keep: expected a whole number, at least 1, found "x"']
    assert faults(None) == ["--state: expected a path (the daemon's own directory), found nothing"]
    file = written(tmp_path, '[node]\nstate = "/a"\n')
    assert faults(file, dataset=["a", "b c"])[0].startswith("--dataset: item 2: expected a name")


def test_a_rule_between_settings_is_told_as_it_stands() -> None:
    assert faults(None, state="/a", keep="200", quiet=1) == ["quiet and a keep above 100 do not go together"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[nod]\n", "nod: not a table of this file; did you mean node?"),
        ("[data]\n", "expected a table [node], found [data]"),
        ("", "expected a table [node], found no table"),
        ('state = "/a"\n', "state: not a table of this file"),
        ("node = 5\n", "node: expected a table, found 5"),
        ("[node\n", "expected TOML: "),
        ("[node]\na=1\na=2\n", "expected TOML: "),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (told,) = faults(written(tmp_path, text))
    assert said in told


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert faults(tmp_path / "none.toml") == [f"expected a configuration file at {tmp_path / 'none.toml'}, found none"]
    assert "Is a directory" in faults(tmp_path)[0]
    (tmp_path / "latin").write_bytes(b"# caf\xe9\n")
    assert faults(tmp_path / "latin") == [f"{tmp_path / 'latin'}: expected UTF-8 text, found other bytes"]


def test_one_file_may_hold_the_tables_of_several_daemons(tmp_path: Path) -> None:
    file = written(tmp_path, '[data]\nstate = "/d"\n[node]\nstate = "/n"\n')
    assert list(read_file(file)) == ["data", "node"]
    assert load(file, Config).state == Path("/n")


def test_an_option_without_a_setting_is_a_mistake_of_the_program() -> None:
    with pytest.raises(TypeError, match="statte"):
        load(None, Config, {"statte": "/a"})


def test_a_path_of_the_home_directory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert load(None, Config, {"state": "~/x"}).state == Path("/home/someone/x")
