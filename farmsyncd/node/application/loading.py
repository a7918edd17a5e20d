"""Finds the application that ``module:attribute`` names, as other WSGI servers do."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from farmsyncd.errors import ConfigError

Application = Callable[..., Any]
"""A WSGI application."""


def read_name(value: object) -> str:
    """``value`` as ``module:attribute``; ValueError when it is not spelled so."""
    if not isinstance(value, str):
        raise ValueError
    module, colon, attribute = value.partition(":")
    if not colon or not _dotted(module) or not _dotted(attribute.removesuffix("()")):
        raise ValueError
    return value


def _dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def load(name: str) -> Application:
    """The application. ``module:make()`` calls ``make`` for it. The current directory is searched for the module too.

    Raises ConfigError: the module cannot be imported, the attribute is not there, or cannot be called.
    """
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # whatever the application's own code raises
        raise ConfigError(
            f"--wsgi {name}: expected to import the module {module_name} from {here} or the Python path, "
            f"and it cannot be imported: {_told(error)}"
        ) from error
    for part in attribute.removesuffix("()").split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ConfigError(
                f"--wsgi {name}: expected {attribute!r} in the module {module_name}, and it has no {part!r}; "
                "name the attribute that is the WSGI application"
            ) from None
    if attribute.endswith("()"):
        found = _made(name, found)
    if not callable(found):
        raise ConfigError(
            f"--wsgi {name}: expected a WSGI application, which can be called, and found {type(found).__name__}"
        )
    return found  # type: ignore[no-any-return]


def _made(name: str, factory: Any) -> Any:
    try:
        return factory()
    except Exception as error:  # as above
        raise ConfigError(
            f"--wsgi {name}: expected to be given the application, and it failed: {_told(error)}"
        ) from error


def _told(error: Exception) -> str:
    """The error on one line, with the place in the application's code that it comes from."""
    text = " ".join(str(error).split())
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = [one for one in traceback.extract_tb(error.__traceback__) if "importlib" not in one.filename]
    if len(frames) > 1:
        told += f" ({frames[-1].filename}, line {frames[-1].lineno})"
    return told
