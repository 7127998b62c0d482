"""YAML mappings that remember where each key was written, and `--set path=value` over them.

Why our own loader: an error must name the line, which plain dictionaries forget; PyYAML follows YAML 1.1, in which
`1e-3` is a text and `no` is false, while people (and YAML 1.2) expect a number and a text; and a key written twice,
which PyYAML takes silently, is nearly always a mistake.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from duihua import console
from duihua.errors import ConfigError


class Located(dict[str, Any]):
    """A dictionary that knows where each of its keys was written: `places[key]` is `file:line` or the `--set` text."""

    def __init__(self, values: Mapping[str, Any] | None = None, place: str = "") -> None:
        super().__init__(values or {})
        self.place = place
        self.places: dict[str, str] = {}


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema: true/false only, `1e-3` a number, dates stay text; mappings are `Located`."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 (PyYAML's own convention; filled below)
    file_name = ""

    def place(self, node: yaml.Node) -> str:
        """`file:line` of a node; a `--set` text is its own place."""
        return self.file_name if self.file_name.startswith("--") else f"{self.file_name}:{node.start_mark.line + 1}"


def _resolve(tag: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), list(first))


_resolve("bool", "true|True|TRUE|false|False|FALSE", "tTfF")
_resolve("int", r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+", "-+0123456789")
_resolve(
    "float",
    r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "-+0123456789.",
)
_resolve("null", "~|null|Null|NULL|", "~nN\0")
_Loader.yaml_implicit_resolvers.setdefault("", []).append(("tag:yaml.org,2002:null", re.compile("^$")))


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "")
    return int(text, 16) if text.lower().startswith("0x") else int(text)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> Located:
    result = Located(place=loader.place(node))
    loader.flatten_mapping(node)
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        place = loader.place(key_node)
        if not isinstance(key, str):
            raise ConfigError(f"the key {key!r} is not a text", where=place, remedy="Put it in quotation marks")
        if key in result:
            raise ConfigError(f"the key {key!r} stands twice", where=place, remedy="Remove one of the two")
        result[key] = loader.construct_object(value_node, deep=True)
        result.places[key] = place
    return result


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse_yaml(text: str, name: str) -> Any:
    """The value of a YAML text; `name` stands for the file in errors. Raises ConfigError with the line."""
    loader = _Loader(text)
    loader.file_name = name
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark and not name.startswith("--") else name
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(
            f"broken YAML: {problem}", where=where, remedy="Check indentation, colons and quotation marks there"
        ) from error
    except ValueError as error:
        raise ConfigError(f"broken YAML: {error}", where=name, remedy="Put the value in quotation marks") from error
    finally:
        loader.dispose()


def load_yaml(path: Path | str) -> Located:
    """Read a YAML file whose top is a mapping. Raises ConfigError naming file and line."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError("no such file", where=str(path), remedy="Check the path") from error
    except IsADirectoryError as error:
        raise ConfigError("is a folder, not a YAML file", where=str(path), remedy="Name the file inside it") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8 at byte {error.start}", where=str(path), remedy="Save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", where=str(path), remedy="Check the file and its rights"
        ) from error
    value = parse_yaml(text, str(path))
    if value is None:
        return Located(place=str(path))
    if not isinstance(value, Located):
        raise ConfigError(
            "the file does not hold a mapping", where=str(path), remedy="Write lines of the form `key: value`"
        )
    return value


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name most like `word`, or None when nothing is near."""
    folded = {name.lower().replace("-", "_"): name for name in known}
    close = difflib.get_close_matches(word.lower().replace("-", "_"), list(folded), n=1, cutoff=0.5)
    return folded[close[0]] if close else None


def suggestion(word: str, known: Sequence[str]) -> str:
    """A remedy for an unknown name: the nearest one, else the list."""
    near = nearest(word, known)
    return f"The nearest known name is {near!r}" if near else "Known here: " + (", ".join(known) or "nothing")


def override(mapping: Mapping[str, Any], settings: Sequence[str]) -> Located:
    """A copy of `mapping` with each `dotted.path=value` of `settings` put in; the value is read as YAML.

    A number in the path picks an item of a list (`sources.0.limit=100`), and 0 begins one that is not there. Raises ConfigError
    naming the setting.
    """
    result = copy.deepcopy(mapping) if isinstance(mapping, Located) else Located(copy.deepcopy(dict(mapping)))
    for setting in settings:
        place = f"--set {setting}"
        path, equals, text = setting.partition("=")
        steps = path.strip().split(".")
        if not equals or not all(steps):
            raise ConfigError(
                "is not of the form field=value", where=place, remedy="Write, for example, --set steps=100"
            )
        value = parse_yaml(text, place)
        _put(result, steps, value, place)
    return result


def _put(target: Any, steps: list[str], value: Any, place: str) -> None:
    step = steps[0]
    if isinstance(target, list):
        if not step.isdigit() or int(step) >= len(target):
            raise ConfigError(
                f"the list has {console.counted(len(target), 'item')} and no {step!r}",
                where=place,
                remedy="Count from 0 in the path",
            )
        if len(steps) == 1:
            target[int(step)] = value
        else:
            _put(target[int(step)], steps[1:], value, place)
        return
    if not isinstance(target, dict):
        raise ConfigError(f"{step!r} would go into a plain value", where=place, remedy="Shorten the path")
    if isinstance(target, Located):
        target.places[step] = place
    if len(steps) == 1:
        target[step] = value
    else:
        if target.get(step) is None:
            target[step] = [Located(place=place)] if steps[1] == "0" else Located(place=place)
        _put(target[step], steps[1:], value, place)
