"""Flags for a config: tyro reads the dataclass and its field docstrings, and its complaints become one line.

tyro draws its errors as a box on standard error and leaves; a user of ours gets one line with the remedy, as
everywhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from duihua.config.mapping import suggestion
from duihua.errors import ConfigError

T = TypeVar("T")


def parse(cls: type[T], argv: Sequence[str], default: T | None = None, prog: str = "", description: str = "") -> T:
    """Read flags over `default` (`--steps 100`, `--optimizer.learning-rate 0.01`); `--help` prints the docstrings.

    Raises ConfigError for an unknown flag (with the nearest one) or a value that does not fit.
    """
    import tyro

    arguments = list(argv)
    wants_help = "--help" in arguments or "-h" in arguments
    complaint = io.StringIO()
    try:
        with contextlib.nullcontext() if wants_help else contextlib.redirect_stderr(complaint):
            return tyro.cli(
                cls,
                args=arguments,
                default=default if default is not None else cls(),
                prog=prog or None,
                description=description or None,
            )
    except SystemExit as stop:
        if wants_help or stop.code in (0, None):
            raise
        raise _as_error(cls, default, complaint.getvalue(), prog) from None


def _flags(value: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(value):
        name = f"{prefix}{field.name}".replace("_", "-")
        inner = getattr(value, field.name, None)
        if dataclasses.is_dataclass(inner):
            yield from _flags(inner, f"{name}.")
        else:
            yield f"--{name}"


def _as_error(cls: type, default: Any, box: str, prog: str) -> ConfigError:
    lines = [re.sub(r"^[│╭╰─\s]+|[│╮╯─\s]+$", "", line) for line in box.splitlines()]
    lines = [line for line in lines if line]
    help_hint = f"`{prog} --help` lists every flag" if prog else "--help lists every flag"
    unknown = next(
        (
            re.search(r"Unrecognized options?: (\S+?),?(?:\s|$)", line)
            for line in lines
            if "Unrecognized options:" in line
        ),
        None,
    )
    if unknown:
        flag = unknown.group(1)
        known = list(_flags(default if default is not None else cls))
        near = suggestion(flag, known) if flag.startswith("-") else ""
        remedy = f"{near}; {help_hint}" if near.startswith("The nearest") else help_hint
        return ConfigError("unknown flag" if flag.startswith("-") else "unexpected value", where=flag, remedy=remedy)
    message = next((line for line in lines[1:] if line), "the flags cannot be read")
    flag = next((match.group(0) for match in [re.search(r"--[\w.-]+", message)] if match), "")
    return ConfigError(
        message.rstrip("."), where="" if flag in message else flag, remedy=help_hint[:1].upper() + help_hint[1:]
    )
