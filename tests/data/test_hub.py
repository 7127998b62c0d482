"""Hugging Face data sets: streamed through the same columns, and clear without the extra. No network is used."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

from duihua.data.parallel.base import PARTS, Part, part_of
from duihua.data.records import Parallel, hash_order
from duihua.data.source import ColumnsConfig, SourceConfig, open_source
from duihua.errors import ConfigError, DataError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stand-in for the package `datasets`; gives what was asked of it."""
    module, seen = ModuleType("datasets"), {}

    def load_dataset(*arguments: Any, **settings: Any) -> Iterator[dict[str, str]]:
        seen.update(settings, arguments=arguments)
        if arguments[0] == "missing/set":
            raise FileNotFoundError("Dataset 'missing/set' doesn't exist.\nmore")
        return iter({"body": f"text {index}" if index != 5 else " "} for index in range(100))

    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    return seen


def test_records_are_streamed_mapped_split_and_counted(asked: dict[str, Any], tmp_path: Path) -> None:
    config = SourceConfig(hub="some/set", subset="small", revision="abc", columns=ColumnsConfig(text="body"))
    source = open_source(config, tmp_path)
    train, heldout = list(source.records("train")), list(source.records("heldout"))
    assert len(train) + len(heldout) == 99
    assert heldout
    assert asked == {"arguments": ("some/set", "small"), "split": "train", "revision": "abc", "streaming": True}
    assert source.left_out.to_mapping()["reasons"] == {"empty text": {"count": 1, "first": "some/set: record 6: body"}}


def test_a_wrong_column_and_a_missing_set_are_one_line(asked: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column for text .*are: body"):
        list(open_source(SourceConfig(hub="some/set"), tmp_path).records("train"))
    with pytest.raises(DataError, match="doesn't exist") as caught:
        list(open_source(SourceConfig(hub="missing/set"), tmp_path).records("train"))
    assert "\n" not in str(caught.value)


def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"extra `hub`.*pip install 'duihua\[hub\]'"):
        open_source(SourceConfig(hub="some/set"), tmp_path)


def test_fingerprint_follows_revision_not_weight() -> None:
    def fingerprint(**settings: Any) -> str:
        return open_source(SourceConfig(hub="some/set", **settings), Path()).fingerprint()

    assert fingerprint() == fingerprint(weight=2.0)
    assert fingerprint() != fingerprint(revision="abc")


# -- parallel texts ---------------------------------------------------------------------------------------------------

PHRASES = 400
"""English phrases, each with three translations, the last of which is that of the next phrase too in every tenth."""


def translations() -> list[dict[str, Any]]:
    rows = []
    for number in range(PHRASES):
        for version in range(3):
            shared = version == 2 and number % 10 == 0
            rows.append((f"french {number + 1} 0" if shared else f"french {number} {version}", f"english {number}"))
    rows.append(("", "english alone"))
    return [{"translation": {"fr": first, "en": second}} for first, second in rows]


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A stand-in for the package `datasets` that gives pairs; how often each split was read."""
    module, seen = ModuleType("datasets"), {"train": 0, "test": 0}

    def load_dataset(*arguments: Any, split: str, **settings: Any) -> Iterator[dict[str, Any]]:
        seen[split] += 1
        return iter(translations() if split == "train" else [{"fr": "à part", "en": "apart"}])

    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    return seen


def sides(pairs: list[Parallel]) -> set[tuple[int, str]]:
    return {(side, text) for pair in pairs for side, text in enumerate(pair.texts)}


def shared_sides(parts: dict[Part, list[Parallel]]) -> int:
    """Texts that stand in more than one part."""
    return sum(len(sides(parts[a]) & sides(parts[b])) for a, b in itertools.combinations(PARTS, 2))


def test_no_text_of_a_pair_stands_in_two_parts_whichever_its_side(pairs: dict[str, int], tmp_path: Path) -> None:
    source = open_source(SourceConfig(hub="some/pairs", kind="parallel", languages="fr-en"), tmp_path)
    parts = {part: cast(list[Parallel], list(part_of(source, part))) for part in PARTS}
    assert sum(map(len, parts.values())) == 3 * PHRASES and all(parts.values())
    assert shared_sides(parts) == 0
    assert len(list(source.records("heldout"))) == len(parts["validation"]) + len(parts["test"])
    assert pairs["train"] == 1, "streamed once, whatever is asked of it"
    assert source.left_out.to_mapping()["reasons"]["empty side"]["first"].startswith(
        f"some/pairs: record {3 * PHRASES + 1}"
    )
    by_pair: dict[Part, list[Parallel]] = {part: [] for part in PARTS}  # control: a hash of each pair by itself
    for pair in itertools.chain.from_iterable(parts.values()):
        drawn = hash_order(pair) / 2**64
        by_pair["test" if drawn < 0.05 else "validation" if drawn < 0.075 else "train"].append(pair)
    assert shared_sides(by_pair) > 20


def test_a_held_out_split_is_the_test_and_validation_comes_out_of_the_other(
    pairs: dict[str, int], tmp_path: Path
) -> None:
    config = SourceConfig(hub="some/pairs", kind="parallel", languages="fr-en", heldout="test")
    source = open_source(config, tmp_path)
    parts = {part: cast(list[Parallel], list(part_of(source, part))) for part in PARTS}
    assert [pair.texts for pair in parts["test"]] == [("à part", "apart")]
    assert len(parts["train"]) + len(parts["validation"]) == 3 * PHRASES and parts["validation"]
    assert shared_sides(parts) == 0
    limited = open_source(replace(config, limit=10), tmp_path)
    assert [len(list(part_of(limited, part))) for part in PARTS] == [10, len(parts["validation"]), 1]
    assert source.fingerprint() == open_source(config, tmp_path).fingerprint()
    with pytest.raises(ConfigError, match="does not name two languages"):
        open_source(SourceConfig(hub="some/pairs", kind="parallel"), tmp_path)
