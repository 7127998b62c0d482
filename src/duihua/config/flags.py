"""Flags for a config: tyro reads the dataclass and its field docstrings, and its complaints become one line.

tyro draws its errors as a box on standard error and leaves; a user of ours gets one line with the remedy, as
everywhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import typing
from collections.abc import Iterator, Sequence
from typing import TypeVar

from duihua.config.mapping import nearest
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
            if default is None:
                return tyro.cli(cls, args=arguments, prog=prog or None, description=description or None)
            return tyro.cli(cls, args=arguments, default=default, prog=prog or None, description=description or None)
    except SystemExit as stop:
        if wants_help or stop.code in (0, None):
            raise
        raise _as_error(cls, complaint.getvalue(), prog) from None


def _flags(cls: type, prefix: str = "") -> Iterator[str]:
    """The flags of a dataclass, with those of the dataclasses inside it."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name = f"{prefix}{field.name}".replace("_", "-")
        inner = hints[field.name]
        if isinstance(inner, type) and dataclasses.is_dataclass(inner):
            yield from _flags(inner, f"{name}.")
        else:
            yield f"--{name}"


def _as_error(cls: type, box: str, prog: str) -> ConfigError:
    """One line out of tyro's box: its first paragraph, and for an unknown flag the nearest known one."""
    help_hint = f"`{prog} --help` lists every flag" if prog else "--help lists every flag"
    message = _first_paragraph(box) or "the flags cannot be read"
    unknown = re.match(r"Unrecognized options?: (\S+?),?(?:\s|$)", message)
    if unknown is None:
        return ConfigError(message.rstrip("."), remedy=help_hint[:1].upper() + help_hint[1:])
    flag = unknown.group(1)
    if not flag.startswith("-"):
        return ConfigError("unexpected value", where=flag, remedy=help_hint[:1].upper() + help_hint[1:])
    near = nearest(flag, list(_flags(cls)))
    remedy = f"The nearest known name is {near!r}; {help_hint}" if near else help_hint[:1].upper() + help_hint[1:]
    return ConfigError("unknown flag", where=flag, remedy=remedy)


def _first_paragraph(box: str) -> str:
    """The text between the box's title and the first rule inside it, without the frame.

    Where the terminal knows no line drawing, tyro leaves the frame out and underlines the title.
    """
    paragraphs: list[list[str]] = [[]]
    for line in box.splitlines():
        if line.lstrip().startswith(("╭", "╰")):
            continue
        inner = line.strip().strip("│").strip()
        if not inner.strip("─-"):
            paragraphs.append([])
        else:
            paragraphs[-1].append(inner)
    texts = [" ".join(lines) for lines in paragraphs if lines]
    framed = "╭" in box
    return texts[0] if framed and texts else texts[1] if len(texts) > 1 else ""
