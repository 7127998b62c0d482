"""Mapping -> frozen dataclass and back, with errors that name the key, the line and the nearest known name.

Values are checked by pydantic in its strict JSON mode: a list may fill a tuple and a text a path, but `"5"` is no
number and `true` is no temperature. Unknown keys are looked for first, by us, because pydantic ignores them in standard
dataclasses and could not say which known name is meant.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from duihua.config.mapping import Located, suggestion
from duihua.errors import ConfigError

T = TypeVar("T")
Key = str | int


def _path_text(path: tuple[Key, ...]) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _item(value: Any, step: Key) -> Any:
    """`value[step]` of a mapping or a list, or None."""
    if isinstance(value, Mapping):
        return value.get(str(step))
    if isinstance(value, list | tuple) and isinstance(step, int) and step < len(value):
        return value[step]
    return None


def _place(mapping: Any, path: tuple[Key, ...]) -> str:
    """`file:line` of the deepest part of `path` that was written somewhere."""
    place, here = getattr(mapping, "place", ""), mapping
    for step in path:
        if isinstance(here, Located):
            place = here.places.get(str(step), here.place or place)
        found = _item(here, step)
        if found is None:
            break
        here = found
    return place


def _where(mapping: Any, path: tuple[Key, ...], where: str) -> str:
    """For people: `recipes/a.yaml:12: sft.width` where the line is known, else `sft.width` or `config.json: width`."""
    place, text = _place(mapping, path), _path_text(path)
    if place:
        keys = ".".join(part for part in (where, text) if part)
        return f"{place}: {keys}" if keys else place
    if not where or not text:
        return where or text
    return f"{where}: {text}" if "/" in where or where.endswith((".json", ".yaml")) else f"{where}.{text}"


def _dataclass_of(annotation: Any) -> type | None:
    """The dataclass inside X, X | None."""
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        found = [_dataclass_of(argument) for argument in typing.get_args(annotation)]
        kinds = [kind for kind in found if kind is not None]
        return kinds[0] if len(kinds) == 1 else None
    return None


def _unknown(cls: type, value: Any, path: tuple[Key, ...]) -> Iterator[tuple[tuple[Key, ...], list[str]]]:
    """Every key of `value` that `cls` (a dataclass, at any depth) does not have, with the names that it has."""
    if not isinstance(value, Mapping):
        return
    hints = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls) if field.init]
    for key, inner in value.items():
        if key not in known:
            yield (*path, key), known
            continue
        for nested, part, deeper in _nested(hints[key], inner, (*path, key)):
            yield from _unknown(nested, part, deeper)


def build(cls: type[T], mapping: Any, where: str = "") -> T:
    """Make the frozen dataclass `cls` out of `mapping`; what is not given keeps its default, also of a part of which only some
    fields are given: the default is that of this field of `cls`, not of the part's class.

    `where` is the key path of the mapping (`sft`) or a file. Raises ConfigError for an unknown key (with the nearest
    name), a value of the wrong type and a missing field; the error names file, line and key path where they are known.
    """
    from pydantic import TypeAdapter, ValidationError

    if mapping is None:
        mapping = {}
    if not isinstance(mapping, Mapping):
        raise ConfigError(
            f"expected a mapping, found {mapping!r}", where=where, remedy="Write lines of the form `key: value`"
        )
    for path, known in _unknown(cls, mapping, ()):
        raise ConfigError(
            f"unknown key {path[-1]!r}", where=_where(mapping, path, where), remedy=suggestion(str(path[-1]), known)
        )
    filled = _filled(cls, mapping)
    try:
        return TypeAdapter(cls).validate_json(json.dumps(_plain(filled)), strict=True)
    except ValidationError as error:
        first = _telling(mapping, error.errors(include_url=False))
        location = _within(mapping, first["loc"])
        raise ConfigError(
            _problem(first), where=_where(mapping, location, where), remedy=_remedy(cls, location, first)
        ) from error
    except ConfigError as error:  # raised by a dataclass's own __post_init__
        path = _failing(cls, filled, ())
        location = (*path, error.where) if error.where and "/" not in error.where else path
        raise ConfigError(error.problem, where=_where(mapping, location, where), remedy=error.remedy) from error


def _filled(cls: type, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with what its parts leave out, where a field's default is such a part: DPO's optimizer is AdamW also for
    those who only say how fast. Nothing is filled into what is another thing as soon as one of its fields is, such as a source:
    the class says so by `keeps_nothing`."""
    filled = dict(mapping)
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        given = mapping.get(field.name)
        inner = _dataclass_of(hints[field.name])
        if inner is None or getattr(inner, "keeps_nothing", False) or not isinstance(given, Mapping):
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        kept = _plain(default) if isinstance(default, inner) else {}
        filled[field.name] = {**kept, **_filled(inner, given)}
    return filled


def _nested(annotation: Any, value: Any, path: tuple[Key, ...]) -> Iterator[tuple[type, Any, tuple[Key, ...]]]:
    """The dataclasses that `annotation` makes out of the parts of `value`, each with its part and path."""
    inner = _dataclass_of(annotation)
    arguments = typing.get_args(annotation)
    if inner is not None:
        if isinstance(value, Mapping):
            yield inner, value, path
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for argument in arguments:
            if typing.get_origin(argument) in (tuple, list, dict):
                yield from _nested(argument, value, path)
    elif typing.get_origin(annotation) in (tuple, list) and arguments and isinstance(value, list | tuple):
        for index, item in enumerate(value):
            of_item = arguments[0] if arguments[-1] is Ellipsis else arguments[min(index, len(arguments) - 1)]
            yield from _nested(of_item, item, (*path, index))
    elif typing.get_origin(annotation) is dict and isinstance(value, Mapping):
        for key, item in value.items():
            yield from _nested(arguments[1], item, (*path, key))


def _failing(cls: type, mapping: Mapping[str, Any], path: tuple[Key, ...]) -> tuple[Key, ...]:
    """Where the innermost dataclass stands whose own check refuses its values."""
    from pydantic import TypeAdapter

    hints = typing.get_type_hints(cls)
    for name, value in mapping.items():
        for inner, part, deeper in _nested(hints[name], value, (*path, name)):
            try:
                TypeAdapter(inner).validate_json(json.dumps(_plain(part)), strict=True)
            except ConfigError:
                return _failing(inner, part, deeper)
    return path


def _telling(mapping: Any, errors: Sequence[Any]) -> Mapping[str, Any]:
    """The first error. Of what may be one thing or another, and is a mapping or a list, the one that is inside it: that it is
    no text says nothing."""
    first: Mapping[str, Any] = errors[0]
    if not first["loc"]:
        return first
    *stem, member = first["loc"]
    _, here = _walked(mapping, stem)
    if not isinstance(first.get("input"), Mapping | list) or not isinstance(here, Mapping | list) or member in here:
        return first
    inside = [one for one in errors if [*one["loc"][: len(stem)]] == stem and len(one["loc"]) > len(stem) + 1]
    return inside[0] if inside else first


def _within(mapping: Any, location: Sequence[Key]) -> tuple[Key, ...]:
    """pydantic's location without the names of union members that it puts in."""
    return _walked(mapping, location)[0]


def _walked(mapping: Any, location: Sequence[Key]) -> tuple[tuple[Key, ...], Any]:
    """`_within`, and what is there; None where nothing is."""
    path: list[Key] = []
    here = mapping
    for index, step in enumerate(location):
        last = index == len(location) - 1
        if isinstance(here, Mapping) and step in here:
            here = here[step]
        elif isinstance(here, list | tuple) and isinstance(step, int):
            here = here[step] if step < len(here) else None
        elif last and isinstance(here, Mapping):
            here = None
        else:
            continue
        path.append(step)
    return tuple(path), here


def _problem(error: Mapping[str, Any]) -> str:
    if error["type"] == "missing":
        return "is missing"
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    message = message[:1].lower() + message[1:]
    value = error.get("input")
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return message if isinstance(value, Mapping) or len(shown) > 80 else f"{message}, found {shown}"


def _remedy(cls: type, location: tuple[Key, ...], error: Mapping[str, Any]) -> str:
    """What the field is for, from its docstring, when the field can be found."""
    here: type | None = cls
    for step in location:
        if isinstance(step, int) or here is None:
            continue
        names = {field.name for field in dataclasses.fields(here)}
        if step not in names:
            break
        help_text = field_help(here).get(str(step), "")
        annotation = typing.get_type_hints(here)[str(step)]
        inner = _dataclass_of(annotation)
        if inner is None and typing.get_args(annotation):
            inner = _dataclass_of(typing.get_args(annotation)[0])
        if inner is None and help_text:
            return f"The field means: {' '.join(help_text.split()).rstrip('.')}"
        here = inner
    return "Add the field" if error["type"] == "missing" else "Correct the value"


def _plain(value: Any) -> Any:
    """JSON's own types out of dataclasses, tuples, paths and enums."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(_plain(item) for item in value)
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, Path):
        return str(value)
    return value


def to_mapping(instance: Any) -> dict[str, Any]:
    """A config as JSON's own types (tuples become lists, paths texts); `build` makes the same config out of it."""
    result = _plain(instance)
    assert isinstance(result, dict)
    return result


def field_help(cls: type) -> dict[str, str]:
    """Field name -> the docstring written under the field, base classes included."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                found[field.target.id] = inspect.cleandoc(text.value.value)
    return found
