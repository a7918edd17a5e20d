"""A daemon's command line, made from its configuration class: what the file can say, an option can say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from twisted.python import usage

from farmsyncd.edges import config
from farmsyncd.edges.startup import one_line


class DaemonOptions(usage.Options):
    """Options for ``twistd``: ``class Options(DaemonOptions, schema=NodeConfig)``.

    Each setting that can stand on a command line becomes an option; ``--config`` names the file. After parsing,
    ``config`` is the configuration, an instance of ``schema``, and ``told`` the same as it was told. What is wrong with
    it ends the process with a line for each fault and status 78; a UsageError would bury them under the whole list of
    options.
    """

    schema: ClassVar[type[config.Schema]]
    optParameters: ClassVar[list[list[object]]]  # noqa: N815 - usage.Options
    optFlags: ClassVar[list[list[object]]]  # noqa: N815 - usage.Options
    synopsis: ClassVar[str]
    config: Any
    told: dict[str, object]

    def __init_subclass__(cls, schema: type[config.Schema]) -> None:
        cls.schema = schema
        cls.synopsis = f"Usage: twistd [-n] farmsync-{schema.TABLE} [options]"
        cls.optParameters = [["config", "c", None, f"a TOML file with a [{schema.TABLE}] table; options win over it"]]
        cls.optFlags = []
        for setting in config.settings(schema):
            if setting.kind.nested:
                continue
            if setting.kind.flag:
                cls.optFlags.append([setting.key, None, setting.help])
            elif setting.kind.many:
                setattr(cls, f"opt_{setting.key.replace('-', '_')}", _collecting(setting))
            else:
                cls.optParameters.append([setting.key, None, None, _described(setting)])

    def postOptions(self) -> None:  # noqa: N802 - usage.Options
        """Read the file and the options together."""
        file = self["config"]
        path = Path(file) if file else None
        given = {setting.key: self.get(setting.key) for setting in config.settings(self.schema)}
        with one_line(f"farmsync-{self.schema.TABLE}"):
            self.config = config.load(path, self.schema, given)
            self.told = config.gathered(path, self.schema, given)


def _collecting(setting: config.Setting) -> Callable[[DaemonOptions, str], None]:
    """A handler for an option that may be repeated."""

    def collect(options: DaemonOptions, value: str) -> None:
        options.setdefault(setting.key, []).append(value)

    collect.__doc__ = f"{setting.help} (may be repeated)"
    return collect


def _described(setting: config.Setting) -> str:
    return (
        setting.help if setting.default is None or setting.required else f"{setting.help} [default: {setting.default}]"
    )
