"""The evaluation of three tiny models: every promised key, the same material for all, and nothing trained on."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from duihua.data.pairs import Exchange
from duihua.data.records import Conversation as Record
from duihua.data.records import Document, is_held_out
from duihua.data.source import SourceConfig
from duihua.data.starter.greetings import Greeting
from duihua.errors import ConfigError
from duihua.models.bundle import ModelCard, Normalisation, save_bundle
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.models.heads import ScoredDecoder
from duihua.stages import evaluate
from duihua.stages.configs.evaluate import EvaluateConfig, SamplePrompt
from duihua.stages.context import StageContext, StageResult
from duihua.stages.evaluation_tables import bleu_table, repetition_table
from duihua.text.tokenizer import Tokenizer

ENGLISH = [f"Fact {n}: the quick brown fox number {n} jumps over the lazy dog." for n in range(120)]
CHINESE = [f"第{n}条：今天天气很好，我们一起去公园散步吧，一共走了{n}步。" for n in range(120)]
CHAT = [(f"Hello {n}", f"Hi there, friend {n}") for n in range(120)] + [(f"你好{n}", f"你好呀{n}") for n in range(120)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base, sft and ppo bundles (random weights, three seeds), a reward bundle, text and conversations."""
    home = tmp_path_factory.mktemp("evaluate")
    tokenizer = Tokenizer.train([*ENGLISH, *CHINESE], 330)
    shape = DecoderConfig(
        vocabulary_size=tokenizer.vocabulary_size, width=32, layers=1, heads=2, key_value_heads=1, head_width=16,
        feed_forward_width=48, context=96,
    )  # fmt: skip
    for seed, name in enumerate(("base", "sft", "ppo")):
        save_bundle(home / name, randomised(Decoder(shape), seed), tokenizer, ModelCard(title=name, stage=name))
    reward = ScoredDecoder(randomised(Decoder(shape), 9)).initialise_score(0)
    card = ModelCard(title="reward", stage="reward")
    save_bundle(home / "reward", reward, tokenizer, card, normalisation=Normalisation(0.5, 2.0))
    for name, texts in (("en.jsonl", ENGLISH), ("zh.jsonl", CHINESE)):
        rows = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts]
        (home / name).write_text("".join(rows), encoding="utf-8")
    rows = [
        json.dumps({"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]}) + "\n"
        for a, b in CHAT
    ]
    (home / "chat.jsonl").write_text("".join(rows), encoding="utf-8")
    return home


def randomised(network: Decoder, seed: int) -> Decoder:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2 if weight.ndim == 2 else weight * 0 + 1)
    return network


def settings(home: Path, **changes: Any) -> EvaluateConfig:
    config = EvaluateConfig(
        text_sources=(SourceConfig(path=str(home / "en.jsonl")), SourceConfig(path=str(home / "zh.jsonl"))),
        heldout_bytes=200,
        sources=(SourceConfig(path=str(home / "chat.jsonl"), kind="conversations"),),
        heldout_conversations=6,
        prompts=6,
        reply_tokens=20,
        greeting_tokens=4,
        sample_prompts=(SamplePrompt("en", ("Hi",)), SamplePrompt("zh", ("你好", "你好呀", "再见"))),
    )
    return dataclasses.replace(config, **changes)


def inputs(home: Path, *names: str) -> dict[str, Path]:
    return {name: home / name for name in names}


@pytest.fixture(scope="module")
def result(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("run")
    context = StageContext(directory, inputs(home, "base", "sft", "ppo", "reward"), directory / "data", seed=1)
    made = evaluate.run(settings(home), context)
    assert made.bundle is None
    assert json.loads(json.dumps(made.metrics, allow_nan=False)) == StageResult.load(directory).metrics
    return made.metrics


def test_every_model_is_measured_on_every_axis(result: dict[str, Any]) -> None:
    for name in ("base", "sft", "ppo"):
        assert set(result["bits_per_byte"][name]) == {"all", "en", "zh"}
        assert set(result["perplexity"][name]) == {"all", "en", "zh"}
        accuracy = result["token_accuracy"][name]
        assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
        assert accuracy["n"] > 0
        assert 0 <= result["repetition_rate"][name] <= 1
    change = result["repetition_change"]
    assert change["n"] == 6
    assert change["value"] == pytest.approx(result["repetition_rate"]["ppo"] - result["repetition_rate"]["sft"])
    assert set(result["reward"]) == {"sft", "ppo"}
    assert result["reward_gain"]["value"] == pytest.approx(result["reward"]["ppo"] - result["reward"]["sft"], abs=1e-6)
    assert result["reward_gain"]["n"] == 6
    assert result["settings"]["prompts"] == {"en": 3, "zh": 3}


def test_repetition_is_a_mean_over_prompts_with_the_paired_standard_error_of_its_change() -> None:
    table = repetition_table({"base": [0.5], "sft": [0.0, 0.2, 0.1], "ppo": [0.1, 0.2, 0.3]})
    assert table["repetition_rate"] == pytest.approx({"base": 0.5, "sft": 0.1, "ppo": 0.2})
    assert table["repetition_change"]["value"] == pytest.approx(0.1)
    assert table["repetition_change"]["standard_error"] == pytest.approx(0.1 / 3**0.5)  # differences 0.1, 0, 0.2
    unpaired = (0.01 / 3 + 0.01 / 3) ** 0.5
    assert table["repetition_change"]["standard_error"] != pytest.approx(unpaired)
    assert "repetition_change" not in repetition_table({"sft": [0.1]})


def test_repetition_reads_several_different_replies_to_a_prompt_and_the_reward_the_first(
    home: Path, tmp_path: Path, result: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: dict[int, list[str]] = {}
    config = settings(home, greetings=False, text_sources=(), sample_prompts=())
    for samples in (1, 3):
        seen = read[samples] = []
        monkeypatch.setattr(evaluate, "repeated_share", lambda text, seen=seen: seen.append(text) or 0.0)
        context = StageContext(tmp_path / str(samples), inputs(home, "sft", "reward"), tmp_path / "data", seed=1)
        made = evaluate.run(dataclasses.replace(config, repetition_samples=samples), context).metrics
        assert made["reward"]["sft"] == result["reward"]["sft"]
    assert len(read[1]) == 6
    assert read[3][::3] == read[1]
    assert read[3][1::3] != read[1]  # the second replies are not the first ones again


def test_bleu_comes_with_signatures_for_both_languages_and_together(result: dict[str, Any]) -> None:
    bleu = result["bleu"]
    assert bleu["stage"] == "sft"
    assert "tok:zh" in bleu["signature"]
    assert "tok:13a" in bleu["per_language"]["en"]["signature"]
    assert "tok:zh" in bleu["per_language"]["zh"]["signature"]
    assert set(result["bleu_by_stage"]) == {"sft", "ppo"}
    assert all(score["signature"] for score in result["chrf_by_stage"].values())


def test_greetings_and_samples_stand_side_by_side(result: dict[str, Any]) -> None:
    for language in ("en", "zh"):
        report = result["greetings"][language]
        assert report["matched"] == sum(item["matched"] for item in report["items"])
        assert report["total"] == len(report["items"]) > 0
        assert result["greetings_by_stage"]["sft"][language] == [report["matched"], report["total"]]
    single, many = result["samples"]
    assert {"language", "prompt", "messages", "base", "sft", "ppo"} <= single.keys()
    assert (single["prompt"], many["prompt"]) == ("Hi", "你好\n→ 你好呀\n再见")
    assert [message["role"] for message in many["messages"]] == ["user", "assistant", "user"]


def test_the_same_seed_gives_the_same_result(home: Path, tmp_path: Path, result: dict[str, Any]) -> None:
    context = StageContext(tmp_path, inputs(home, "base", "sft", "ppo", "reward"), tmp_path / "data", seed=1)
    again = evaluate.run(settings(home), context).metrics
    assert {**again, "seconds": 0} == {**result, "seconds": 0}
    other = evaluate.run(settings(home), dataclasses.replace(context, seed=2)).metrics
    assert other["samples"] != result["samples"]
    assert other["bits_per_byte"] == result["bits_per_byte"]


def test_a_model_alone_can_be_measured(home: Path, tmp_path: Path) -> None:
    context = StageContext(tmp_path, inputs(home, "base"), tmp_path / "data")
    metrics = evaluate.run(settings(home), context).metrics
    assert set(metrics["bits_per_byte"]) == {"base"}
    assert not {"bleu", "greetings", "reward", "reward_gain"} & metrics.keys()
    with pytest.raises(ConfigError, match="no model to evaluate"):
        evaluate.run(settings(home), StageContext(tmp_path, {}, tmp_path / "data"))


def test_nothing_that_was_trained_on_is_measured(home: Path) -> None:
    context = StageContext(home, inputs(home, "sft"), home / "data")
    bundle = evaluate.load_bundle(home / "sft")
    material = evaluate.gather(settings(home, heldout_bytes=0, prompts=1000), context, bundle)
    assert material.documents
    assert material.conversations
    assert material.exchanges
    assert all(is_held_out(document) for document in material.documents)
    assert all(is_held_out(conversation) for conversation in material.conversations)
    assert not all(is_held_out(Document(text, "", "en")) for text in ENGLISH)  # the check can fail
    assert all(is_held_out(Record(exchange.prompt, "", "")) for exchange in material.exchanges)


def test_what_does_not_fit_is_counted(home: Path) -> None:
    context = StageContext(home, inputs(home, "sft"), home / "data")
    bundle = evaluate.load_bundle(home / "sft")
    long = SamplePrompt("en", ("word " * 200,))
    material = evaluate.gather(settings(home, reply_tokens=5, sample_prompts=(long,)), context, bundle)
    assert material.samples == []
    assert material.left_out.counts["sample prompt too long"] == 1
    assert material.left_out.counts["reference longer than a reply may be"] > 0
    assert all(len(bundle.tokenizer.encode(exchange.reply)) < 5 for exchange in material.exchanges)


def test_documents_are_chosen_whole_alike_for_each_language_and_in_any_order() -> None:
    documents = [Document(text, "a", "en") for text in ENGLISH] + [Document(text, "b", "zh") for text in CHINESE]
    chosen = evaluate.choose_documents(documents, 500)
    size = {language: sum(len(d.text.encode()) for d in chosen if d.language == language) for language in ("en", "zh")}
    assert all(500 <= n < 600 for n in size.values())
    assert evaluate.choose_documents(documents[::-1], 500) == chosen
    assert evaluate.choose_documents(documents, 0) == documents


def test_the_base_model_is_prompted_with_plain_text(home: Path) -> None:
    tokenizer = evaluate.load_bundle(home / "base").tokenizer
    (ids,) = evaluate.plain_prompts([[{"role": "user", "content": "Hello 1"}]], tokenizer)
    assert ids[0] == tokenizer.end_of_text_id
    assert tokenizer.decode(ids[1:]) == "Hello 1\n"
    assert tokenizer.im_start_id not in ids


def test_bleu_of_the_references_themselves_is_100() -> None:
    items = [
        Exchange([{"role": "user", "content": "?"}], "I am fine, thank you very much", "a", "en"),
        Exchange([{"role": "user", "content": "？"}], "我很好，谢谢你", "b", "zh"),
    ]
    table = bleu_table(items, {"sft": [item.reply for item in items], "ppo": ["no", "不"]})
    assert table["bleu"]["value"] == pytest.approx(100)
    assert table["bleu"]["per_language"]["zh"]["value"] == pytest.approx(100)
    assert table["bleu_by_stage"]["ppo"]["value"] < 5
    assert math.isclose(table["chrf_by_stage"]["sft"]["value"], 100)


def test_a_sample_prompt_ends_with_the_user() -> None:
    with pytest.raises(ConfigError, match="the user last"):
        SamplePrompt("en", ("Hi", "Hello"))


def test_questions_are_asked_as_they_are_listed() -> None:
    greeting: Greeting = {"language": "en", "prompt": "Hello", "references": ["Hi"]}
    assert evaluate.question(greeting) == [{"role": "user", "content": "Hello"}]


def test_configs_of_measuring_and_fine_tuning_import_no_torch() -> None:
    program = "import sys, duihua.stages.configs.sft, duihua.stages.configs.evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    broken = program.replace("import sys,", "import sys, torch,")
    assert subprocess.run([sys.executable, "-c", broken], check=False).returncode == 1
