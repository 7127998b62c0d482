"""What a family of published models is to us: the words of its config.json, the names of its tensors, and its limits.

Why data and not classes: the families compute what our decoder computes and differ in spelling, so that a family is one
table in one file and saving, loading and refusing are written once. A family says what it can hold; whatever it cannot
hold exactly is refused by name, and nothing in a config is ignored that would change numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from duihua.errors import BundleError
from duihua.models.config import DecoderConfig

Kind = Literal["policy", "reward"]
T = TypeVar("T")


@dataclass(frozen=True)
class TensorPlace:
    """One tensor of a directory. ours: the parameters of a decoder whose rows follow each other in it. turned: stored with
    inputs first, as the Conv1D of the GPT families is."""

    name: str
    ours: tuple[str, ...]
    turned: bool = False


@dataclass(frozen=True)
class Family:
    """One family. Fields of the decoder's config that none of `limits` and `further_limits` mentions are written or do not
    change what a trained model computes."""

    name: str
    """model_type in config.json."""
    title: str
    """For messages."""
    architectures: Mapping[Kind, str]
    """Class in transformers for each kind of bundle."""
    base_architecture: str
    """Class without any head; its tensors lack the prefix."""
    prefix: str
    """What the names of all tensors but the heads begin with."""
    passed_over: re.Pattern[str]
    """Tensors that old directories hold and that carry nothing learnt."""
    limits: Mapping[str, Sequence[object]]
    """Field -> the values that this family can compute."""
    further_limits: Callable[[DecoderConfig], list[str]]
    """Reasons that concern several fields at once."""
    write: Callable[[DecoderConfig], dict[str, Any]]
    """config.json's own keys for a decoder."""
    read: Callable[[ConfigReader], dict[str, Any]]
    """Fields of DecoderConfig out of config.json; problems are left with the reader."""
    layout: Callable[[DecoderConfig], list[TensorPlace]]
    """All tensors but the heads, in order."""

    def reasons_against(self, config: DecoderConfig) -> list[str]:
        """Why this family cannot hold a decoder; empty where it can."""
        found = [
            f"{field} is {getattr(config, field)!r}, {self.title} has {' or '.join(map(repr, allowed))}"
            for field, allowed in self.limits.items()
            if getattr(config, field) not in allowed
        ]
        return found or self.further_limits(config)


class ConfigReader:
    """config.json, key by key. Problems are collected, so that all of them can be named at once."""

    def __init__(self, mapping: Mapping[str, Any], where: str) -> None:
        self.mapping, self.where = mapping, where
        self.problems: list[str] = []

    def whole(self, *keys: str, default: int | None = None) -> int:
        """A whole number under the first of the keys that is there."""
        key, value = self._first(keys, default)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        self.problems.append(f"{key}: expected a whole number, found {_shown(value)}")
        return 1

    def real(self, *keys: str, default: float | None = None) -> float:
        """A number."""
        key, value = self._first(keys, default)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        self.problems.append(f"{key}: expected a number, found {_shown(value)}")
        return 1.0

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        _, value = self._first((key,), default)
        if not isinstance(value, bool):
            self.problems.append(f"{key}: expected true or false, found {_shown(value)}")
            return default
        return value

    def one_of(self, key: str, known: Mapping[str, T], default: str, meaning: str) -> T:
        """What the word under the key stands for."""
        _, value = self._first((key,), default)
        if value in known:
            return known[value]
        self.problems.append(f"{key}: {meaning} {_shown(value)} is not supported, only {', '.join(known)}")
        return known[default]

    def refuse(self, key: str, allowed: Sequence[object], meaning: str) -> None:
        """A setting that may only have these values, or be absent: with others the model computes something else."""
        value = self.mapping.get(key)
        if value is not None and value not in allowed:
            self.problems.append(f"{key}: {meaning} ({value!r}) is not supported")

    def check(self) -> None:
        """BundleError that names everything found."""
        if self.problems:
            remedy = "Use a model without it" if len(self.problems) == 1 else "Use a model without them"
            if all("expected" in problem for problem in self.problems):
                remedy = "Fetch config.json again"
            raise BundleError("; ".join(self.problems), where=self.where, remedy=remedy)

    def _first(self, keys: Sequence[str], default: object) -> tuple[str, Any]:
        for key in keys:
            if self.mapping.get(key) is not None:
                return key, self.mapping[key]
        return keys[0], default


def _shown(value: object) -> str:
    return "nothing" if value is None else repr(value)
