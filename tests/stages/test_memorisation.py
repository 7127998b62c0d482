"""Fine-tuning, source by source: what is learnt by heart shows, what is not does not, and measuring it changes nothing."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from duihua.data.records import Conversation, Message
from duihua.data.source import SourceConfig
from duihua.files import sha256_file
from duihua.nn.lora_config import LoraConfig
from duihua.report.sections.curves import BY_SOURCE
from duihua.stages import sft, source_losses
from duihua.stages.configs.sft import SFTConfig
from duihua.stages.context import StageContext
from duihua.stages.memorisation import Question, compared, questions
from duihua.stages.source_losses import HELD_OUT, TRAINED, hashed, source_labels, with_evaluations
from duihua.text.chat_template import ChatTemplate
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig

WORDS = ("red", "blue", "green", "one", "two", "three", "four", "cat", "dog", "bird")


def said(prompt: str, reply: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]}


def source(folder: Path, name: str, pairs: int, heldout: int, words: int, **more: Any) -> SourceConfig:
    """Answers of random words, which can be known by heart and in no other way; its own files, so that nothing is a hash's."""
    chance = random.Random(name)
    rows = [
        said(f"say {chance.choice(WORDS)} {name} {i}", " ".join(chance.choices(WORDS, k=words)))
        for i in range(pairs + heldout)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for part, lines in (("train", rows[:pairs]), ("heldout", rows[pairs:])):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}-{part}.jsonl").write_text(text, encoding="utf-8")
    held = str(folder / f"{name}-heldout.jsonl") if heldout else ""
    return SourceConfig(path=str(folder / f"{name}-train.jsonl"), heldout=held, kind="conversations", **more)


def fine_tuning(lab: Any, folder: Path, name: str = "run", **changes: Any) -> tuple[SFTConfig, StageContext]:
    """Two sources with held-out conversations, of different length, and one of two conversations that has none."""
    base = folder / "base"
    if not base.exists():
        lab.policy_bundle(base)
    config = SFTConfig(
        sources=(
            source(folder, "short", 20, 12, 3),
            source(folder, "long", 8, 6, 9),
            source(folder, "few", 2, 0, 3),
        ),
        batch_tokens=256, micro_batch_tokens=256, steps=12, samples=1, reply_tokens=12, memorisation_prompts=20,
        optimizer=OptimizerConfig(kind="adamw", learning_rate=1e-2), schedule=ScheduleConfig(kind="constant"),
        trainer=TrainerConfig(log_every=4, checkpoint_steps=5, checkpoint_seconds=1e9, evaluate_every=3),
    )  # fmt: skip
    return dataclasses.replace(config, **changes), StageContext(folder / name, {"policy": base}, folder, seed=3)


def by_heart(memorised: dict[str, Any]) -> bool:
    """The judgement that the tests hold: the figures of the source `short` say that it is known by heart."""
    short = memorised["sources"][0]
    equal = {part: short[part]["exact"]["value"] for part in ("train", "heldout")}
    return bool(short["gap"]["low"] > 1 and equal["train"] > 0.7 and equal["heldout"] < 0.2)


def evaluations(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "learning_rate" not in line]


# -- what it finds ----------------------------------------------------------------------------------------------------


def test_random_answers_that_are_seen_often_are_known_by_heart_and_held_out_ones_are_not(
    lab: Any, tmp_path: Path
) -> None:
    trainer = TrainerConfig(evaluate_every=80, checkpoint_seconds=1e9)
    config, context = fine_tuning(lab, tmp_path, steps=320, trainer=trainer)
    found = sft.run(config, context).metrics["memorised"]
    assert by_heart(found)
    short = found["sources"][0]
    assert short["train"]["copied"]["value"] > 0.8
    assert short["train"]["run_share"]["value"] > short["heldout"]["run_share"]["value"] + 0.3
    assert short["heldout"]["reference_copied"]["value"] < 0.3, "people's answers to those prompts are other ones"
    curve = found["curve"]
    assert [row["step"] for row in curve] == [0, 80, 160, 240, 320]
    name = short["name"]
    assert curve[-1][TRAINED + name] < 0.3 < curve[0][TRAINED + name]
    assert curve[-1][HELD_OUT + name] > curve[-1][TRAINED + name] + 1
    assert curve[-1][TRAINED + name] == pytest.approx(short["train"]["loss"]["value"], abs=1e-6)

    # The control: the same data, and a model that has learnt nothing of it.
    rates = OptimizerConfig(kind="adamw", learning_rate=0.0)
    config, context = fine_tuning(lab, tmp_path, "untrained", steps=1, optimizer=rates)
    untrained = sft.run(config, context).metrics["memorised"]
    assert not by_heart(untrained)
    short = untrained["sources"][0]
    assert abs(short["gap"]["value"]) < 0.3
    assert short["train"]["exact"]["value"] == short["heldout"]["exact"]["value"] == 0


def test_the_losses_of_the_sources_weighted_by_tokens_are_the_pooled_held_out_loss(lab: Any, tmp_path: Path) -> None:
    config, context = fine_tuning(lab, tmp_path)
    metrics = sft.run(config, context).metrics
    measured = [one for one in metrics["memorised"]["sources"] if one["heldout"]]
    tokens = {one["name"]: one["heldout"]["tokens"] for one in measured}
    assert len(tokens) == 2
    assert sum(one["heldout"]["conversations"] for one in measured) == metrics["heldout_conversations"] == 18
    rows = [*evaluations(context.directory), *metrics["memorised"]["curve"]]
    rows.append({HELD_OUT + one["name"]: one["heldout"]["loss"]["value"] for one in measured})
    rows[-1]["heldout_loss"] = metrics["heldout_loss"]
    assert len(rows) == 4 + 5 + 1
    unweighted = []
    for row in rows:
        losses = {name: row[HELD_OUT + name] for name in tokens}
        weighted = sum(losses[name] * tokens[name] for name in tokens) / sum(tokens.values())
        assert weighted == pytest.approx(row["heldout_loss"], abs=1e-6)
        unweighted.append(abs(sum(losses.values()) / len(losses) - row["heldout_loss"]))
    assert max(unweighted) > 1e-3, "the control: a mean of the sources' means is another number"


def test_a_source_without_held_out_conversations_is_named_and_has_no_gap(
    lab: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, context = fine_tuning(lab, tmp_path, heldout_conversations=1)
    found = sft.run(config, context).metrics["memorised"]
    said_so = capsys.readouterr().err
    assert "sft: few-train.jsonl: no conversation is held out, so its loss on unseen ones is not known" in said_so
    measured = [one["heldout"] is not None for one in found["sources"]]
    assert sorted(measured) == [False, False, True]
    other, known = ("long", 6) if measured[0] else ("short", 12)
    assert f"sft: {other}-train.jsonl: none of its {known} held-out conversations is among those measured" in said_so
    few = found["sources"][2]
    assert (few["heldout"], few["gap"], few["heldout_known"]) == (None, None, 0)
    assert few["train"]["conversations"] == few["train"]["prompts"] == 2
    assert not any(name == HELD_OUT + few["name"] for row in evaluations(context.directory) for name in row)


def test_nothing_is_asked_for_where_it_is_turned_off(lab: Any, tmp_path: Path) -> None:
    trainer = TrainerConfig(checkpoint_seconds=1e9)
    off = {"evaluations": 0, "compared_conversations": 0, "memorisation_prompts": 0, "trainer": trainer}
    config, context = fine_tuning(lab, tmp_path, **off)
    found = sft.run(config, context).metrics["memorised"]
    assert evaluations(context.directory) == []
    assert found["exact"] == {}
    assert [one["train"] for one in found["sources"]] == [None] * 3
    assert found["sources"][0]["heldout"].keys() == {"conversations", "tokens", "loss"}
    assert [row["step"] for row in found["curve"]] == [0, 12]


def test_evaluations_that_nobody_asked_for_look_at_a_few_of_each_source(lab: Any, tmp_path: Path) -> None:
    few = {"steps": 60, "evaluations": 3, "compared_conversations": 4, "trainer": TrainerConfig(checkpoint_seconds=1e9)}
    config, context = fine_tuning(lab, tmp_path, **few)
    metrics = sft.run(config, context).metrics
    curve, sources = metrics["memorised"]["curve"], metrics["memorised"]["sources"]
    assert [row["step"] for row in curve] == [0, 20, 40, 60]
    assert [line["step"] for line in evaluations(context.directory)] == [20, 40, 60]
    assert not any("heldout_loss" in row for row in curve), "which is of all of them"
    assert [one["heldout"] and one["heldout"]["conversations"] for one in sources] == [12, 6, None], "at the end of all"
    last, first = curve[-1], evaluations(context.directory)[-1]
    assert {name: last[name] for name in last if name != "step"} == pytest.approx(
        {name: first[name] for name in first if name != "step"}, abs=1e-6
    ), "the same conversations at the end of the curve as on the way"
    name = sources[0]["name"]
    assert last[HELD_OUT + name] != pytest.approx(sources[0]["heldout"]["loss"]["value"], abs=1e-3)


# -- what it leaves alone ---------------------------------------------------------------------------------------------


def test_measuring_draws_no_random_number_and_changes_no_bit(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, so that every step draws from the state that an evaluation could have moved."""
    weights = []
    quiet = TrainerConfig(checkpoint_seconds=1e9)
    for name, more in (
        ("without", {"evaluations": 0}),
        ("with", {"trainer": dataclasses.replace(quiet, evaluate_every=3)}),
    ):
        config, context = fine_tuning(
            lab, tmp_path, name, **{"lora": LoraConfig(rank=4, dropout=0.2), "trainer": quiet} | more
        )
        sft.run(config, context)
        weights.append(sha256_file(context.directory / "model.safetensors"))
    assert len(evaluations(context.directory)) == 4
    assert weights[0] == weights[1]

    right = source_losses.score_conversations

    def careless(*arguments: Any) -> Any:
        torch.rand(1)
        return right(*arguments)

    monkeypatch.setattr(source_losses, "score_conversations", careless)
    sft.run(config, dataclasses.replace(context, directory=tmp_path / "careless"))
    assert sha256_file(tmp_path / "careless" / "model.safetensors") != weights[0]


def test_an_interrupted_run_measures_the_same(lab: Any, tmp_path: Path, killed: Any) -> None:
    config, whole = fine_tuning(lab, tmp_path, "whole")
    _, cut = fine_tuning(lab, tmp_path, "cut")
    expected = sft.run(config, whole).metrics["memorised"]
    with killed(sft, "sft_loss", 8):  # in the eighth step, after the checkpoint and the evaluation of the sixth
        sft.run(config, cut)
    assert sft.run(config, cut).metrics["memorised"] == expected
    assert evaluations(cut.directory) == evaluations(whole.directory)
    assert sha256_file(cut.directory / "model.safetensors") == sha256_file(whole.directory / "model.safetensors")


# -- its parts --------------------------------------------------------------------------------------------------------


def test_evaluations_are_spread_evenly_and_bounded_by_work() -> None:
    def every(tokens: int, **changes: Any) -> int:
        config = SFTConfig(steps=240, batch_tokens=2048, **changes)
        return with_evaluations(config, tokens).trainer.evaluate_every

    assert every(20_000) == 60, "the quickstart: four"
    assert every(20_000, evaluations=0) == every(0) == 0
    assert every(20_000, evaluations=7) == 35
    # a tenth of 240 steps x 2,048 tokens x 3 forwards is 147,456
    assert every(49_152) == 80, "three of them"
    assert every(147_456) == 240 and every(147_457) == 0
    assert every(147_457, trainer=TrainerConfig(evaluate_every=7)) == 7, "who asks for them by name gets them"
    assert every(20_000, trainer=TrainerConfig(sharding="full")) == 0


def test_sources_are_named_so_that_figures_stay_apart() -> None:
    assert source_labels(["/a/x.jsonl", "identity", "b/x.jsonl", "/c/x.jsonl"]) == [
        "x.jsonl (1)", "identity", "b/x.jsonl", "x.jsonl (2)",
    ]  # fmt: skip
    assert {TRAINED.rstrip("/"): HELD_OUT.rstrip("/")} == BY_SOURCE, "what the report looks for"


def conversation(*turns: str) -> Conversation:
    messages: list[Message] = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(turns)]
    return Conversation(messages, "test", "en")


def test_a_sample_does_not_depend_on_the_order_and_holds_nothing_twice() -> None:
    many = [conversation(f"say {n}", "red") for n in range(30)]
    assert hashed(many, 5) == hashed([*many[::-1], *many], 5)
    assert len({one.messages[0]["content"] for one in hashed(many * 2, 40)}) == 30


def test_any_reply_that_the_data_gives_to_a_prompt_is_a_reference(lab: Any) -> None:
    first, second = conversation("say", "red"), conversation("say", "blue")
    later = conversation("name", "cat", "say", "green")  # another prompt: something was said before
    template = ChatTemplate(lab.tokenizer)
    (found,) = questions([first], [first, second, later], 3, template, 64, 8)
    assert found.references == ["red", "blue"]
    assert questions([first], [first], 3, template, 8, 8) == [], "no room for prompt and reply"


def test_a_reference_longer_than_a_reply_may_be_counts_as_far_as_it_goes(lab: Any) -> None:
    long = " ".join(WORDS)
    question = Question([{"role": "user", "content": "say"}], ["red", long])
    size = len(lab.tokenizer.encode(long)) // 2
    beginning = lab.tokenizer.decode(lab.tokenizer.encode(long)[:size]).strip()
    made = compared(question, beginning, lab.tokenizer, size, 1.0, 0.0)
    assert (made.equal, made.run_share) == (True, 1.0)
    assert not compared(question, beginning, lab.tokenizer, size + 2, 1.0, 0.0).equal, "it could have gone on"
    assert compared(question, "red", lab.tokenizer, size, 1.0, 0.0).equal
    assert not compared(question, "red red", lab.tokenizer, size, 1.0, 0.0).equal
