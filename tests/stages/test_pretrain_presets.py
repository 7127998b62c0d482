"""Pre-training in the shape of a preset gives a bundle of that family."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from duihua.data.source import SourceConfig
from duihua.errors import ConfigError
from duihua.models.bundle import load_bundle
from duihua.models.flops import count_flops
from duihua.models.imagined import build_imagined
from duihua.models.trace import trace
from duihua.models.work import training_flops
from duihua.stages.configs.pretrain import PretrainConfig, ShapeConfig
from duihua.stages.context import StageContext
from duihua.stages.pretrain import run
from duihua.text.tokenizer import Tokenizer
from duihua.training.config import OptimizerConfig, TrainerConfig


def tiny_training(shape: ShapeConfig, steps: int) -> PretrainConfig:
    """Pre-training of a moment, every step logged."""
    return PretrainConfig(
        sources=(SourceConfig(name="tiny-text"),),
        shape=shape,
        length=32,
        rows=4,
        steps=steps,
        trainer=TrainerConfig(log_every=1, checkpoint_seconds=1e9),
    )


@pytest.mark.parametrize(("name", "family"), [("gpt1", "openai-gpt"), ("gpt2", "gpt2"), ("fast", "duihua")])
def test_a_preset_is_trained_and_saved_as_its_family(name: str, family: str, tmp_path: Path) -> None:
    Tokenizer.train(["the cat and the dog sing and run"] * 3, 264).save(tmp_path / "tokenizer")
    small = ShapeConfig(
        preset=name, width=32, layers=2, heads=2, key_value_heads=2, head_width=16, feed_forward_width=128
    )
    config = dataclasses.replace(tiny_training(small, 20), optimizer=OptimizerConfig(kind="adamw", learning_rate=5e-3))
    context = StageContext(
        directory=tmp_path / "pretrain",
        inputs={"tokenizer": tmp_path / "tokenizer"},
        data_directory=tmp_path / "data",
        device="cpu",
        seed=1,
        threads=1,
    )
    result = run(config, context)
    assert json.loads((tmp_path / "pretrain" / "config.json").read_text())["model_type"] == family
    found = load_bundle(tmp_path / "pretrain")
    assert found.config == small.decoder(found.tokenizer.vocabulary_size, 32)
    first = json.loads((tmp_path / "pretrain" / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    assert first == pytest.approx(math.log(264), abs=0.3)
    assert result.metrics["loss"] < first - 0.3
    assert not found.policy.gradient_checkpointing


@pytest.mark.parametrize("name", ["gpt1", "llama", "fast"])
def test_the_formula_of_training_work_is_what_running_the_network_counts(name: str) -> None:
    small = ShapeConfig(
        preset=name, width=32, layers=3, heads=4, key_value_heads=2, head_width=8, feed_forward_width=40
    )
    shape = small.decoder(50, 24)
    network = build_imagined(shape)
    counted = count_flops(network, trace(network, 1, shape.context), 1, shape.context).training
    assert training_flops(shape, 1) == pytest.approx(counted)
    other = dataclasses.replace(shape, gated=not shape.gated)
    assert training_flops(other, 1) != pytest.approx(counted, rel=1e-2)


def test_a_start_from_bigrams_begins_lower_and_is_the_same_each_time(tmp_path: Path) -> None:
    Tokenizer.train(["the cat and the dog sing and run"] * 3, 264).save(tmp_path / "tokenizer")
    shape = ShapeConfig(width=32, layers=2, heads=2, key_value_heads=1, head_width=16, feed_forward_width=64)
    config = tiny_training(shape, 6)
    losses, expected = {}, {}
    for start in ("random", "bigrams", "bigrams"):
        name = f"{start}-{len(losses)}"
        inputs = {"tokenizer": tmp_path / "tokenizer"}
        context = StageContext(tmp_path / name, inputs, tmp_path / "data", device="cpu", seed=1, threads=1)
        result = run(dataclasses.replace(config, start=start, bigram_smoothing=20.0), context)  # type: ignore[arg-type]
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        losses[name] = [row["loss"] for row in rows if "loss" in row]
        expected[name] = result.metrics["expected"]["first_loss"]
    random, once, again = losses.values()
    assert once[0] < random[0] - 1.0
    assert once == again
    assert once[0] == pytest.approx(expected["bigrams-1"], abs=0.5)
    assert expected["random-0"] == pytest.approx(math.log(264))


def test_a_start_from_bigrams_names_the_field_that_is_in_its_way() -> None:
    with pytest.raises(ConfigError, match="bigrams") as raised:
        PretrainConfig(start="bigrams", shape=ShapeConfig(preset="gpt2"))
    assert raised.value.where.startswith("shape.")
    with pytest.raises(ConfigError, match="above 0"):
        PretrainConfig(bigram_smoothing=0.0)
