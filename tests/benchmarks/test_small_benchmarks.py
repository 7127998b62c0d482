"""The benchmarks that run in seconds measure what they say."""

from __future__ import annotations

import importlib.util
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Imports a benchmark by name; the number of threads that it sets is put back."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    loaded: list[str] = []

    def by_name(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        loaded.append(spec.name)
        spec.loader.exec_module(module)
        return module

    threads = torch.get_num_threads()
    yield by_name
    torch.set_num_threads(threads)
    for name in loaded:
        del sys.modules[name]


def test_look_up_and_product_are_compared_on_the_same_ids(load: object) -> None:
    found = load("embedding_lookup").measure(vocabulary_size=64, width=8, tokens=16, rounds=2)  # type: ignore[operator]
    assert found["equal"] and found["one_hot_bytes"] == 64 * 16 * 4
    assert set(found["seconds"]) == {"look_up", "product", "one_hot_and_product"}
    assert all(0 < seconds < 60 for seconds in found["seconds"].values())


def test_formats_start_alike_see_the_same_batches_and_stay_within_one_per_cent(load: object) -> None:
    module = load("number_formats")  # type: ignore[operator]
    setup = Namespace(steps=4, rows=2, memory_rows=2, length=16, width=64, layers=1, device="cpu")
    rows = module.compare(setup)
    assert [row["format"] for row in rows] == ["fp32", "bf16", "fp16"]
    full, *short = rows
    assert full["widest_gap"] == 0.0 and len(set(full["losses"])) == 4
    for row in short:
        assert 0.0 < row["widest_gap"] < 0.01 and row["losses"] != full["losses"]
        assert row["skipped_steps"] == 0 and row["tokens_per_second"] > 0
    other = module.ByteBatches(2, 16)
    other.next()
    assert not (other.next()[0]["token_ids"] == module.ByteBatches(2, 16).next()[0]["token_ids"]).all()


def test_a_checkpoint_is_weighed_whole_and_copied_alone(
    load: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = load("checkpoint_cost")  # type: ignore[operator]
    shape = module.ShapeConfig(width=16, layers=1, heads=2, key_value_heads=1, head_width=8, feed_forward_width=24)
    found = module.measure(shape, 300, 32, times=2)
    assert found["bytes"] > 8 * found["parameters"]  # the weights, and at least one number of the optimizer for each
    assert 0 < found["share_in_background"] < found["share_of_training"] < 1
    assert not list(tmp_path.iterdir())
