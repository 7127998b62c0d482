"""Evaluations during a training: they change nothing, say what the stage says at the end, and are refused of nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from duihua.data.records import Document
from duihua.data.source import SourceConfig
from duihua.errors import TrainingError
from duihua.evaluation.bits_per_byte import bits_per_byte
from duihua.models.bundle import load_bundle
from duihua.report.watching import last_sample, view_stage
from duihua.stages import dpo, pretrain, reward
from duihua.stages.configs.dpo import DPOConfig
from duihua.stages.configs.pretrain import PretrainConfig, ShapeConfig
from duihua.stages.context import StageContext
from duihua.stages.text_meter import OPENING, TextMeter, few_documents
from duihua.text.tokenizer import Tokenizer
from duihua.training.config import OptimizerConfig, TrainerConfig

QUIET = TrainerConfig(log_every=1, checkpoint_seconds=1e9)
SMALL = ShapeConfig(width=32, layers=2, heads=2, key_value_heads=2, head_width=16, feed_forward_width=64)


def lines(folder: Path) -> list[dict[str, Any]]:
    """What the evaluations wrote."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in found if "heldout_loss" in line]


def same_weights(one: Path, other: Path) -> bool:
    left, right = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return all(torch.equal(left[name], right[name]) for name in left)


def pretrained(folder: Path, trainer: TrainerConfig, **changes: Any) -> tuple[Path, Mapping[str, Any]]:
    tokenizer = folder / "tokenizer"
    if not tokenizer.exists():
        Tokenizer.train(["the cat and the dog sing and run"] * 3, 264).save(tokenizer)
    config = PretrainConfig(
        sources=(SourceConfig(name="tiny-text"),), shape=SMALL, length=32, rows=4, steps=12, trainer=trainer,
        optimizer=OptimizerConfig(kind="adamw", learning_rate=5e-3), heldout_documents=10_000, **changes,
    )  # fmt: skip
    out = folder / f"{trainer.evaluate_every}{trainer.end_with}"
    context = StageContext(out, {"tokenizer": tokenizer}, data_directory=folder / "data", seed=1, threads=1)
    return out, pretrain.run(config, context).metrics


def test_evaluations_of_a_base_model_change_nothing_and_end_with_what_the_stage_reports(tmp_path: Path) -> None:
    plain, _ = pretrained(tmp_path, QUIET)
    watched, metrics = pretrained(tmp_path, dataclasses.replace(QUIET, evaluate_every=4))
    assert same_weights(plain, watched)
    assert lines(plain) == []
    seen = lines(watched)
    assert [line["step"] for line in seen] == [4, 8, 12]
    assert seen[-1]["heldout_bits_per_byte"] == pytest.approx(metrics["bits_per_byte"]["all"], abs=1e-6)
    assert seen[0]["heldout_bits_per_byte"] > seen[-1]["heldout_bits_per_byte"] + 0.02, "the model learnt in between"
    assert (metrics["samples"][0]["prompt"], metrics["samples"][0]["after"]) == (
        seen[-1]["sample_prompt"],
        seen[-1]["sample_text"],
    )
    assert 0 < len(seen[-1]["sample_prompt"]) <= OPENING and seen[-1]["sample_text"]


def test_the_best_checkpoint_of_a_base_model_can_be_kept(tmp_path: Path) -> None:
    trainer = dataclasses.replace(QUIET, evaluate_every=4, keep_best="heldout_bits_per_byte", end_with="best")
    out, metrics = pretrained(tmp_path, trainer)
    best = min(line["heldout_bits_per_byte"] for line in lines(out))
    assert metrics["bits_per_byte"]["all"] == pytest.approx(best, abs=1e-6)


def test_watching_shows_the_newest_of_what_a_base_model_wrote(tmp_path: Path) -> None:
    folder = tmp_path / "pretrain"
    folder.mkdir()
    rows: list[dict[str, Any]] = [
        {"step": 2, "loss": 3.0, "seconds": 1.0},
        {"step": 2, "heldout_bits_per_byte": 2.0, "sample_prompt": "The old", "sample_text": " first"},
        {"step": 4, "heldout_bits_per_byte": 1.9, "sample_prompt": "The old", "sample_text": " man"},
        {"step": 5, "loss": 2.5, "seconds": 2.0},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    view = view_stage(folder)
    assert view.sample == ("The old", " man")
    assert view.figures["heldout_bits_per_byte"] == 1.9
    assert last_sample(folder, rows[:1]) is None


def test_few_documents_are_of_all_the_text_and_the_same_in_any_order() -> None:
    documents = [Document(f"text {n}", "s", "en") for n in range(200)]
    chosen = few_documents(documents, 8)
    assert chosen == few_documents(reversed(documents), 8)
    places = sorted(documents.index(one) for one in chosen)
    assert len(set(places)) == 8 and places != list(range(8)) and places[-1] > 100
    assert few_documents(iter(documents), 0) == documents[:1]


def test_the_figures_of_a_few_documents_are_those_of_scoring_them(tmp_path: Path) -> None:
    out, _ = pretrained(tmp_path, QUIET)
    bundle = load_bundle(out)
    documents = [Document("the cat and the dog", "s", "en"), Document("sing and run", "s", "en")]
    meter = TextMeter(bundle.policy, bundle.tokenizer, documents, 32, "cpu")
    score = bits_per_byte(bundle.policy, bundle.tokenizer, documents, 32)["all"]
    found = meter(3)
    assert found["heldout_bits_per_byte"] == score.bits_per_byte
    assert found["heldout_loss"] == score.nats / score.tokens
    assert found["sample_prompt"] == documents[0].text
    fewer = dataclasses.replace(meter, documents=documents[:1])
    assert fewer(3)["heldout_bits_per_byte"] != found["heldout_bits_per_byte"]  # fmt: skip


def reward_run(lab: Any, folder: Path, trainer: TrainerConfig, out: Path) -> Mapping[str, Any]:
    config = lab.reward_config(folder, trainer=trainer)
    context = StageContext(out, {"policy": folder / "sft"}, data_directory=folder, seed=1, threads=1)
    return reward.run(config, context).metrics


def dpo_run(lab: Any, folder: Path, trainer: TrainerConfig, out: Path) -> Mapping[str, Any]:
    config = DPOConfig(
        preferences=(lab.preferences(folder),), conversations=(), sampled_pairs=0, off_topic_pairs=0,
        heldout_sampled_pairs=0, heldout_off_topic_pairs=0, heldout_prompts=0, batch_pairs=16, reply_tokens=12,
        optimizer=OptimizerConfig(kind="adamw", learning_rate=3e-3), trainer=trainer,
    )  # fmt: skip
    context = StageContext(out, {"policy": folder / "sft"}, data_directory=folder, seed=1, threads=1)
    return dpo.run(config, context).metrics


Run = Callable[[Any, Path, TrainerConfig, Path], Mapping[str, Any]]


@pytest.mark.parametrize("run", [reward_run, dpo_run])
def test_evaluations_on_held_out_pairs_change_nothing_and_end_with_what_the_stage_reports(
    lab: Any, tmp_path: Path, run: Run
) -> None:
    lab.policy_bundle(tmp_path / "sft")
    run(lab, tmp_path, QUIET, tmp_path / "plain")
    metrics = run(lab, tmp_path, dataclasses.replace(QUIET, evaluate_every=2), tmp_path / "watched")
    assert same_weights(tmp_path / "plain", tmp_path / "watched")
    seen = lines(tmp_path / "watched")
    assert not lines(tmp_path / "plain") and [line["step"] for line in seen] == list(range(2, metrics["steps"] + 1, 2))
    if metrics["steps"] % 2 == 0:
        assert seen[-1]["heldout_accuracy"] == pytest.approx(metrics["accuracy"]["value"], abs=1e-9)
    assert seen[-1]["heldout_loss"] < seen[0]["heldout_loss"]


def test_evaluations_of_nothing_are_refused(lab: Any, tmp_path: Path) -> None:
    lab.policy_bundle(tmp_path / "sft")
    config = lab.reward_config(
        tmp_path, preferences=(), heldout_sampled_pairs=0, heldout_off_topic_pairs=0,
        trainer=dataclasses.replace(QUIET, evaluate_every=2),
    )  # fmt: skip
    context = StageContext(tmp_path / "out", {"policy": tmp_path / "sft"}, data_directory=tmp_path, threads=1)
    with pytest.raises(TrainingError, match="nothing that this training could measure"):
        reward.run(config, context)
