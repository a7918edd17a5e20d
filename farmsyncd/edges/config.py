"""Configuration: a TOML file and the command line's options, read into one frozen attrs class per daemon.

A class lists its settings as fields::

    @attrs.frozen
    class NodeConfig:
        TABLE: ClassVar[str] = "node"
        state: Path = setting(PATH, "the node's own directory")
        patience_ns: int = setting(DURATION, "how long ...", default="15s")

and that is the only place that knows them: the key in the file's ``[node]`` table and the option on the command line
are both the field's name without its unit and with dashes (``patience``). An option wins over the file. Everything
that is wrong is reported at once.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import attrs

from farmsyncd.edges.settings import Fault, Faults, Kind, faults_of, shown
from farmsyncd.errors import ConfigError

TABLES = ("data", "node", "lb")
_SETTING = "farmsync.setting"
_UNITS = ("_ns", "_bytes")


class Schema(Protocol):
    """A frozen attrs class of settings, read from one table of the file."""

    __attrs_attrs__: ClassVar[Any]
    TABLE: ClassVar[str]


class Part(Protocol):
    """A frozen attrs class of settings that lives inside another's."""

    __attrs_attrs__: ClassVar[Any]


S = TypeVar("S", bound=Schema)
P = TypeVar("P", bound=Part)


@attrs.frozen
class Setting:
    """One setting: the field it becomes, its key, its kind, what it means, and its default as a file would spell it."""

    field: str
    key: str
    kind: Kind[Any]
    help: str
    default: object
    required: bool


def setting(kind: Kind[Any], help: str, *, default: object = attrs.NOTHING, key: str | None = None) -> Any:  # noqa: A002
    """A field of a configuration class.

    ``default`` is spelled as in a file ("5s"), or None where the setting may be absent; without it the setting is
    required. ``key`` replaces the name that is made from the field's.
    """
    metadata = {_SETTING: (kind, help, default, key)}
    if default is attrs.NOTHING:
        return attrs.field(metadata=metadata, kw_only=True)
    value = None if default is None else kind.read(default)
    return attrs.field(metadata=metadata, kw_only=True, default=value)


def settings(schema: type[Part]) -> Iterator[Setting]:
    """The settings of a configuration class, in the order in which it lists them."""
    for field in attrs.fields(schema):
        if _SETTING in field.metadata:
            kind, text, default, key = field.metadata[_SETTING]
            yield Setting(field.name, key or _key(field.name), kind, text, default, required=default is attrs.NOTHING)


def _key(field: str) -> str:
    for unit in _UNITS:
        field = field.removesuffix(unit)
    return field.replace("_", "-")


def load(path: Path | None, schema: type[S], options: Mapping[str, object] | None = None) -> S:
    """The configuration that the file at ``path`` (if any) and ``options`` make together.

    ``options`` are by key, as the command line gave them; None, an empty list and an unset flag mean "not given".
    Raises ConfigError that names everything that is wrong.
    """
    source = "" if path is None else f"{path}: "
    inside = {} if path is None else _table(path, read_file(path), schema.TABLE)
    given = _given(schema, options or {})
    try:
        return _build(schema, {**inside, **given})
    except Faults as found:
        raise _error(found.faults, source, schema.TABLE, given) from None


def gathered(path: Path | None, schema: type[S], options: Mapping[str, object]) -> dict[str, object]:
    """What :func:`load` reads, as it was told: given to it as options, it makes the same configuration elsewhere."""
    return {**({} if path is None else _table(path, read_file(path), schema.TABLE)), **_given(schema, options)}


def read_file(path: Path) -> Mapping[str, Mapping[str, object]]:
    """The tables of a configuration file, by name. ConfigError when it cannot be read or holds anything else."""
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"expected a configuration file at {path}, found none") from None
    except OSError as error:
        raise ConfigError(f"expected to read the configuration file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected UTF-8 text, found other bytes") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: expected TOML: {error}") from None
    faults = [
        f"{path}: {key}: expected a table, found {shown(value)}"
        if key in TABLES
        else f"{path}: {key}: not a table of this file{_suggestion(key, TABLES, 'the tables are')}"
        for key, value in content.items()
        if key not in TABLES or not isinstance(value, dict)
    ]
    if faults:
        raise ConfigError("\n".join(faults))
    return content


def _table(path: Path, tables: Mapping[str, Mapping[str, object]], name: str) -> Mapping[str, object]:
    if name not in tables:
        found = ", ".join(f"[{other}]" for other in tables) or "no table"
        raise ConfigError(f"{path}: expected a table [{name}], found {found}")
    return tables[name]


def _given(schema: type[Part], options: Mapping[str, object]) -> dict[str, object]:
    given = {}
    known = {setting.key: setting for setting in settings(schema)}
    for key, value in options.items():
        if key not in known:
            raise TypeError(f"{schema.__name__} has no setting {key}")
        if value is not None and value != [] and not (known[key].kind.flag and not value):
            given[key] = value
    return given


def _build(schema: type[P], table: Mapping[str, object]) -> P:
    """An instance made of ``table``; raises Faults with everything that is wrong in it."""
    known = {setting.key: setting for setting in settings(schema)}
    faults = [
        Fault((key,), f"not a key here{_suggestion(key, known, 'the keys are')}") for key in table if key not in known
    ]
    values = {}
    for key, one in known.items():
        if key not in table:
            if one.required:
                faults.append(Fault((key,), f"expected {one.kind.what} ({one.help}), found nothing"))
            continue
        try:
            values[one.field] = one.kind.read(table[key])
        except ValueError as error:
            faults += faults_of(error, one.kind, table[key], key)
    if faults:
        raise Faults(faults)
    try:
        return schema(**values)
    except ValueError as error:  # a rule between several settings, checked by the class itself
        raise Faults([Fault((), str(error))]) from None


def table(schema: type[P]) -> Kind[P]:
    """A table of its own inside a daemon's table, with the settings of ``schema``."""

    def read(value: object) -> P:
        if not isinstance(value, dict):
            raise ValueError
        return _build(schema, value)

    return Kind("a table", read, nested=True)


def tables(schema: type[P], name: Kind[str]) -> Kind[Mapping[str, P]]:
    """Any number of tables with names of the user's own: ``[data.dataset.NAME]``."""
    inner = table(schema)

    def read(value: object) -> Mapping[str, P]:
        if not isinstance(value, dict):
            raise ValueError
        parts: dict[str, P] = {}
        faults: list[Fault] = []
        for key, content in value.items():
            try:
                parts[name.read(key)] = inner.read(content)
            except Faults as error:
                faults += [Fault((key, *fault.keys), fault.text) for fault in error.faults]
            except ValueError:
                expected = inner.what if isinstance(content, dict) is False else name.what
                faults.append(Fault((key,), f"expected {expected}, found {shown(key)}"))
        if faults:
            raise Faults(faults)
        return parts

    return Kind("tables with names", read, nested=True)


def _suggestion(key: str, known: Iterable[str], otherwise: str) -> str:
    close = difflib.get_close_matches(key.replace("_", "-"), list(known), 1)
    return f"; did you mean {close[0]}?" if close else f"; {otherwise} {', '.join(known)}"


def _error(faults: list[Fault], source: str, name: str, given: Mapping[str, object]) -> ConfigError:
    lines = []
    for fault in faults:
        key, *inner = fault.keys or ("",)
        if key in given or not source:
            where = f"--{key}: " if key else ""
        else:
            where = f"{source}[{name}] " + (": ".join([".".join(fault.keys), ""]) if key else "")
        lines.append(where + (f"{', '.join(inner)}: " if inner and key in given else "") + fault.text)
    return ConfigError("\n".join(lines))
