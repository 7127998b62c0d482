"""The speed benchmarks give every system the same work: the same texts, the same count of operations, no held-out token."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest

from duihua.models.presets import preset
from duihua.models.work import training_flops

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SENTENCES = [
    "the cat sat on the mat and the dog sat by the door ",
    "猫坐在垫子上，狗坐在门边。",
    "one two three four five six seven ",
]


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"speed_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_both_tokenizers_learn_and_encode_the_same_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, file = load("tokenizer", monkeypatch), tmp_path / "texts.json"
    texts = [sentence * 5 for sentence in SENTENCES]
    file.write_text(json.dumps({"learn": texts, "en": [texts[0], texts[2]] * 300, "zh": [texts[1]] * 300}))
    ours, theirs = (module.turn(system, file, 300) for system in ("duihua", "tokenizers"))
    assert set(ours) == set(theirs) == set(module.KEYS)
    for language in ("en", "zh"):  # ours has four control tokens among the 300, so slightly fewer merges
        assert 0.8 < ours[f"{language}_characters"] / theirs[f"{language}_characters"] <= 1
    assert (
        module.learn_duihua(texts, 300)[0].__self__.specification()["pre_tokenizer"]["pretokenizers"][0]["pattern"][
            "Regex"
        ]
        == module.PATTERN
    )


def test_one_count_of_operations_serves_all_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("throughput", monkeypatch)
    shape = dataclasses.replace(
        preset("gpt2"), width=384, layers=6, heads=6, key_value_heads=6, head_width=64, feed_forward_width=1536, context=256,
        vocabulary_size=8192,
    )  # fmt: skip
    assert module.work_per_token("13.8M") == training_flops(shape, 1)
    assert module.work_per_token("race") != module.work_per_token("13.8M")
    assert [module._kind(name) for name in ("aten::mm", "aten::_softmax", "aten::silu", "aten::empty")] == [
        "products", "softmax and loss", "norms and element-wise", "other",
    ]  # fmt: skip


def test_a_step_of_ours_is_timed_and_taken_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from duihua.data.shards import write_shard

    class Letters:
        vocabulary_size, end_of_text_id = 8192, 0

        def encode_flat(self, texts: list[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
            rows = [[ord(letter) % 8000 + 1 for letter in text] for text in texts]
            return np.array([id for row in rows for id in row]), np.cumsum(list(map(len, rows)))

    module = load("throughput", monkeypatch)
    write_shard(tmp_path / "shard", [sentence * 200 for sentence in SENTENCES], Letters())
    for name, value in {"ROWS": 2, "LENGTH": 32, "WIDTH": 32, "LAYERS": 1, "HEADS": 2}.items():
        monkeypatch.setattr(module, name, value)
    given = Namespace(
        turn="duihua",
        shape="13.8M",
        shard=tmp_path / "shard",
        threads=1,
        seconds=0.0,
        work_per_token=1e6,
        breakdown=True,
        precision="fp32",
    )
    monkeypatch.setattr(module, "peaks", lambda: {"matmul": 1e9, "onednn": 2e9})
    found = module.turn(given)
    assert found["steps"] == 2 and found["work"] == pytest.approx(1e6 * found["tokens_per_second"])
    assert sum(line["share"] for line in found["breakdown"]) == pytest.approx(1)
    assert found["breakdown"][0]["kind"] in {kind for kind, _ in module.KINDS} | {"other"}


def test_no_window_of_the_training_reaches_into_what_is_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, file = load("gpu", monkeypatch), tmp_path / "ids.bin"
    np.arange(20_000, dtype=np.uint16).tofile(file)
    source = module.Windows(file, rows=64, length=16)
    seen = max(int(source.next()[0]["targets"].max()) for _ in range(50))
    held_out = source.held_out_rows()
    assert seen < source.held_out <= int(held_out.min()) and int(held_out.max()) < 20_000
    assert held_out.shape == (module.HELD_OUT, 17)
    first = module.Windows(file, 64, 16).next()[0]
    assert (first["targets"] == first["token_ids"] + 1).all()
