"""GRPO and RLOO: advantages by hand, losses as TRL computes them, the first update, and the whole stage."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from duihua.config import build
from duihua.data.source import SourceConfig
from duihua.errors import BundleError, ConfigError, DataError, TrainingError
from duihua.models.bundle import ModelCard, load_bundle, save_bundle
from duihua.models.heads import ScoredDecoder
from duihua.nn.lora_config import LoraConfig
from duihua.stages import grpo, rejection_sampling
from duihua.stages.actor_critic import Actor, ReplyBatch
from duihua.stages.configs.answering import usual_rate
from duihua.stages.configs.grpo import GRPOConfig
from duihua.stages.configs.rejection_sampling import RejectionSamplingConfig
from duihua.stages.configs.verifiable import RuleConfig
from duihua.stages.context import StageContext
from duihua.stages.group_math import group_advantages, k3, solved_alike, token_weights, whole_reply_rewards
from duihua.stages.group_rollout import GROUP_METRICS, GroupRollout
from duihua.stages.judging import make_judge
from duihua.stages.policy_training import warn_of_rate
from duihua.stages.ppo_math import policy_loss
from duihua.stages.replies import Prompt, Reply
from duihua.text.tokenizer import Tokenizer
from duihua.training.config import OptimizerConfig, TrainerConfig

TRL = json.loads((Path(__file__).parents[1] / "fixtures" / "trl_losses.json").read_text(encoding="utf-8"))["grpo"]


# -- the equations ----------------------------------------------------------------------------------------------------


def test_a_rate_for_a_small_model_is_warned_of_in_a_large_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert usual_rate(10**9) == pytest.approx(3e-6) and usual_rate(5_000_000) == pytest.approx(2e-4, rel=0.01)
    config = GRPOConfig()
    warn_of_rate("grpo", config, 5_000_000)
    warn_of_rate("grpo", dataclasses.replace(config, lora=LoraConfig()), 10**9)  # adapters have a rate of their own
    assert capsys.readouterr().err == ""
    warn_of_rate("grpo", config, 124_000_000)
    assert "0.0002 is 13 times what is usual for 124 million parameters (about 2e-05)" in capsys.readouterr().err


def test_advantages_by_hand() -> None:
    rewards = torch.tensor([1.0, 3.0, 5.0, 2.0, 2.0, 2.0])
    plain = group_advantages(rewards, 3, leave_one_out=False, scale=False)
    assert plain.tolist() == [-2.0, 0.0, 2.0, 0.0, 0.0, 0.0]
    scaled = group_advantages(rewards, 3, leave_one_out=False, scale=True)
    assert scaled.tolist() == pytest.approx([-1.0, 0.0, 1.0, 0.0, 0.0, 0.0], abs=1e-3)  # deviation 2 over group - 1
    others = group_advantages(rewards, 3, leave_one_out=True, scale=False)
    assert others.tolist() == [-3.0, 0.0, 3.0, 0.0, 0.0, 0.0]  # 1 - (3 + 5) / 2
    assert solved_alike(rewards, 3) == 0.5
    across = group_advantages(rewards, 6, leave_one_out=False, scale=False)
    assert across.tolist() != plain.tolist(), "groups that are mixed up are not the same"


def test_leaving_the_reply_out_is_a_factor_and_nothing_else() -> None:
    rewards = torch.randn(12, generator=torch.Generator().manual_seed(0))
    own = group_advantages(rewards, 4, leave_one_out=False, scale=False)
    torch.testing.assert_close(group_advantages(rewards, 4, leave_one_out=True, scale=False), own * 4 / 3)


def test_k3_is_zero_at_equality_never_negative_and_unbiased() -> None:
    policy = torch.tensor([0.5, 0.3, 0.2]).log()
    reference = torch.tensor([0.2, 0.5, 0.3]).log()
    assert torch.equal(k3(policy, policy), torch.zeros(3))
    estimates = k3(policy, reference)
    assert bool((estimates > 0).all())
    true = float((policy.exp() * (policy - reference)).sum())
    assert float((policy.exp() * estimates).sum()) == pytest.approx(true)
    assert float((policy.exp() * k3(reference, policy)).sum()) != pytest.approx(true)


def test_weights_of_tokens_by_hand() -> None:
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    weights, divisor = token_weights(mask, "tokens", 5)
    assert (weights.sum(), divisor) == (6.0, 6.0)
    weights, divisor = token_weights(mask, "replies", 5)
    assert (weights[:, 0].tolist(), divisor) == ([0.25, 0.5], 2.0)
    weights, divisor = token_weights(mask, "limit", 5)
    assert (weights.sum(), divisor) == (6.0, 10.0)


def test_the_penalty_in_the_reward_is_that_of_the_whole_reply() -> None:
    assert whole_reply_rewards(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 0.0]), 0.25).tolist() == [0.0, 2.0]


@pytest.mark.parametrize(
    ("name", "average"),
    [("tokens", "tokens"), ("replies", "replies"), ("limit of tokens", "limit"), ("without KL", "tokens")],
)
def test_losses_and_gradients_are_those_of_trl(name: str, average: str) -> None:
    known = TRL[name]
    mask = torch.tensor(TRL["mask"]).bool()
    old, reference, advantages = (torch.tensor(TRL[one]).double() for one in ("old", "reference", "advantages"))

    def ours(beta: float, average: str) -> tuple[float, Tensor]:
        logprobs = torch.tensor(TRL["logprobs"]).double().requires_grad_()
        policy = policy_loss(logprobs, old, advantages[:, None] * mask, clip=TRL["clip"])
        weights, divisor = token_weights(mask, average, TRL["limit"])
        loss = ((policy.loss + beta * k3(logprobs, reference)) * weights * mask).sum() / divisor
        loss.backward()
        assert logprobs.grad is not None
        return float(loss.detach()), logprobs.grad

    value, gradient = ours(known["beta"], average)
    expected = torch.tensor(known["gradient"]).double()
    assert value == pytest.approx(known["value"], rel=1e-4)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
    for wrong in ((known["beta"] + 0.1, average), (known["beta"], "replies" if average == "tokens" else "tokens")):
        assert not torch.allclose(ours(*wrong)[1], expected, rtol=1e-3, atol=1e-6)


# -- the rollout ------------------------------------------------------------------------------------------------------


def settings(**changes: Any) -> GRPOConfig:
    base = GRPOConfig(
        sources=(SourceConfig(name="tiny-chat"),), iterations=12, rollout_prompts=8, group=4, minibatches=2,
        micro_batch=16, reply_tokens=8, missing_end="none", stop_kl=0.0, samples=2, slots=32,
        optimizer=OptimizerConfig(kind="adamw", learning_rate=4e-3, beta1=0.9, beta2=0.999, epsilon=1e-5),
        trainer=TrainerConfig(log_every=1, checkpoint_seconds=1e9),
    )  # fmt: skip
    return replace(base, **changes)


def rollout(lab: Any, config: GRPOConfig, **changes: Any) -> GroupRollout:
    policy = lab.decoder()
    parts: dict[str, Any] = {
        "scorer": lab.gold, "sampler": lab.sampler(policy, config), "prompts": lab.prompts(24),
    }  # fmt: skip
    return GroupRollout(Actor(policy), lab.decoder(), tokenizer=lab.tokenizer, config=config, seed=1, **parts | changes)


def figures(made: GroupRollout) -> dict[str, float]:
    return dict(zip(GROUP_METRICS, made.buffer["rollout"].tolist(), strict=True))


def test_a_group_is_replies_to_one_prompt_and_they_differ(lab: Any) -> None:
    made = rollout(lab, settings())
    made.next()
    packed = ReplyBatch(*(made.buffer[name] for name in ("token_ids", "prompt_lengths", "reply_mask")))
    assert len(packed.prompt_lengths_b) == 32
    prompts = [row[:length].tolist() for row, length in zip(packed.token_ids_bt, packed.prompt_lengths_b, strict=True)]
    assert all(prompts[i] == prompts[i - i % 4] for i in range(32))
    assert len({tuple(prompt) for prompt in prompts}) == 8
    replies = [tuple(row.tolist()) for row in packed.token_ids_bt]
    assert len(set(replies)) > 24, "each reply has a seed of its own"


def test_first_update_has_ratio_one_and_no_kl(lab: Any) -> None:
    made = rollout(lab, settings())
    batch = made.next()[0]
    metrics = grpo.Loss(made.config, made)(made.network, batch).metrics
    found = {name: value / weight for name, (value, weight) in metrics.items()}
    assert (found["ratio"], found["approximate_kl"], found["clip_fraction"]) == (1.0, 0.0, 0.0)
    assert found["kl_loss"] == 0.0 and found["kl"] == 0.0, "policy and reference are the same at step 0"
    assert found["sampler_difference"] < 1e-5
    assert "explained_variance" not in found, "there is no critic"


def test_replies_of_another_policy_stop_the_run_and_the_error_names_the_stage(lab: Any) -> None:
    config = settings()
    foreign = rollout(lab, config, sampler=lab.sampler(lab.decoder(seed=7), config))
    with pytest.raises(TrainingError, match="disagree") as caught:
        foreign.next()
    assert caught.value.where == "grpo, rollout 0"


def test_advantages_sum_to_zero_in_each_group_and_every_token_has_its_replys(lab: Any) -> None:
    made = rollout(lab, settings())
    made.next()
    mask, advantages = made.buffer["reply_mask"], made.buffer["advantages"]
    first = advantages[:, 0]
    assert torch.equal(advantages, first[:, None] * mask)
    torch.testing.assert_close(first.view(-1, 4).sum(dim=1), torch.zeros(8), rtol=0, atol=1e-5)
    assert float(first.abs().max()) > 0.1


def test_kl_in_the_reward_moves_the_advantages_and_in_the_loss_the_loss(lab: Any) -> None:
    """A reference that is another network: its KL is large, and stands in one place or the other."""

    def first(**changes: Any) -> tuple[Tensor, float]:
        config = settings(kl_coefficient=0.5, **changes)
        made = rollout(lab, config, **{"scorer": lambda p, r: torch.zeros(len(r))})
        made.reference = lab.decoder(seed=7)
        parts = [grpo.Loss(config, made)(made.network, batch) for batch in made.next()]
        return made.buffer["advantages"], sum(float(part.sum.detach()) for part in parts)

    in_loss, loss = first(kl="loss")
    in_reward, plain = first(kl="reward")
    assert float(in_loss.abs().max()) == 0.0 and loss > 0.0
    assert float(in_reward.abs().max()) > 0.0
    assert first(kl="auto")[0].equal(in_loss) and first(kl="auto", kind="rloo")[0].abs().max() > 0.0
    assert plain != pytest.approx(loss)


def test_a_wrong_temperature_stops_the_run(lab: Any) -> None:
    config = settings(temperature=0.7)
    policy = lab.decoder()
    wrong = lab.sampler(policy, settings(temperature=1.0))
    with pytest.raises(TrainingError, match="disagree"):
        rollout(lab, config, sampler=wrong).next()


def gradient(lab: Any, average: str, micro_batch: int, ranks: int = 1) -> Tensor:
    config = settings(micro_batch=micro_batch, loss_average=average)
    made = rollout(lab, config)
    loss = grpo.Loss(config, made)
    if ranks == 1:
        batches = made.next()
    else:
        batches = [batch for rank in range(ranks) for batch in rollout(lab, config).share(rank, ranks) if batch]
    parts = [loss(made.network, batch) for batch in batches]
    (sum(part.sum for part in parts) / sum(part.weight for part in parts)).backward()
    return torch.cat([w.grad.flatten() for w in made.network.parameters() if w.grad is not None])


@pytest.mark.parametrize("average", ["tokens", "replies", "limit"])
def test_the_gradient_does_not_depend_on_micro_batches_or_ranks(lab: Any, average: str) -> None:
    whole = gradient(lab, average, 16)
    torch.testing.assert_close(gradient(lab, average, 3), whole, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(gradient(lab, average, 16, ranks=2), whole, rtol=1e-3, atol=1e-6)


def test_the_averages_differ_where_lengths_do() -> None:
    mask = torch.tensor([[True] * 4, [True, False, False, False]])
    loss = torch.tensor([[1.0] * 4, [3.0, 0.0, 0.0, 0.0]])

    def value(average: str) -> float:
        weights, divisor = token_weights(mask, average, 4)
        return float((loss * weights).sum() / divisor)

    assert [value(average) for average in ("tokens", "replies", "limit")] == pytest.approx([1.4, 2.0, 0.875])


def test_a_group_of_equal_rewards_teaches_nothing(lab: Any) -> None:
    config = settings(kl_coefficient=0.0)
    made = rollout(lab, config, scorer=lambda p, r: torch.ones(len(r)))
    parts = grpo.Loss(config, made)(made.network, made.next()[0])
    parts.sum.backward()
    assert all(float(w.grad.abs().max()) == 0.0 for w in made.network.parameters() if w.grad is not None)
    assert figures(made)["solved_alike"] == 1.0


def test_state_goes_through_a_checkpoint_unchanged(lab: Any) -> None:
    made = rollout(lab, settings(minibatches=4))
    made.next()
    state = made.state_dict()
    following = made.next()[0]
    again = rollout(lab, settings(minibatches=4))
    again.load_state_dict(state)
    found = again.next()[0]
    for name in following:
        torch.testing.assert_close(found[name], following[name], rtol=0, atol=0, equal_nan=True)


def test_names_of_the_logged_figures() -> None:
    assert (*grpo.LOSS_METRICS, *GROUP_METRICS) == (
        "policy_loss", "kl_loss", "approximate_kl", "ratio", "clip_fraction",
        "reward", "score", "gold_score", "kl", "kl_coefficient", "entropy", "eos_rate", "length", "repetition",
        "sampler_difference", "iteration", "group_deviation", "solved_alike",
    )  # fmt: skip


# -- the stage --------------------------------------------------------------------------------------------------------


def stage(lab: Any, folder: Path, **changes: Any) -> tuple[GRPOConfig, StageContext]:
    config = settings(
        **{
            "sources": (lab.conversations(folder, 200),), "iterations": 2, "prompt_tokens": 48, "heldout_prompts": 6,
            "train_prompts": 64, **changes,
        }
    )  # fmt: skip
    save_bundle(
        folder / "reward", ScoredDecoder(lab.decoder()).initialise_score(3), lab.tokenizer, ModelCard("r", "reward")
    )
    inputs = {"policy": lab.policy_bundle(folder / "sft"), "reward": folder / "reward"}
    return config, StageContext(folder / "grpo", inputs, data_directory=folder, seed=4, threads=1)


def test_the_stage_gives_a_policy_bundle_and_the_promised_figures(lab: Any, tmp_path: Path) -> None:
    config, context = stage(lab, tmp_path)
    result = grpo.run(config, context)
    found = json.loads((tmp_path / "grpo" / "result.json").read_text(encoding="utf-8"))["metrics"]
    assert {
        "steps", "iterations", "reward_before", "reward_after", "reward_gain", "kl_nats", "repetition_rate", "length",
        "eos_rate", "samples", "seconds", "terms", "kind",
    } <= set(found)  # fmt: skip
    assert found["steps"] == 4 and found["reward_gain"]["n"] == 6 and "rules" not in found
    line = json.loads((tmp_path / "grpo" / "metrics.jsonl").read_text().splitlines()[0])
    assert {*grpo.LOSS_METRICS, "score", "kl", "group_deviation", "solved_alike"} <= set(line)
    assert result.bundle is not None and load_bundle(result.bundle).kind == "policy"
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("sft", "grpo"))
    assert set(before) == set(after) and any(not torch.equal(before[name], after[name]) for name in before)


def test_a_killed_stage_ends_with_the_same_bits(lab: Any, tmp_path: Path, killed: Any) -> None:
    config, context = stage(lab, tmp_path, kind="rloo")
    config = replace(config, trainer=replace(config.trainer, checkpoint_steps=1))
    grpo.run(config, context)
    other = dataclasses.replace(context, directory=tmp_path / "killed")
    with killed(grpo, "token_weights", 4):
        grpo.run(config, other)
    assert not (other.directory / "model.safetensors").exists()
    grpo.run(config, other)
    whole = (context.directory / "model.safetensors").read_bytes()
    assert (other.directory / "model.safetensors").read_bytes() == whole


def test_rules_judge_without_a_reward_model_and_lora_leaves_the_rest_alone(lab: Any, tmp_path: Path) -> None:
    rules = (RuleConfig("answer"), RuleConfig("pattern", weight=0.5, pattern=r"\w+ \w+"))
    config, context = stage(lab, tmp_path, rules=rules, lora=LoraConfig(rank=2))
    context = dataclasses.replace(context, inputs={"policy": context.inputs["policy"]})
    found = grpo.run(config, context).metrics
    assert [rule["kind"] for rule in found["rules"]] == ["answer", "pattern"]
    assert found["rules"][0]["after"]["n"] == 6
    assert (tmp_path / "grpo" / "adapter").is_dir()


def test_a_python_rule_is_the_reward_and_the_answer_of_the_data_reaches_the_rules(lab: Any, tmp_path: Path) -> None:
    seen: list[str] = []

    def vowels(messages: Sequence[Any], text: str) -> float:
        seen.append(text)
        return float(sum(letter in "aeiou" for letter in text))

    config, context = stage(lab, tmp_path)
    found = grpo.run(config, context, reward=vowels, gold=vowels).metrics
    assert seen and found["last_update"]["gold_score"] == pytest.approx(found["last_update"]["score"])
    score = make_judge("grpo", (RuleConfig("answer"),), context, lab.tokenizer, None).scorer
    prompt = Prompt(0, [{"role": "user", "content": "x"}], [1], answer="red cat")
    right, wrong = (Reply(lab.tokenizer.encode(text), [], True) for text in ("Red cat.", "cat red"))
    assert score([prompt, prompt], [right, wrong]).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("learning", ["grpo", "rejection_sampling"])
def test_a_template_that_ends_no_reply_is_refused_before_anything_is_sampled(
    lab: Any, tmp_path: Path, learning: str
) -> None:
    config, context = stage(lab, tmp_path)
    open_ended = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    open_ended += "{% if add_generation_prompt %}assistant: {% endif %}"
    template = context.inputs["policy"] / "chat_template.jinja"
    template.write_text(open_ended, encoding="utf-8")
    with pytest.raises(DataError, match="ends no reply with a stop token"):
        if learning == "grpo":
            grpo.run(config, context)
        else:
            rejection_sampling.run(RejectionSamplingConfig(sources=config.sources, prompt_tokens=24), context)
    assert not context.directory.exists()


def test_faults_in_the_inputs_are_named(lab: Any, tmp_path: Path) -> None:
    config, context = stage(lab, tmp_path)
    alone = dataclasses.replace(context, inputs={"policy": context.inputs["policy"]})
    with pytest.raises(ConfigError, match="nothing that judges"):
        grpo.run(config, alone)
    with pytest.raises(ConfigError, match="context"):
        grpo.run(replace(config, prompt_tokens=60), context)
    with pytest.raises(DataError, match="no sum"):
        grpo.run(replace(config, rules=(RuleConfig("arithmetic"),)), alone)
    other = Tokenizer.train(["something else entirely, and more of it"] * 9, 280)
    save_bundle(tmp_path / "foreign", ScoredDecoder(lab.decoder(3)), other, ModelCard("x", "reward"))
    with pytest.raises(BundleError, match="tokenizer"):
        grpo.run(config, dataclasses.replace(context, inputs={**context.inputs, "reward": tmp_path / "foreign"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group": 1}, "compared with others"),
        ({"minibatches": 7}, "equal minibatches"),
        ({"clip": 0.0}, "above 0"),
        ({"kl_target": 6.0, "kl_coefficient": 0.0}, "stays 0"),
        ({"lora": {"dropout": 0.1}}, "dropout"),
        ({"sources": []}, "no source"),
        ({"rules": [{"kind": "pattern"}]}, "needs a pattern"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(GRPOConfig, changes)
