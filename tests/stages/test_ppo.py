"""PPO learns a reward that anyone can check, and the whole stage gives what it promises."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import duihua.stages.rollout as rollout_module
from duihua.config import build
from duihua.data.records import LeftOut
from duihua.errors import BundleError, ConfigError, DataError
from duihua.models.bundle import ModelCard, Normalisation, load_bundle, save_bundle
from duihua.models.heads import ScoredDecoder
from duihua.stages import ppo
from duihua.stages.actor_critic import ActorCritic
from duihua.stages.comparison import Comparison, Side, compare
from duihua.stages.configs.ppo import PPOConfig
from duihua.stages.context import StageContext
from duihua.stages.judging import choose_prompts
from duihua.stages.policy_training import Start
from duihua.stages.prompts import open_sources
from duihua.stages.replies import Prompt
from duihua.stages.rollout import Rollout
from duihua.text.chat_template import ChatTemplate
from duihua.text.tokenizer import Tokenizer

MARGIN = 0.6
"""How far the mean gold reward (about 1 by chance, at most 4) must rise in 96 updates."""


def learnt(lab: Any, directory: Path, **changes: Any) -> Comparison:
    """The reward before and after a short run on the gold reward."""
    rollout = lab.rollout(lab.config(**changes))
    lab.trainer(rollout, directory).run()
    network = rollout.network
    return compare(
        rollout.reference, network.policy, lab.gold, lab.prompts(24) * 4, lab.tokenizer, rollout.config, seed=9
    )


@pytest.mark.checklist(1)
def test_ppo_raises_a_gold_reward_inside_its_kl_budget(lab: Any, tmp_path: Path) -> None:
    found = learnt(lab, tmp_path)
    assert found.gain.value > MARGIN
    assert found.gain.value > 3 * found.gain.standard_error
    assert 0.0 < found.kl < 10.0


@pytest.mark.checklist(17)
def test_a_flipped_advantage_does_not_learn(lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = rollout_module.whiten
    monkeypatch.setattr(rollout_module, "whiten", lambda *a, **k: -right(*a, **k))
    assert learnt(lab, tmp_path).gain.value < 0.0


@pytest.mark.checklist(14)
def test_a_score_one_token_late_does_not_learn(lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = rollout_module.kl_rewards
    monkeypatch.setattr(rollout_module, "kl_rewards", lambda *a: right(*a).roll(1, dims=1) * a[3])
    assert learnt(lab, tmp_path).gain.value < MARGIN


@pytest.mark.checklist(12)
def test_the_kl_penalty_keeps_the_policy_at_home(lab: Any, tmp_path: Path) -> None:
    """A coefficient of 5 holds the policy where none at all lets it go beyond a budget of one nat."""
    held, free = learnt(lab, tmp_path / "a", kl_coefficient=5.0), learnt(lab, tmp_path / "b", kl_coefficient=0.0)
    assert held.kl < 0.5
    assert free.kl > 1.0, "without the penalty the budget is left"


def side(scores: list[float], texts: list[str], ended: list[bool]) -> Side:
    return Side(texts=texts, scores=scores, ended=ended, lengths=[len(text) for text in texts])


def test_comparison_is_paired_and_total_is_score_less_penalty() -> None:
    prompts = [Prompt(i, [{"role": "user", "content": str(i)}], [1], "s", "en" if i < 3 else "zh") for i in range(4)]
    before = side([0.0, 1.0, 2.0, 3.0], ["a b c d a b c d", "x", "y", "z"], [True, False, True, True])
    after = side([1.0, 2.0, 3.0, 4.5], ["p", "q", "r", "s"], [True, True, True, True])
    found = Comparison(prompts, before, after, [1.0, 2.0, 3.0, 6.0], 0.5).to_mapping(3)
    assert found["reward_gain"]["value"] == pytest.approx(1.125)
    assert found["reward_gain"]["standard_error"] == pytest.approx(0.125), "differences 1, 1, 1, 1.5: s = 0.25, n = 4"
    assert found["reward_gain"]["n"] == 4
    assert found["kl_nats"] == 3.0
    assert found["eos_rate"] == {"before": 0.75, "after": 1.0}
    assert found["repetition_rate"]["before"] > found["repetition_rate"]["after"] == 0.0
    assert [sample["language"] for sample in found["samples"]] == ["en", "zh", "en"]
    assert found["samples"][1]["total"] == 4.5 - 0.5 * 6.0


def gold_rule(messages: list[Any], text: str) -> float:
    """A rule on texts: the share of letters that are vowels."""
    return 4 * sum(letter in "aeiou" for letter in text) / max(1, len(text))


def stage(lab: Any, folder: Path, dropout: float = 0.0, **changes: Any) -> tuple[PPOConfig, StageContext]:
    """A PPO stage on files, with a policy bundle and a random reward bundle. dropout: what both were trained with."""
    policy = lab.policy_bundle(folder / "sft", dropout=dropout)
    reward = ScoredDecoder(lab.decoder(seed=0, dropout=dropout)).initialise_score(3)
    card = ModelCard(title="tiny reward", stage="reward")
    save_bundle(folder / "reward", reward, lab.tokenizer, card, normalisation=Normalisation(0.1, 0.9))
    config = lab.config(
        sources=(lab.conversations(folder, 600),), iterations=2, epochs=2, minibatches=2, prompt_tokens=48,
        heldout_prompts=16, **changes,
    )  # fmt: skip
    inputs = {"policy": policy, "reward": folder / "reward"}
    return config, StageContext(folder / "ppo", inputs, data_directory=folder / "data", seed=4, threads=1)


def test_the_stage_gives_a_policy_bundle_and_the_promised_figures(lab: Any, tmp_path: Path) -> None:
    config, context = stage(lab, tmp_path)
    result = ppo.run(config, context)
    stored = json.loads((tmp_path / "ppo" / "result.json").read_text(encoding="utf-8"))["metrics"]
    assert {
        "steps", "iterations", "reward_before", "reward_after", "reward_gain", "kl_nats", "repetition_rate", "length",
        "eos_rate", "samples", "seconds", "terms",
    } <= set(stored)  # fmt: skip
    assert stored["steps"] == 8
    assert stored["reward_gain"]["n"] == 16
    assert set(stored["samples"][0]) >= {
        "prompt", "text_before", "text_after", "reward_before", "reward_after", "kl", "total",
    }  # fmt: skip
    assert result.bundle is not None
    bundle = load_bundle(result.bundle)
    assert bundle.kind == "policy"
    names = set(load_file(tmp_path / "ppo" / "model.safetensors"))
    assert not any("value" in name.split(".")[0] or "score" in name or "critic" in name for name in names)
    assert names == set(load_file(tmp_path / "sft" / "model.safetensors")), "no value head in the bundle"
    newest = sorted((tmp_path / "ppo" / "checkpoints").iterdir())[-1]
    assert "value.weight" in load_file(newest / "weights.safetensors"), "the critic lives in the checkpoints"
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("sft", "ppo"))
    assert any(not torch.equal(before[name], after[name]) for name in before)


class SeenEnough(Exception):  # noqa: N818
    """Ends a stage where a test has what it wanted to look at."""


@pytest.mark.checklist(22)
@pytest.mark.mutation(
    "dropout stays on", "duihua.stages.actor_critic:switch_off_dropout", lambda right, *networks: None
)
@pytest.mark.mutation(
    "dropout is switched off in what is trained alone",
    "duihua.stages.actor_critic:switch_off_dropout",
    lambda right, network, *others: right(network),
)
@pytest.mark.mutation(
    "dropout stays on in the critic",
    "duihua.stages.actor_critic:switch_off_dropout",
    lambda right, network, *others: right(network.policy, *others),
)
def test_the_stage_switches_dropout_off_in_all_four_networks(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policy, critic, reference and reward model of bundles trained with dropout, as the stage hands them to the Trainer:
    even in training mode two forwards are equal."""
    config, context = stage(lab, tmp_path, dropout=0.3, critic="reward")
    seen: dict[str, Any] = {}

    def look(rollout: Rollout, start: Start, *rest: Any) -> None:
        judge = start.judge.bundle
        assert judge is not None and isinstance(rollout.network, ActorCritic)
        network = rollout.network
        seen.update(policy=network.policy, critic=network.critic, reference=rollout.reference, reward=judge.reward)
        raise SeenEnough

    monkeypatch.setattr(ppo, "learn_from", look)
    with pytest.raises(SeenEnough):
        ppo.run(config, context)
    ids = torch.tensor([lab.prompts(1)[0].ids])
    stored = load_bundle(context.inputs["policy"]).policy.train()
    assert not torch.equal(stored(ids), stored(ids)), "the bundle itself has dropout"
    assert len({id(network) for network in seen.values()}) == 4
    for name, network in seen.items():
        network.train()
        assert torch.equal(network(ids), network(ids)), name


@pytest.mark.checklist(18, 22)
@pytest.mark.mutation(
    "dropout stays on", "duihua.stages.actor_critic:switch_off_dropout", lambda right, *networks: None
)
def test_the_first_ratio_is_one_where_the_bundles_were_trained_with_dropout(lab: Any, tmp_path: Path) -> None:
    config, context = stage(lab, tmp_path, dropout=0.3)
    ppo.run(config, context)
    first = json.loads((tmp_path / "ppo" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert (first["ratio"], first["approximate_kl"], first["clip_fraction"]) == (1.0, 0.0, 0.0)


class Killed(BaseException):
    """Stands for kill -9: nobody may catch it."""


def test_a_killed_stage_ends_with_the_same_bits(lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, context = stage(lab, tmp_path)
    config = dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, checkpoint_steps=3))
    ppo.run(config, context)
    whole = (tmp_path / "ppo" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "ppo")
    real = ppo.Loss.__call__
    calls = {"left": 6}

    def dying(self: Any, network: Any, batch: Any) -> Any:
        calls["left"] -= 1
        if calls["left"] == 0:
            raise Killed
        return real(self, network, batch)

    monkeypatch.setattr(ppo.Loss, "__call__", dying)
    with pytest.raises(Killed):
        ppo.run(config, context)
    assert not (tmp_path / "ppo" / "model.safetensors").exists()
    ppo.run(config, context)
    assert (tmp_path / "ppo" / "model.safetensors").read_bytes() == whole


def test_a_critic_of_its_own_starts_from_the_reward_model_and_trains(lab: Any, tmp_path: Path) -> None:
    config, context = stage(lab, tmp_path, critic="reward")
    judge_before = (tmp_path / "reward" / "model.safetensors").read_bytes()
    ppo.run(config, context)
    newest = sorted((tmp_path / "ppo" / "checkpoints").iterdir())[-1]
    critic = load_file(newest / "weights.safetensors")["critic.reward.score.weight"]
    judge = load_bundle(tmp_path / "reward").reward
    assert not torch.equal(critic, judge.score.weight), "the critic has moved"
    assert (tmp_path / "reward" / "model.safetensors").read_bytes() == judge_before, "the reward model has not"


def test_a_python_rule_can_be_the_reward(lab: Any, tmp_path: Path) -> None:
    config, context = stage(lab, tmp_path)
    context = dataclasses.replace(context, inputs={"policy": context.inputs["policy"]})
    metrics = ppo.run(config, context, reward=gold_rule, gold=gold_rule).metrics
    sample = metrics["samples"][0]
    assert sample["reward_before"] == pytest.approx(gold_rule([], sample["text_before"]), abs=0.3)
    assert metrics["last_update"]["gold_score"] == pytest.approx(metrics["last_update"]["score"])


def test_faults_in_the_inputs_are_named(lab: Any, tmp_path: Path) -> None:
    config, context = stage(lab, tmp_path)
    with pytest.raises(ConfigError, match="context"):
        ppo.run(dataclasses.replace(config, prompt_tokens=60), context)
    with pytest.raises(ConfigError, match="reward model"):
        ppo.run(dataclasses.replace(config, critic="reward"), context, reward=gold_rule)
    with pytest.raises(DataError, match="prompts"):
        ppo.run(dataclasses.replace(config, prompt_tokens=2), context)
    with pytest.raises(ConfigError, match="needs conversations"):
        ppo.run(dataclasses.replace(config, sources=(lab.preferences(tmp_path),)), context)
    other = Tokenizer.train(["something else entirely, and more of it"] * 9, 280)
    reward = load_bundle(tmp_path / "reward")
    save_bundle(tmp_path / "foreign", reward.reward, other, ModelCard(title="x", stage="reward"))
    inputs = {**context.inputs, "reward": tmp_path / "foreign"}
    with pytest.raises(BundleError, match="tokenizer"):
        ppo.run(config, dataclasses.replace(context, inputs=inputs))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("clip", 0.0, "above 0"),
        ("epochs", 0, "at least 1"),
        ("gae_lambda", 1.5, "between 0 and 1"),
        ("kl_coefficient", -0.1, "negative"),
        ("minibatches", 7, "equal minibatches"),
        ("sources", [], "no source"),
    ],
)
def test_impossible_settings_are_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(PPOConfig, {field: value})


def test_held_out_prompts_are_no_training_prompts(lab: Any, tmp_path: Path) -> None:
    config, context = stage(lab, tmp_path)
    policy = load_bundle(context.inputs["policy"])
    sources, template = (
        open_sources(config.sources, tmp_path, "conversations", "ppo.sources"),
        ChatTemplate(policy.tokenizer),
    )
    train, heldout = (
        choose_prompts("ppo", sources, config.sources, split, 500, config.prompt_tokens, template, 0, LeftOut())
        for split in ("train", "heldout")
    )
    asked = {prompt.messages[0]["content"] for prompt in train}
    assert len(asked) == len(train)
    assert not asked & {prompt.messages[0]["content"] for prompt in heldout}


@pytest.mark.parametrize("target", [0.0, -1.0])
def test_a_kl_target_of_nothing_is_refused_in_one_line(target: float) -> None:
    with pytest.raises(ConfigError, match="at some distance from its reference") as caught:
        build(PPOConfig, {"kl_target": target})
    assert "kl_target" in caught.value.where and "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="stays 0"):
        build(PPOConfig, {"kl_target": 6.0, "kl_coefficient": 0.0})
    assert build(PPOConfig, {"kl_target": 6.0}).kl_target == 6.0
    assert build(PPOConfig, {}).kl_target is None, "a fixed coefficient is the default"


def test_a_penalty_that_is_off_is_warned_of_before_anything_is_sampled(
    lab: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    ppo.check_inputs(lab.config(prompt_tokens=32, kl_coefficient=0.0), None)
    assert "nothing holds the policy near its reference" in capsys.readouterr().err
    ppo.check_inputs(lab.config(prompt_tokens=32), None)
    assert capsys.readouterr().err == ""
