"""Flags for a config: tyro reads the dataclass and its field docstrings, and its complaints become one line.

tyro draws its errors as a box on standard error and leaves; a user of ours gets one line with the remedy, as
everywhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import re
import typing
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from duihua.config.build import field_help
from duihua.config.mapping import nearest
from duihua.errors import ConfigError

T = TypeVar("T")
ONE_OF = ("name", "path", "hub")
"""Fields of a source of which exactly one may stand (data/source.py)."""


def parse(cls: type[T], argv: Sequence[str], default: T | None = None, prog: str = "", description: str = "") -> T:
    """Read flags over `default` (`--steps 100`, `--optimizer.learning-rate 0.01`); `--help` prints the docstrings.

    A group of settings that is off by default (`lora: LoraConfig | None = None`) is switched on by its bare name (`--lora`)
    or by a flag of it (`--lora.rank 4`). Raises ConfigError for an unknown flag (with the nearest one) or a value that
    does not fit.
    """
    import tyro

    arguments = list(argv)
    if default is not None:
        for name, inner in optional_groups(cls).items():
            flag = f"--{name.replace('_', '-')}"
            if any(word == flag or word.startswith(f"{flag}.") for word in arguments):
                arguments = [word for word in arguments if word != flag]
                if getattr(default, name) is None:
                    default = dataclasses.replace(default, **{name: inner()})  # type: ignore[type-var]
        default = _without_names(default, arguments, "--")
    wants_help = "--help" in arguments or "-h" in arguments
    complaint = io.StringIO()
    try:
        with _joined_help(cls) if wants_help else contextlib.redirect_stderr(complaint):
            given: dict[str, Any] = {} if default is None else {"default": default}
            # A group that may be absent is a set of flags or nothing, never a subcommand.
            given |= {"prog": prog or None, "description": description or None, "config": (tyro.conf.AvoidSubcommands,)}
            result: T = tyro.cli(cls, args=arguments, **given)
            return result
    except SystemExit as stop:
        if wants_help or stop.code in (0, None):
            raise
        raise _as_error(cls, complaint.getvalue(), prog) from None


def _without_names(value: Any, arguments: Sequence[str], prefix: str) -> Any:
    """The default without the name of each source that a flag names in another way: `--preferences.0.path pairs.jsonl` means
    that file instead of the default's known source, since of name, path and hub exactly one may stand."""
    if isinstance(value, tuple):
        return tuple(_without_names(item, arguments, f"{prefix}{place}.") for place, item in enumerate(value))
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    if getattr(value, "keeps_nothing", False):
        given = [
            name
            for name in ONE_OF
            if any(word.split("=")[0].replace("_", "-") == f"{prefix}{name}" for word in arguments)
        ]
        return dataclasses.replace(value, **{name: "" for name in ONE_OF if given and name not in given})
    changed = {
        field.name: _without_names(getattr(value, field.name), arguments, f"{prefix}{field.name.replace('_', '-')}.")
        for field in dataclasses.fields(value)
        if field.init
    }
    changed = {name: new for name, new in changed.items() if new != getattr(value, name)}
    return dataclasses.replace(value, **changed) if changed else value


@contextlib.contextmanager
def _joined_help(cls: type) -> Iterator[None]:
    """Each docstring as one paragraph while help is printed: tyro keeps line ends where the next line is indented, and ours
    are, so that its boxes would be broken in the middle of sentences. The annotations are put back afterwards."""
    import tyro

    before: list[tuple[dict[str, Any], str, Any]] = []
    for found in _dataclasses_in(cls):
        hints = typing.get_type_hints(found, include_extras=True)
        texts = field_help(found)
        names = {field.name for field in dataclasses.fields(found)} & texts.keys()
        for base in found.__mro__[:-1]:
            own = base.__annotations__
            for name in own.keys() & names:
                joined = tyro.conf.arg(help=" ".join(texts[name].split()))
                before.append((own, name, own[name]))
                own[name] = typing.Annotated[hints[name], joined]
    try:
        yield
    finally:
        for own, name, annotation in reversed(before):
            own[name] = annotation


def _dataclasses_in(cls: type) -> dict[type, None]:
    """A dataclass and those that its fields hold, be it in a tuple or as one of several kinds; each once."""
    found: dict[type, None] = {}
    waiting: list[Any] = [cls]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            if kind not in found:
                found[kind] = None
                waiting += typing.get_type_hints(kind).values()
        else:
            waiting += typing.get_args(kind)
    return found


def optional_groups(cls: type) -> dict[str, type]:
    """The fields of the form `Dataclass | None` whose dataclass can be made without arguments: name -> dataclass."""
    found: dict[str, type] = {}
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kinds = [kind for kind in typing.get_args(hints[field.name]) if kind is not type(None)]
        if field.default is None and len(kinds) == 1 and isinstance(kinds[0], type):
            group: type = kinds[0]
            if dataclasses.is_dataclass(group) and all(
                parameter.default is not parameter.empty for parameter in inspect.signature(group).parameters.values()
            ):
                found[field.name] = group
    return found


def _flags(cls: type, prefix: str = "") -> Iterator[str]:
    """The flags of a dataclass, with those of the dataclasses inside it."""
    hints = typing.get_type_hints(cls)
    optional = optional_groups(cls)
    for field in dataclasses.fields(cls):
        name = f"{prefix}{field.name}".replace("_", "-")
        inner = hints[field.name]
        if field.name in optional:
            yield f"--{name}"
            inner = optional[field.name]
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
