"""Fine-tuning on a tiny model: the loss by itself, what it learns, and that an interruption changes nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from duihua.data.packing import Example, encode_conversations, make_batch
from duihua.data.records import Conversation, Message
from duihua.data.source import SourceConfig
from duihua.errors import ConfigError
from duihua.files import sha256_file
from duihua.models.bundle import ModelCard, load_bundle, save_bundle
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.stages import sft
from duihua.stages.configs.sft import SFTConfig
from duihua.stages.context import StageContext, StageResult
from duihua.text.chat_template import ChatTemplate
from duihua.text.tokenizer import Tokenizer
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig

PAIRS = [
    ("Hello", "Hi there"),
    ("How are you?", "I am fine"),
    ("你好", "你好呀"),
    ("你叫什么名字？", "我叫小对"),
    ("Bye", "See you"),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([text for pair in PAIRS for text in pair] * 4 + ["user assistant system\n"] * 4, 300)


def decoder(tokenizer: Tokenizer, seed: int = 0, context: int = 48) -> Decoder:
    """Random weights everywhere, also where training would start at zero: otherwise attention would do nothing."""
    config = DecoderConfig(
        vocabulary_size=tokenizer.vocabulary_size,
        width=32,
        layers=2,
        heads=2,
        key_value_heads=1,
        head_width=16,
        feed_forward_width=64,
        context=context,
    )
    network = Decoder(config).initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim == 2:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.15)
    return network


def example_of(tokenizer: Tokenizer, *turns: str) -> Example:
    messages: list[Message] = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(turns)]
    made = encode_conversations([Conversation(messages, "test", "en")], ChatTemplate(tokenizer), 48)
    return made.examples[0]


def examples_of(tokenizer: Tokenizer) -> list[Example]:
    return [example_of(tokenizer, *pair) for pair in PAIRS] + [example_of(tokenizer, "Hello", "Hi", "Bye", "See you")]


# -- the loss ---------------------------------------------------------------------------------------------------------


def loss_and_gradient(network: Decoder, batches: list[dict[str, Tensor]]) -> tuple[float, float, Tensor]:
    network.zero_grad()
    total, weight = 0.0, 0.0
    for batch in batches:
        parts = sft.sft_loss(network, batch)
        parts.sum.backward()
        total, weight = total + float(parts.sum.detach()), weight + parts.weight
    gradient = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    return total, weight, gradient


def test_packed_loss_equals_the_loss_of_each_conversation_alone(tokenizer: Tokenizer) -> None:
    network, found = decoder(tokenizer), examples_of(tokenizer)
    rows = [found[:2], found[2:4], found[4:]]
    width = max(sum(example.length for example in row) for row in rows)
    packed = make_batch(rows, width, tokenizer.pad_id)
    alone = [make_batch([[example]], example.length, tokenizer.pad_id) for example in found]
    expected = loss_and_gradient(network, alone)
    got = loss_and_gradient(network, [packed])
    assert got[0] == pytest.approx(expected[0], rel=1e-5)
    assert got[1] == expected[1]
    assert torch.allclose(got[2], expected[2], rtol=1e-4, atol=1e-5)

    # Negative control: one segment a row, as if nobody had masked. A later conversation then sees the one before.
    unmasked = {**packed, "segments": (packed["segments"] > 0).long()}
    wrong = loss_and_gradient(network, [unmasked])
    assert wrong[0] != pytest.approx(expected[0], rel=1e-3)
    assert not torch.allclose(wrong[2], expected[2], rtol=1e-4, atol=1e-5)


def test_packed_loss_equals_a_loss_written_out_with_torch(tokenizer: Tokenizer) -> None:
    """The reference is torch's own cross-entropy on the assistant's tokens of one conversation."""
    network, example = decoder(tokenizer), example_of(tokenizer, "Hello", "Hi there", "Bye", "See you")
    ids = torch.from_numpy(example.token_ids).long()
    mask = torch.from_numpy(example.loss_mask)
    logits = network(ids[None, :-1])[0]
    expected = nn.functional.cross_entropy(logits[mask[1:]], ids[1:][mask[1:]], reduction="sum")
    parts = sft.sft_loss(network, make_batch([[example]], 48, tokenizer.pad_id))
    assert float(parts.sum.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert parts.weight == float(mask.sum())
    everything = nn.functional.cross_entropy(
        logits, ids[1:], reduction="sum"
    )  # the user's words too: another objective
    assert float(parts.sum.detach()) != pytest.approx(float(everything.detach()), rel=0.05)


def test_what_the_user_says_is_no_target(tokenizer: Tokenizer) -> None:
    network, batch = (
        decoder(tokenizer),
        make_batch([[example_of(tokenizer, "Hello", "Hi there")]], 48, tokenizer.pad_id),
    )
    before = float(sft.sft_loss(network, batch).sum.detach())
    masked = batch["weights"] == 0
    other = {**batch, "targets": torch.where(masked, torch.full_like(batch["targets"], 5), batch["targets"])}
    assert float(sft.sft_loss(network, other).sum.detach()) == before
    wrong = {**batch, "targets": torch.where(~masked, torch.full_like(batch["targets"], 5), batch["targets"])}
    assert float(sft.sft_loss(network, wrong).sum.detach()) != before


@pytest.mark.checklist
def test_the_stop_token_is_inside_the_loss_mask_and_is_not_the_pad(tokenizer: Tokenizer) -> None:
    example = example_of(tokenizer, "Hello", "Hi there", "Bye", "See you")
    learnt = example.token_ids[example.loss_mask].tolist()
    assert learnt.count(tokenizer.im_end_id) == 2
    assert learnt[-1] == tokenizer.im_end_id
    assert tokenizer.pad_id not in tokenizer.stop_ids
    assert tokenizer.decode(learnt) == "Hi thereSee you"


# -- the stage --------------------------------------------------------------------------------------------------------


def lines(path: Path, pairs: list[tuple[str, ...]]) -> None:
    rows = [
        {"messages": [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(pair)]}
        for pair in pairs
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def base(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base bundle and a file of conversations beside it: the five pairs, and forty that only differ in a number."""
    folder = tmp_path_factory.mktemp("base")
    save_bundle(folder / "bundle", decoder(tokenizer), tokenizer, ModelCard(title="base", stage="pretrain"))
    lines(folder / "chat.jsonl", [*PAIRS, *[(f"Hello {n}", "Hi there") for n in range(40)]])
    lines(folder / "more.jsonl", [("Hello", "Hi there", "Bye", "See you"), ("你好", "x" * 400)])
    return folder


def settings(base: Path, **changes: Any) -> SFTConfig:
    config = SFTConfig(
        sources=(
            SourceConfig(path=str(base / "chat.jsonl"), kind="conversations"),
            SourceConfig(path=str(base / "more.jsonl"), kind="conversations", weight=2.0),
        ),
        batch_tokens=192,
        micro_batch_tokens=96,
        steps=12,
        heldout_conversations=10,
        samples=1,
        reply_tokens=8,
        optimizer=OptimizerConfig(kind="adamw", learning_rate=1e-2),
        schedule=ScheduleConfig(kind="constant", warmup_steps=2),
        trainer=TrainerConfig(log_every=4, checkpoint_steps=5),
    )
    return dataclasses.replace(config, **changes)


def context(base: Path, directory: Path) -> StageContext:
    return StageContext(directory, {"policy": base / "bundle"}, directory / "data", seed=3)


def test_the_stage_learns_and_reports(base: Path, tmp_path: Path) -> None:
    result = sft.run(settings(base, steps=60), context(base, tmp_path))
    metrics = result.metrics
    assert result.bundle == tmp_path
    assert metrics["loss"] < 0.5 < metrics["before"]["heldout_loss"]
    assert metrics["heldout_loss"] < metrics["before"]["heldout_loss"]
    accuracy = metrics["heldout_token_accuracy"]
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert accuracy["value"] > metrics["before"]["heldout_token_accuracy"]["value"]
    assert metrics["steps"] == 60
    assert metrics["tokens"] == 60 * 192
    left_out = metrics["sources"][1]["left_out"]
    assert left_out == {"left out: one turn is longer than a row": 1}
    assert {"name", "language", "conversations", "tokens", "left_out"} <= metrics["sources"][0].keys()
    assert {"parameters", "terms", "seconds"} <= metrics.keys()
    assert StageResult.load(tmp_path).metrics["heldout_loss"] == metrics["heldout_loss"]
    assert any("heldout" in key for key in metrics["before"])

    trained = load_bundle(tmp_path)
    assert len(trained.prompts) == 6
    assert {"Hello", "你好"} <= set(trained.prompts)  # of the source that counts twice, a language each
    assert "## Something to begin with\n\n- Hello\n- 你好\n" in (tmp_path / "README.md").read_text(encoding="utf-8")
    template = ChatTemplate(trained.tokenizer)
    prompts: list[list[Message]] = [
        [{"role": "user", "content": "How are you?"}],
        [{"role": "user", "content": "你好"}],
    ]
    assert sft.greedy_replies(trained.policy, template, prompts, 16) == ["I am fine", "你好呀"]
    untrained = load_bundle(base / "bundle")
    assert sft.greedy_replies(untrained.policy, template, prompts, 16) != ["I am fine", "你好呀"]


def test_without_the_stop_token_in_the_mask_replies_do_not_end(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the mask: the same training, the stop token's weight set to 0."""
    right = sft.sft_loss

    def forgetful(network: nn.Module, batch: dict[str, Tensor]) -> Any:
        stop = load_bundle(base / "bundle").tokenizer.im_end_id
        return right(network, {**batch, "weights": batch["weights"] * (batch["targets"] != stop)})

    monkeypatch.setattr(sft, "sft_loss", forgetful)
    sft.run(settings(base, steps=60), context(base, tmp_path))
    trained = load_bundle(tmp_path)
    (reply,) = sft.greedy_replies(
        trained.policy, ChatTemplate(trained.tokenizer), [[{"role": "user", "content": "How are you?"}]], 16
    )
    assert reply != "I am fine"


def test_an_interrupted_run_ends_with_the_same_bits(base: Path, tmp_path: Path, killed: Any) -> None:
    whole, cut = context(base, tmp_path / "whole"), context(base, tmp_path / "cut")
    sft.run(settings(base), whole)
    with killed(sft, "sft_loss", 2 * 8):  # in the eighth step, after the checkpoint of the fifth
        sft.run(settings(base), cut)
    assert not (cut.directory / "model.safetensors").exists()
    resumed = sft.run(settings(base), cut)
    assert sha256_file(cut.directory / "model.safetensors") == sha256_file(whole.directory / "model.safetensors")
    assert resumed.metrics["loss"] == StageResult.load(whole.directory).metrics["loss"]

    other = dataclasses.replace(whole, directory=tmp_path / "other", seed=4)  # a different order gives other bits
    sft.run(settings(base), other)
    assert sha256_file(other.directory / "model.safetensors") != sha256_file(whole.directory / "model.safetensors")


def test_rows_longer_than_the_context_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"49 tokens are longer than the model's context of 48"):
        sft.run(settings(base, length=49), context(base, tmp_path))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch_tokens": 0}, {"length": -1}, {"sources": ()}])
def test_impossible_settings_are_refused(base: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        settings(base, **wrong)
