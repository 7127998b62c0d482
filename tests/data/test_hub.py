"""Hugging Face data sets: streamed through the same columns, and clear without the extra. No network is used."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from duihua.data.source import ColumnsConfig, SourceConfig, open_source
from duihua.errors import DataError


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
