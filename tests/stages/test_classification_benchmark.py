"""What the classification benchmark chooses its settings on, and which finished cells it takes for its own."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from duihua.config import build
from duihua.data.source import SourceConfig, open_source

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "classification.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("classification_benchmark", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def texts(source: dict[str, Any], folder: Path, split: Any) -> list[str]:
    records = open_source(build(SourceConfig, source, "source"), folder).records(split)
    return [record.texts[0] for record in records]  # type: ignore[union-attr]


@pytest.mark.parametrize("limit", [30, 0])
def test_settings_are_chosen_on_training_examples_that_are_not_trained_on(
    benchmark: ModuleType, tmp_path: Path, limit: int
) -> None:
    for file, first in (("train", 0), ("test", 100)):
        lines = [json.dumps({"text": f"text {n}", "label": "ab"[n % 2]}) for n in range(first, first + 100)]
        (tmp_path / f"{file}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    source = {"path": str(tmp_path / "train.jsonl"), "heldout": str(tmp_path / "test.jsonl"), "kind": "labelled"}
    drawn = texts({**source, "limit": limit}, tmp_path, "train")
    tested = texts(source, tmp_path, "heldout")
    (tmp_path / "made").mkdir()
    made = benchmark.validation_source({**source, "limit": limit}, 20, tmp_path, tmp_path / "made")
    trained, validated = texts(made, tmp_path, "train"), texts(made, tmp_path, "heldout")
    assert len(validated) == 20 and not set(validated) & set(trained)
    assert not set(validated) & set(tested) and not set(trained) & set(tested)
    assert set(validated) <= set(texts(source, tmp_path, "train"))
    if limit:
        assert set(trained) == set(drawn)  # the examples of the table itself
    else:
        assert len(trained) == 80
        assert set(validated) & set(drawn)  # negative control: the whole draw would hold what is validated on


def test_a_cell_without_pre_training_does_not_depend_on_the_weights(benchmark: ModuleType, tmp_path: Path) -> None:
    def fingerprint(pretrained: bool, validation: int = 0, setting: str = "muon-low:5:mean") -> str:
        setup = argparse.Namespace(base=tmp_path, validation=validation)
        found: str = benchmark.fingerprint_of(("reviews-zh", pretrained, 0.0, setting, 1), setup)
        return found

    def write(weights: str, width: int = 8, licence: str = "a") -> None:
        (tmp_path / "config.json").write_text(json.dumps({"hidden_size": width, "duihua": {"licence": licence}}))
        (tmp_path / "tokenizer.json").write_text("{}")
        (tmp_path / "model.safetensors").write_text(weights)

    write("one")
    without, having = fingerprint(False), fingerprint(True)
    assert len({without, having, fingerprint(True, validation=9), fingerprint(True, setting="adamw:5:mean")}) == 4
    write("two", licence="b")
    assert fingerprint(False) == without
    assert fingerprint(True) != having  # negative control: with pre-training the weights decide
    write("one", width=16)
    assert fingerprint(False) != without
