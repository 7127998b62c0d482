"""Held-out figures during PPO: they change nothing that is learnt, use other prompts, and choose the checkpoint that stays."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import duihua.stages.over_optimisation as module
from duihua.errors import ConfigError
from duihua.models.bundle import ModelCard, Normalisation, load_bundle, save_bundle
from duihua.models.heads import ScoredDecoder
from duihua.stages import grpo, ppo
from duihua.stages.configs.doctors import PPODoctorConfig
from duihua.stages.configs.grpo import GRPOConfig
from duihua.stages.configs.ppo import PPOConfig
from duihua.stages.configs.verifiable import RuleConfig
from duihua.stages.context import StageContext
from duihua.stages.over_optimisation import HeldOutMeter
from duihua.stages.ppo_doctor import examine
from duihua.stages.ppo_log import read_metrics
from duihua.stages.replies import Prompt, Reply
from duihua.training.checkpoints import load_weights


def stage(lab: Any, folder: Path, name: str, **changes: Any) -> tuple[PPOConfig, StageContext]:
    """A PPO stage of eight updates with a reward model and a judge of their own."""
    inputs = {"policy": lab.policy_bundle(folder / "sft")}
    for role, seed in (("reward", 3), ("judge", 4)):
        network = ScoredDecoder(lab.decoder(seed=seed)).initialise_score(seed)
        card = ModelCard(title="tiny reward", stage="reward")
        save_bundle(folder / role, network, lab.tokenizer, card, normalisation=Normalisation(0.0, 1.0))
        inputs[role] = folder / role
    config = lab.config(
        sources=(lab.conversations(folder, 600),), iterations=2, epochs=2, minibatches=2, prompt_tokens=48, train_prompts=40,
        watch_prompts=16, heldout_prompts=8, **changes,
    )  # fmt: skip
    return config, StageContext(folder / name, inputs, data_directory=folder / "data", seed=4, threads=1)


def watching(config: PPOConfig, **changes: Any) -> PPOConfig:
    return dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, evaluate_every=2, **changes))


def test_measuring_changes_nothing_that_is_learnt(lab: Any, tmp_path: Path) -> None:
    config, context = stage(lab, tmp_path, "plain")
    ppo.run(config, context)
    watched = dataclasses.replace(context, directory=tmp_path / "watched")
    found = ppo.run(watching(config), watched).metrics["over_optimisation"]
    plain, other = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "watched"))
    assert all(torch.equal(plain[name], other[name]) for name in plain)
    assert [row["step"] for row in found["rows"]] == [0, 2, 4, 6, 8]
    assert found["rows"][0]["heldout_kl"] == 0.0 and found["rows"][-1]["heldout_kl"] != 0.0
    assert found["kept_step"] is None and found["prompts"] == 16
    assert (found["best_by"], found["judge"]) == ("heldout_judge", "reward_model")
    scores = [row["heldout_judge"] for row in found["rows"]]
    assert found["best_step"] == found["rows"][scores.index(max(scores))]["step"]
    assert scores != [row["heldout_reward"] for row in found["rows"]], "the judge is another model than the reward"
    lines = [json.loads(line) for line in (tmp_path / "watched" / "metrics.jsonl").read_text().splitlines()]
    assert {"heldout_length", "heldout_eos_rate", "heldout_repetition"} <= set(lines[-1])
    assert len(read_metrics(tmp_path / "watched")) == 8, "the doctor reads the updates and passes over the evaluations"
    assert examine(read_metrics(tmp_path / "watched"), PPODoctorConfig()).measured["updates"] == 8
    moved = dataclasses.replace(context, directory=tmp_path / "moved", seed=5)
    ppo.run(config, moved)
    moved_weights = load_file(tmp_path / "moved" / "model.safetensors")
    assert not all(torch.equal(plain[name], moved_weights[name]) for name in plain), "the check sees other weights"


def test_the_bundle_holds_the_step_that_the_judge_likes_best(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge that likes step 4 best, made so by its calls: the bundle is that step's, not the last one's."""
    wanted = iter([1.0, 9.0, 2.0, 3.0, 0.0])

    def judge(prompts: Sequence[Prompt], replies: Sequence[Reply]) -> Tensor:
        return torch.full((len(prompts),), next(wanted))

    monkeypatch.setattr(module, "reward_scorer", lambda *_, **__: judge)
    config, context = stage(lab, tmp_path, "best")
    kept = watching(config, keep_best="heldout_judge", best_is="highest", end_with="best", keep_checkpoints=9)
    found = ppo.run(kept, context).metrics["over_optimisation"]
    assert found["best_step"] == found["kept_step"] == 4
    stored = load_bundle(tmp_path / "best").policy.state_dict()

    def are_those_of(step: int) -> bool:
        saved = load_weights(tmp_path / "best" / "checkpoints", step)
        return all(torch.equal(stored[name[7:]], value) for name, value in saved.items() if name.startswith("policy."))

    assert are_those_of(4) and not are_those_of(8)


def test_the_prompts_are_neither_rolled_out_nor_held_out(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[str]] = {}
    right = ppo.held_out_meter

    def spied(start: Any, *rest: Any) -> Any:
        meter = right(start, *rest)
        for name, prompts in (("train", start.train), ("heldout", start.heldout), ("watched", meter.prompts)):
            seen[name] = {prompt.messages[-1]["content"] for prompt in prompts}
        return meter

    monkeypatch.setattr(ppo, "held_out_meter", spied)
    config, context = stage(lab, tmp_path, "prompts")
    ppo.run(watching(dataclasses.replace(config, iterations=1)), context)
    assert len(seen["watched"]) == 16 and len(seen["train"]) == 40
    assert not seen["watched"] & (seen["train"] | seen["heldout"])


def test_where_all_prompts_would_be_rolled_out_some_are_kept_aside(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, set[str]] = {}
    right = ppo.held_out_meter

    def spied(start: Any, *rest: Any) -> Any:
        seen["all"] = {prompt.messages[-1]["content"] for prompt in start.train}
        meter = right(start, *rest)
        seen["train"] = {prompt.messages[-1]["content"] for prompt in start.train}
        seen["watched"] = {prompt.messages[-1]["content"] for prompt in meter.prompts}
        return meter

    monkeypatch.setattr(ppo, "held_out_meter", spied)
    config, context = stage(lab, tmp_path, "few")
    ppo.run(watching(dataclasses.replace(config, iterations=1, train_prompts=5000)), context)
    assert len(seen["watched"]) == 16 and not seen["watched"] & seen["train"]
    assert seen["watched"] | seen["train"] == seen["all"]
    assert f"16 prompts are kept aside to measure on, {len(seen['train'])} are trained on" in capsys.readouterr().out


def test_too_few_prompts_to_keep_any_aside_are_refused_before_any_reply(lab: Any, tmp_path: Path) -> None:
    config, context = stage(lab, tmp_path, "none")
    source = dataclasses.replace(lab.conversations(tmp_path / "few", 12), heldout=config.sources[0].path)
    few = dataclasses.replace(config, sources=(source,))
    with pytest.raises(ConfigError, match="too few to keep 4 of them aside"):
        ppo.run(watching(few), context)
    assert not (context.directory / "rollouts").exists()


def test_a_judge_that_is_never_asked_is_said(lab: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, context = stage(lab, tmp_path, "silent")
    ppo.run(dataclasses.replace(config, iterations=1), context)
    shown = capsys.readouterr()
    assert "the judge is never asked" in shown.out + shown.err


def plain(text: str) -> float:
    """The share of characters that are ASCII; about half of those of a random reply."""
    return sum(letter.isascii() for letter in text) / max(1, len(text))


def proxy(messages: Sequence[Any], text: str) -> float:
    """What is trained on: the more plain characters the better."""
    return 4 * plain(text)


def meant(messages: Sequence[Any], text: str) -> float:
    """What is meant: a mixture. All of one kind is worth nothing, so that the proxy pays for leaving it."""
    return 8 * plain(text) * (1 - plain(text))


def test_a_gold_rule_that_falls_while_the_reward_rises_chooses_the_step(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And without it the reward that is trained on chooses, another step, and the history says so."""
    seen: list[HeldOutMeter] = []
    right = ppo.held_out_meter

    def kept(*given: Any) -> HeldOutMeter | None:
        found = right(*given)
        assert found is not None
        seen.append(found)
        return found

    monkeypatch.setattr(ppo, "held_out_meter", kept)
    config, context = stage(lab, tmp_path, "gold")
    config = dataclasses.replace(
        config, iterations=12, epochs=4,
        trainer=dataclasses.replace(
            config.trainer, evaluate_every=16, keep_best="heldout_judge", best_is="highest", end_with="best"
        ),
    )  # fmt: skip
    alone = dataclasses.replace(context, inputs={"policy": context.inputs["policy"]})
    found = ppo.run(config, alone, reward=proxy, gold=meant).metrics["over_optimisation"]
    first, last = found["rows"][0], found["rows"][-1]
    assert last["heldout_reward"] > first["heldout_reward"] + 0.4
    assert last["heldout_judge"] < first["heldout_judge"] - 0.3
    assert (found["best_by"], found["judge"]) == ("heldout_judge", "gold")
    best = max(found["rows"], key=lambda row: row["heldout_judge"])["step"]
    assert found["best_step"] == best < last["step"]
    assert found["kept_step"] == max(found["rows"][1:], key=lambda row: row["heldout_judge"])["step"]

    without = dataclasses.replace(seen[0], judge=None).history(alone.directory, None)
    assert (without["best_by"], without["judge"]) == ("heldout_reward", None)
    assert without["best_step"] == max(found["rows"], key=lambda row: row["heldout_reward"])["step"] != best


def test_the_input_judge_goes_before_a_gold_rule(lab: Any, tmp_path: Path) -> None:
    config, context = stage(lab, tmp_path, "both")
    config = watching(dataclasses.replace(config, iterations=1))
    assert ppo.run(config, context, gold=meant).metrics["over_optimisation"]["judge"] == "reward_model"
    inputs = {name: path for name, path in context.inputs.items() if name != "judge"}
    other = dataclasses.replace(context, directory=tmp_path / "gold", inputs=inputs)
    rows = ppo.run(config, other, gold=meant).metrics["over_optimisation"]["rows"]
    assert all(0.0 <= row["heldout_judge"] <= 2.0 for row in rows), "the rule's own range"


def test_rules_that_judge_the_rollouts_judge_what_is_held_out(lab: Any, tmp_path: Path) -> None:
    config, context = stage(lab, tmp_path, "rules")
    rules = (RuleConfig("pattern", pattern=r"(?s).*[aeiou].*"), RuleConfig("answer", weight=2.0))
    settings = GRPOConfig(
        sources=config.sources, iterations=2, rollout_prompts=8, group=4, minibatches=2, reply_tokens=8, prompt_tokens=48,
        train_prompts=40, watch_prompts=16, heldout_prompts=8, samples=0, rules=rules, optimizer=config.optimizer,
        trainer=dataclasses.replace(config.trainer, evaluate_every=2),
    )  # fmt: skip
    alone = dataclasses.replace(context, inputs={"policy": context.inputs["policy"]})
    found = grpo.run(settings, alone).metrics["over_optimisation"]
    assert (found["best_by"], found["judge"]) == ("heldout_judge", "rules")
    assert [row["heldout_judge"] for row in found["rows"]] == [row["heldout_reward"] for row in found["rows"]]
    assert 0.0 < found["rows"][0]["heldout_judge"] <= 1.0, "most random replies have a vowel, none is the answer"
    other = dataclasses.replace(alone, directory=tmp_path / "python")
    found = grpo.run(settings, other, reward=proxy).metrics["over_optimisation"]
    assert (found["best_by"], found["judge"]) == ("heldout_reward", None), "the rules are not what judges then"
